//! What a scrape through the scraper brings: the exporter's own bytes and headers, or a failure that can be seen.

#[path = "../support/mod.rs"]
mod support;

mod compression;
mod conformance;
mod exactness;
mod filter;
mod killed_agent;
#[cfg(all(feature = "metrics", feature = "tower"))]
mod sources;
mod why_down;
