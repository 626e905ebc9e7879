//! What a process tells about itself.

#[cfg(feature = "scraper")]
mod alias_metrics;
mod chain;
mod classic;
mod client_metrics;
mod format;
#[cfg(feature = "scraper")]
mod inbound_metrics;
#[cfg(feature = "cli")]
pub mod log;
mod metric;
#[cfg(feature = "scraper")]
mod node_metrics;
#[cfg(feature = "scraper")]
mod outcome;
#[cfg(any(feature = "agent", feature = "scraper"))]
mod said;
#[cfg(feature = "scraper")]
mod scraper_metrics;
mod word;

#[cfg(feature = "scraper")]
pub(crate) use alias_metrics::alias_metrics;
pub(crate) use chain::Chain;
pub(crate) use client_metrics::ClientMetrics;
pub use format::ExpositionFormat;
#[cfg(feature = "scraper")]
pub use node_metrics::{NodeMetrics, NodeStanding};
#[cfg(feature = "scraper")]
pub use outcome::{FileSdOutcome, HandshakeRefusal, RegistrationOutcome, ScrapeOutcome, SdOutcome};
#[cfg(any(feature = "agent", feature = "scraper"))]
pub(crate) use said::said;
#[cfg(feature = "scraper")]
pub use scraper_metrics::{ScrapeRecord, ScraperMetrics, Standing};
