//! HTTP/1.1 parts that know no role: a connection pool, a counted and limited body, hop-by-hop headers; and the listener
//! with its limits on slow clients, and plain-text answers.

mod body;
#[cfg(any(feature = "agent", feature = "scraper", feature = "tower"))]
mod hop_by_hop;
#[cfg(any(feature = "agent", feature = "scraper"))]
mod pool;
mod pull_request;
#[cfg(feature = "scraper")]
mod server;
#[cfg(feature = "scraper")]
mod slow_head;
#[cfg(feature = "scraper")]
mod slow_reader;
#[cfg(feature = "scraper")]
pub(crate) mod text;

pub(crate) use body::{BodyEnd, BodyObserver, LimitedBody, expected_len};
#[cfg(any(feature = "agent", feature = "scraper", feature = "tower"))]
pub(crate) use hop_by_hop::remove_hop_by_hop;
#[cfg(any(feature = "agent", feature = "scraper"))]
pub(crate) use pool::{Connection, Pool, PoolLimits, SendError};
#[cfg(feature = "agent")]
pub(crate) use pool::{PooledBody, PooledBodyError};
pub use pull_request::PullRequest;
#[cfg(feature = "scraper")]
pub use server::BindError;
#[cfg(all(test, feature = "cli"))]
pub(crate) use server::{HEAD_LIMIT, IDLE_LIMIT, MAX_HEAD, READER_LIMIT};
#[cfg(feature = "scraper")]
pub(crate) use server::{LocalAddr, accept, bind};

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
