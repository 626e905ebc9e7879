//! Links to peers: their table, their streams, and dialling by public key.

pub(crate) mod address_book;
pub(crate) mod dial;
pub(crate) mod status;
pub(crate) mod stream;
pub(crate) mod table;
