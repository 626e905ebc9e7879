//! Tests that keep the whole machine busy. They run one after the other: each holds [`MACHINE`].

use tokio::sync::Mutex;

#[path = "../support/mod.rs"]
mod support;

mod agents;
mod churn;
mod clients;
mod dht;
mod farewell;
mod many_targets;
mod outage;
mod storm;

/// Two of these tests at once would starve each other, and time out.
static MACHINE: Mutex<()> = Mutex::const_new(());
