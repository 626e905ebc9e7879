//! Attacks on running processes, one theme a file: each test fails on the code before its defence.

use tokio::sync::Mutex;

#[path = "../support/mod.rs"]
mod support;

mod fat_table;
mod half_open;
mod holders;
mod http;
mod nodes;
mod strangers;

/// Held by the tests that keep the whole machine busy: two at once would starve each other, and time out.
static MACHINE: Mutex<()> = Mutex::const_new(());
