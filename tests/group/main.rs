//! Several scrapers over one table in a real NATS.

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod store;
