//! The scraper's HTTP API, for Prometheus and for people.
//!
//! Requests become calls of the [`Registry`](crate::registry::Registry) and of [`Pull`](super::pull::Pull); `router` lists the endpoints. `GET http://{alias}/metrics`
//! is a scrape too, for Prometheus's `proxy_url`.
//!
//! The files of [`WebSecurity`](crate::http::WebSecurity) say who may ask: each route needs a right (see `rights.rs`), and a
//! user may see some of the targets (see `viewer.rs`). Without these files every client that can reach the API may read
//! everything and release aliases, and the API listens on loopback, as Prometheus does. In any case nothing that a stranger
//! sends grows memory without bound (header sizes, connections, scrapes, and the time of a reader are limited), and no web
//! page of another site in a browser can read (see `host.rs`) or change anything (see `api.rs`).

mod api;
mod beacons;
mod control;
mod file_sd;
mod follower;
#[cfg(all(any(fuzzing, test), feature = "cli"))]
pub(crate) mod fuzzing;
mod headers;
mod host;
mod list_body;
mod on_change;
mod peers;
mod proxy;
mod readers;
mod rights;
mod router;
mod scrape;
mod sd;
mod sd_chunks;
mod sd_list;
mod table_list;
mod tickets;
mod viewer;
mod views;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

#[cfg(feature = "cli")]
pub(crate) use self::control::{CONTROL_SOCKET, EXPORT_PATH};
pub(super) use self::{beacons::BeaconsApi, control::Control, file_sd::FileSd, on_change::OnChange, router::Shared};
#[cfg(feature = "cli")]
pub(crate) use self::{
    peers::{Changed, PEERS_PATH, RuleText, Rules},
    tickets::{Made, TICKETS_PATH, Wanted},
};
use crate::http::{self, Listener};

/// Answers requests and keeps the file_sd file until `stop` fires; scrapes in flight end by their deadlines.
pub(super) async fn serve(
    listener: Listener,
    shared: Arc<Shared>,
    beacons: Option<BeaconsApi>,
    file_sd: Option<FileSd>,
    stop: CancellationToken,
) {
    let keep_file = async {
        if let Some(file_sd) = file_sd {
            file_sd.keep(Arc::clone(&shared), stop.clone()).await;
        }
    };
    let keep_beacons = async {
        if let Some(beacons) = beacons {
            beacons.serve(Arc::clone(&shared), stop.clone()).await;
        }
    };
    let (limits, refusals) = (shared.connections, Arc::clone(shared.network.refusals()));
    let listener = listener.behind(Arc::clone(&shared.gate));
    let answer = http::accept(listener, limits, refusals, router::router(Arc::clone(&shared)), stop.clone());
    tokio::join!(answer, keep_beacons, keep_file);
}
