//! Links to peers: their state, their table, their streams, and dialling by public key.

pub(crate) mod acceptor;
pub(crate) mod address_book;
pub(crate) mod connection;
pub(crate) mod dial;
pub(crate) mod local_end;
pub(crate) mod origins;
pub(crate) mod proved;
#[cfg(feature = "scraper")]
pub(crate) mod source;
pub(crate) mod status;
pub(crate) mod stream;
pub(crate) mod table;
pub(crate) mod tested;
