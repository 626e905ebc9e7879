//! Below the swarm: names, sockets, the proxy of the environment, root certificates, streams of a connection.

pub(crate) mod admission;
pub(crate) mod answered;
pub(crate) mod close;
pub(crate) mod dial_socket;
pub(crate) mod half_open;
pub(crate) mod inbound;
pub(crate) mod listen;
pub(crate) mod muxing;
pub(crate) mod proxy;
pub(crate) mod refusal;
pub(crate) mod resolve;
pub(crate) mod roots;
pub(crate) mod tcp;
