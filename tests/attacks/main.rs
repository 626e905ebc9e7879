//! Attacks on a running scraper, agent or node, each with the bound that a mend gave it.

#[path = "../support/mod.rs"]
mod support;

mod strangers;
