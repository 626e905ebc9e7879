//! What a client registers, how a registration changes and ends, and how each failure is reported.

#[path = "../support/mod.rs"]
mod support;

mod dynamic_targets;
mod errors;
mod in_process;
mod key_rotation;
mod matrix;
mod registration_log;
mod scopes;
mod self_alias;
mod tickets;
