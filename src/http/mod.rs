//! HTTP/1.1 parts that know no role: the listener with its limits on slow clients, plain-text answers, hop-by-hop
//! headers.

#[cfg(any(feature = "agent", feature = "scraper", feature = "tower"))]
mod hop_by_hop;
#[cfg(feature = "scraper")]
mod server;
#[cfg(feature = "scraper")]
mod slow_head;
#[cfg(feature = "scraper")]
mod slow_reader;
#[cfg(feature = "scraper")]
pub(crate) mod text;

#[cfg(any(feature = "agent", feature = "scraper", feature = "tower"))]
pub(crate) use hop_by_hop::remove_hop_by_hop;
#[cfg(feature = "scraper")]
pub use server::BindError;
#[cfg(feature = "scraper")]
pub(crate) use server::{LocalAddr, accept, bind};
