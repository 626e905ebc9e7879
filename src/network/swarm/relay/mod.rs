//! Circuits between peers that cannot reach each other directly: the relay of a node, and the client of relays.

pub(crate) mod client;
#[cfg(feature = "node")]
pub(crate) mod limits;
#[cfg(feature = "node")]
pub(crate) mod server;
