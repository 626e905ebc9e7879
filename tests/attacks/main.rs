//! Attacks on a running scraper, each with what an honest peer still has.

#[path = "../support/mod.rs"]
mod support;

mod fat_table;
