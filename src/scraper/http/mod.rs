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
//! This module turns requests into calls of the [`Registry`] and of [`Pull`]; it knows no swarm and no stream.
//!
//! There is no authentication: by default it listens on loopback, as Prometheus itself does, and whoever can reach it
//! may read everything and release aliases. What must hold even when it is exposed: nothing a stranger sends grows
//! memory without bound (header sizes, connections, scrapes, and the time a reader may take are limited), and a web
//! page in a browser that can reach it cannot make it change anything (see `api.rs`).

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

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(super) use self::file_sd::NoTarget;
use self::{
    file_sd::FileSd,
    router::{Shared, router},
};
use super::{metrics::ScraperMetrics, pull::Pull};
use crate::{http, identity::HostPort, network::Network, registry::Registry};

/// Settings of the HTTP side.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// What stands in http_sd as the address to scrape. Default: the `Host` that Prometheus used to ask, which is right
    /// unless `/sd` is read by one way and scrapes come by another.
    pub advertise: Option<HostPort>,
    /// A file that is kept as `/sd` would answer, for `file_sd_configs`. What stands in it as the address to scrape is
    /// `advertise`, or else the address listened on. Default: none.
    pub file_sd: Option<PathBuf>,
    /// Most connections at once; further ones wait to be accepted. Default 10 240: Prometheus keeps up to 1000 idle.
    pub max_connections: usize,
    /// Settings of scrapes.
    pub scrape: ScrapeConfig,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { advertise: None, file_sd: None, max_connections: 10_240, scrape: ScrapeConfig::default() }
    }
}

impl HttpConfig {
    /// Looks for what cannot work when the HTTP side listens on `local`.
    ///
    /// # Errors
    /// [`NoTarget`].
    pub(super) fn check(&self, local: SocketAddr) -> Result<(), NoTarget> {
        FileSd::new(self, local).map(drop)
    }
}

/// Settings of scrapes.
#[derive(Clone, Debug)]
pub struct ScrapeConfig {
    /// How long a pull may take if the request does not say (`X-Prometheus-Scrape-Timeout-Seconds`). Default 10 s.
    pub timeout_default: Duration,
    /// The longest that a request may ask for. Default 2 min.
    pub timeout_max: Duration,
    /// How much sooner than Prometheus we give up, so that our 504 arrives before its own timeout; but never more than
    /// a tenth of the timeout. Default 500 ms.
    pub margin: Duration,
    /// Most bytes of an exposition, as it travels. A longer one is cut. Default 64 MiB.
    pub max_body: u64,
    /// Most scrapes at once; further ones are answered 503. Fewer than the connections, so that `/sd`, `/metrics` and
    /// `/-/healthy` are answered even when every peer hangs. Default 8192.
    pub max_concurrent: usize,
}

impl Default for ScrapeConfig {
    fn default() -> Self {
        Self {
            timeout_default: Duration::from_secs(10),
            timeout_max: Duration::from_secs(120),
            margin: Duration::from_millis(500),
            max_body: 64 << 20,
            max_concurrent: 8192,
        }
    }
}

/// What the HTTP side speaks to.
#[derive(Clone)]
pub(super) struct HttpState {
    /// The table of aliases.
    pub(super) registry: Registry,
    /// Pulls expositions.
    pub(super) pull: Arc<dyn Pull>,
    /// Knows which peers are linked.
    pub(super) network: Network,
    /// Counts.
    pub(super) metrics: Arc<ScraperMetrics>,
}

/// Answers requests until `stop` fires; scrapes in flight end by their deadlines. A configuration that
/// [`HttpConfig::check`] refuses keeps no file.
pub(super) async fn serve(listener: TcpListener, config: HttpConfig, state: HttpState, stop: CancellationToken) {
    let file_sd = listener.local_addr().ok().and_then(|local| FileSd::new(&config, local).ok().flatten());
    let max_connections = config.max_connections;
    let shared = Arc::new(Shared::new(config, state));
    let keep_file = async {
        if let Some(file_sd) = file_sd {
            file_sd.keep(Arc::clone(&shared), stop.clone()).await;
        }
    };
    tokio::join!(http::accept(listener, max_connections, router(Arc::clone(&shared)), stop.clone()), keep_file);
}
