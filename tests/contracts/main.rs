//! The HTTP contracts of the servers that narthex stands in for, from outside: what is asked here, they answer alike.
//!
//! `NARTHEX_REGISTRATION_SERVER=HOST:PORT` points the suite at another server than our own, such as the original, with its
//! token in `NARTHEX_REGISTRATION_SERVER_TOKEN`, and `NARTHEX_LOBBYD=HOST:PORT` at another lobbyd. What the originals do wrong is
//! asked of ours alone.

#[path = "../support/mod.rs"]
mod support;

mod lobby;
mod lobby_nats;
mod registration_server;
