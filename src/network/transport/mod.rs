//! Below the swarm: sockets, the proxy of the environment, root certificates.

pub(crate) mod listen;
pub(crate) mod proxy;
pub(crate) mod roots;
pub(crate) mod tcp;
