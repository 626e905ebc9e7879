//! What every role reports about itself: logs, formats of own metrics, chains of errors.
//!
//! Each role's metrics live with the role (`client::metrics`, `node::metrics`, `scraper::metrics`).

mod build;
mod chain;
mod classic;
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) mod dropped_lines;
#[cfg(any(feature = "agent", feature = "scraper"))]
mod escape;
mod few;
mod format;
mod label_value;
#[cfg(feature = "cli")]
pub mod log;
mod log_pace;
#[cfg(feature = "scraper")]
mod log_rate;
mod metric;
#[cfg(feature = "scraper")]
mod panics;
pub(crate) mod process;
mod refusals;
#[cfg(any(feature = "agent", feature = "scraper"))]
mod remote_message;
mod short;

#[cfg(feature = "cli")]
pub(crate) use build::LONG_VERSION;
pub(crate) use build::build_info;
pub(crate) use chain::Chain;
#[cfg(any(feature = "agent", feature = "scraper"))]
pub(crate) use escape::escaped;
pub(crate) use few::Few;
pub(crate) use format::ExpositionFormat;
#[cfg(test)]
pub(crate) use label_value::check_labels;
pub(crate) use label_value::{LabelValue, label_values};
pub(crate) use log_pace::LogPace;
#[cfg(feature = "scraper")]
pub(crate) use log_rate::LogRate;
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) use metric::Label;
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) use metric::Readings;
pub(crate) use metric::{Counters, SCRAPE_BUCKETS, bytes, counter, gauge, unix_time};
#[cfg(feature = "scraper")]
pub(crate) use panics::caught;
pub(crate) use refusals::{Limit, Refusals};
#[cfg(any(feature = "agent", feature = "scraper"))]
pub(crate) use remote_message::remote_message;
pub(crate) use short::short_duration;
#[cfg(feature = "cli")]
pub(crate) use short::short_key;
