//! The relay of a node: circuits between peers that cannot reach each other directly.

pub(crate) mod handler;
pub(crate) mod limits;
pub(crate) mod server;
