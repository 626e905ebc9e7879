//! HTTP/1.1 parts that know no role: a connection pool, a counted and limited body, hop-by-hop headers; and the listener
//! with its limits on slow clients, and plain-text answers.

#[cfg(any(feature = "scraper", feature = "node"))]
mod admission;
#[cfg(feature = "scraper")]
mod authentication;
mod body;
#[cfg(feature = "scraper")]
pub(crate) mod browser;
#[cfg(feature = "scraper")]
mod client_certificates;
#[cfg(feature = "scraper")]
mod gate;
#[cfg(any(feature = "agent", feature = "scraper", feature = "tower"))]
mod hop_by_hop;
#[cfg(any(feature = "scraper", feature = "node"))]
mod listener;
#[cfg(any(feature = "agent", feature = "scraper"))]
mod passed_headers;
#[cfg(feature = "scraper")]
mod passwords;
#[cfg(any(feature = "scraper", feature = "node"))]
mod places;
#[cfg(any(feature = "agent", feature = "scraper"))]
mod pool;
mod pull_request;
#[cfg(any(feature = "scraper", feature = "node"))]
mod requests;
#[cfg(any(feature = "scraper", feature = "node"))]
mod server;
#[cfg(any(feature = "scraper", feature = "node"))]
mod slow_head;
#[cfg(any(feature = "scraper", feature = "node"))]
mod slow_reader;
#[cfg(any(feature = "scraper", feature = "node"))]
mod spare_files;
mod streams;
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) mod text;
#[cfg(feature = "scraper")]
mod tls;
#[cfg(feature = "scraper")]
mod token;
#[cfg(feature = "scraper")]
mod web_config;

#[cfg(any(feature = "scraper", feature = "node"))]
pub use admission::HttpLimits;
#[cfg(feature = "scraper")]
pub(crate) use authentication::{CHALLENGES, Denied};
#[cfg(feature = "scraper")]
pub(crate) use body::BodyCut;
pub(crate) use body::{BodyEnd, BodyObserver, LimitedBody, expected_len};
#[cfg(feature = "scraper")]
pub(crate) use gate::Gate;
#[cfg(feature = "scraper")]
pub use gate::{WebSecurity, WebSecurityError};
#[cfg(any(feature = "agent", feature = "scraper", feature = "tower"))]
pub(crate) use hop_by_hop::remove_hop_by_hop;
#[cfg(any(feature = "scraper", feature = "node"))]
pub use listener::BindError;
#[cfg(feature = "cli")]
pub(crate) use listener::unix_path;
#[cfg(feature = "scraper")]
pub(crate) use listener::{ClientAddr, LocalAddr};
#[cfg(feature = "scraper")]
pub use listener::{HttpAddr, HttpAddrError, HttpSocket};
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) use listener::{Listener, bind};
#[cfg(feature = "cli")]
pub(crate) use passed_headers::nameable_header;
#[cfg(any(feature = "agent", feature = "scraper"))]
pub(crate) use passed_headers::passed_headers;
#[cfg(feature = "scraper")]
pub(crate) use pool::Place;
#[cfg(feature = "agent")]
pub(crate) use pool::PooledBodyError;
#[cfg(any(feature = "agent", feature = "scraper"))]
pub(crate) use pool::{Connection, Pool, PoolLimits, PooledBody, SendError};
pub use pull_request::PullRequest;
#[cfg(feature = "scraper")]
pub(crate) use requests::Worth;
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) use server::accept;
#[cfg(all(test, feature = "cli"))]
pub(crate) use server::{HEAD_LIMIT, IDLE_LIMIT, MAX_HEAD, READER_LIMIT};
pub(crate) use streams::serve_streams;
#[cfg(feature = "scraper")]
pub(crate) use token::TokenFile;
#[cfg(feature = "cli")]
pub(crate) use token::is_token;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
