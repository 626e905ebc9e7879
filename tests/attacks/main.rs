//! Attacks on a running scraper, by strangers and by holders of the secret. They keep the machine busy, so they run one
//! after the other: each holds [`MACHINE`].

use tokio::sync::Mutex;

#[path = "../support/mod.rs"]
mod support;

mod half_open;

/// Two of these tests at once would starve each other, and time out.
static MACHINE: Mutex<()> = Mutex::const_new(());
