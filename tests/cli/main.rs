//! The `narthex` command: its usage, `narthex doctor`, and how its processes end.

#[path = "../support/mod.rs"]
mod support;

mod backup;
mod bridge;
mod command;
mod doctor;
mod lifecycle;
mod mistakes;
mod private_files;
mod units;
mod version;
