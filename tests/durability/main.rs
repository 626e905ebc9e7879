//! What a scraper keeps over kills, power cuts, damage and disks that fail.
//!
//! Each test runs a few rounds; `NARTHEX_ROUNDS=50 cargo test --test durability power -- --nocapture` runs as many as it is
//! told, and prints one line of results. They run one after the other: each holds [`MACHINE`].

use std::{env, io::Write};

use tokio::sync::Mutex;

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod damage;
mod disk;
mod kills;
mod power;

static MACHINE: Mutex<()> = Mutex::const_new(());

/// `NARTHEX_ROUNDS`, or else the test's own number.
fn rounds(usual: usize) -> usize {
    env::var("NARTHEX_ROUNDS").map_or(usual, |text| text.parse().expect("NARTHEX_ROUNDS is a number"))
}

/// Prints a result, past the capture of the test runner.
fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
