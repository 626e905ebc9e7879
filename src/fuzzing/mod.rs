//! What the fuzz targets in `fuzz/` run: a function for every decoder of a stranger's bytes and of people's texts.
//!
//! Each takes any bytes and panics if a property fails that its comment names. Compiled for these targets, and for
//! the unit tests, which run every committed seed.

mod register;
#[cfg(test)]
mod seeds;
mod text;

pub use register::{announcement, handshake, message, session};
pub use text::text;

pub use crate::{
    agent::fuzzing::{target_file, url},
    client::filter_fuzzing::filter,
    network::fuzzing::multiaddress,
    scraper::host_fuzzing::host,
};
