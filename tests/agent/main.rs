//! The agent: its targets, and how it asks their exporters.

#[path = "../support/mod.rs"]
mod support;

mod asking;
mod attack;
mod exporter;
mod targets;
mod tls;
