//! How peers find and reach each other on one host and on one local network. `nat` has the rest.

#[path = "../support/mod.rs"]
mod support;

mod discovery;
mod mdns;
mod node;
mod only_http;
mod quiet_log;
