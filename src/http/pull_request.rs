//! The request of a pull, at the scraper as at the client.

use http::HeaderMap;
use tokio::time::Instant;

/// One pull, as Prometheus asked for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PullRequest {
    /// Prometheus's request headers, `Accept` and `Accept-Encoding` among them, and those that the scraper was told to pass on.
    pub headers: HeaderMap,
    /// The query of the scrape, without the `?`.
    pub query: Option<String>,
    /// When the exposition must have ended.
    pub deadline: Instant,
}

impl PullRequest {
    /// A pull with these headers and this query, to end at `deadline`.
    pub fn new(headers: HeaderMap, query: Option<String>, deadline: Instant) -> Self {
        Self { headers, query, deadline }
    }
}
