//! The scraper's HTTP API, for Prometheus and for people.
//!
//! | endpoint | answer |
//! |---|---|
//! | `GET /sd` | the http_sd list |
//! | `GET /scrape/{alias}/metrics` | an exposition, pulled from the peer |
//! | `GET http://{alias}/metrics` | the same, for Prometheus's `proxy_url` |
//! | `GET /metrics` | the scraper's own metrics |
//! | `GET /metrics/aliases` | how the holder of each alias is linked, as metrics |
//! | `GET /-/healthy`, `/-/ready` | as Prometheus's management API |
//! | `GET /api/v1/aliases`, `/api/v1/aliases/{alias}`, `DELETE` on it | the table as JSON, and the operator's release |
//!
//! This module turns requests into calls of the [`Registry`] and of [`Pull`].
//!
//! There is no authentication: by default the API listens on loopback, as Prometheus does, and every client that can
//! reach it may read everything and release aliases. Even when the API is exposed, nothing that a stranger sends grows
//! memory without bound (header sizes, connections, scrapes, and the time of a reader are limited), and no web page in
//! a browser can change anything (see `api.rs`).

mod api;
mod file_sd;
mod headers;
mod host;
mod proxy;
mod router;
mod scrape;
mod sd;
mod sd_list;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(super) use self::file_sd::FileSd;
use self::router::{Shared, router};
use super::{config::HttpConfig, metrics::ScraperMetrics, pull::Pull};
use crate::{http, network::Network, registry::Registry};

/// The parts of the scraper that handlers use.
#[derive(Clone)]
pub(super) struct HttpState {
    pub(super) registry: Registry,
    pub(super) pull: Arc<dyn Pull>,
    pub(super) network: Network,
    pub(super) metrics: Arc<ScraperMetrics>,
}

/// Answers requests and keeps the file_sd file until `stop` fires; scrapes in flight end by their deadlines.
pub(super) async fn serve(
    listener: TcpListener,
    config: HttpConfig,
    file_sd: Option<FileSd>,
    state: HttpState,
    stop: CancellationToken,
) {
    let max_connections = config.max_connections;
    let shared = Arc::new(Shared::new(config, state));
    let keep_file = async {
        if let Some(file_sd) = file_sd {
            file_sd.keep(Arc::clone(&shared), stop.clone()).await;
        }
    };
    tokio::join!(http::accept(listener, max_connections, router(Arc::clone(&shared)), stop.clone()), keep_file);
}
