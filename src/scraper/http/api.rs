//! `/api/v1/aliases`: an alias as JSON, and the operator's `DELETE`s.
//!
//! A web page in a browser must not be able to release aliases. A page from elsewhere cannot send a `DELETE` unless we
//! answer its preflight, which we do not; a page that made its own name lead here (DNS rebinding) needs no preflight,
//! but its browser names it as the `Origin`. So a request that has an `Origin` must have ours: an address that is
//! certainly this scraper's. Whatever is no browser sends no `Origin`.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Extension, Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header, uri::Scheme};
use serde::Serialize;

use super::{router::Shared, viewer::Viewer};
use crate::{
    http::{LocalAddr, text},
    identity::PublicKey,
    network::{LinkStatus, LinkTransport, Links},
    registry::{Cause, Holders, Lease, Registry, path_label},
    scraper::last_scrapes::{Fault, LastScrape, LastScrapes},
    telemetry::Chain,
    wire::Alias,
};

/// The last second that RFC 3339 can write.
const END_OF_9999: Duration = Duration::from_secs(253_402_300_799);

/// The answer to a page of another origin.
const FOREIGN_ORIGIN: &str = "aliases are not released from a web page of another origin";

#[derive(Serialize)]
struct Released {
    released: usize,
}

/// An alias as the API shows it.
#[derive(Serialize)]
pub(super) struct AliasView<'a> {
    alias: &'a Alias,
    peer: PublicKey,
    service: &'a str,
    hostname: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
    /// False if it stands in no list, and is scraped by its path alone.
    listed: bool,
    /// True if the holder keeps its key across restarts.
    key_kept: bool,
    /// The id of the secret that the holder has proved; null if an earlier version registered it.
    secret: Option<String>,
    /// What that secret is called; null if it is none of ours any more.
    secret_name: Option<String>,
    state: &'static str,
    path: &'static str,
    link: LinkView,
    /// Null if there was none since the scraper's start.
    last_scrape: Option<ScrapeView>,
    /// The last scrape that brought no metrics.
    last_error: Option<FaultView>,
    registered_at: String,
    renewed_at: String,
    expires_at: String,
    /// 0 once it has lapsed.
    expires_in_seconds: u64,
}

#[derive(Serialize)]
struct ScrapeView {
    at: String,
    ok: bool,
    duration_seconds: f64,
    /// Of the body, as it came: often compressed.
    bytes: u64,
}

#[derive(Serialize)]
struct FaultView {
    at: String,
    /// One word: `not-connected`, `refused`, `status=401`.
    reason: String,
    /// What the word means.
    detail: String,
}

#[derive(Serialize)]
struct LinkView {
    /// `tcp`, `quic` or `ws`; null without a link.
    transport: Option<&'static str>,
    /// Address of the peer, or of the relay.
    address: Option<String>,
    rtt_seconds: Option<f64>,
    punches_succeeded: u32,
    punches_failed: u32,
    changed_at: Option<String>,
    reason: Option<String>,
}

impl From<LastScrape> for ScrapeView {
    fn from(last: LastScrape) -> Self {
        let duration_seconds = last.took().as_secs_f64();
        Self { at: rfc3339(last.began_at()), ok: last.ok, duration_seconds, bytes: last.bytes }
    }
}

impl From<(Fault, SystemTime)> for FaultView {
    fn from((fault, at): (Fault, SystemTime)) -> Self {
        Self { at: rfc3339(at), reason: fault.to_string(), detail: fault.words() }
    }
}

impl From<LinkStatus> for LinkView {
    fn from(status: LinkStatus) -> Self {
        let (changed_at, reason) = status.change.map(|change| (rfc3339(change.at), change.reason)).unzip();
        Self {
            transport: status.transport.map(LinkTransport::as_str),
            address: status.address,
            rtt_seconds: status.rtt.map(|rtt| rtt.as_secs_f64()),
            punches_succeeded: status.punches_succeeded,
            punches_failed: status.punches_failed,
            changed_at,
            reason,
        }
    }
}

impl<'a> AliasView<'a> {
    pub(super) fn new(
        lease: &'a Lease,
        registry: &Registry,
        links: &Links,
        scrapes: &LastScrapes,
        now: SystemTime,
    ) -> Self {
        let last = scrapes.of(&lease.alias);
        let link = links.status(&lease.peer);
        Self {
            alias: &lease.alias,
            peer: lease.peer,
            service: &lease.service,
            hostname: &lease.hostname,
            labels: lease.labels.iter().collect(),
            listed: lease.listed,
            key_kept: lease.kept,
            secret: lease.secret.map(|secret| secret.to_string()),
            secret_name: registry.secret_name(lease).map(|name| name.to_string()),
            state: lease.state(now).as_str(),
            path: path_label(link.path),
            link: link.into(),
            last_scrape: last.map(ScrapeView::from),
            last_error: last.and_then(|last| last.failed()).map(FaultView::from),
            registered_at: rfc3339(lease.registered_at),
            renewed_at: rfc3339(lease.renewed_at),
            expires_at: rfc3339(lease.expires_at),
            expires_in_seconds: lease.expires_at.duration_since(now).unwrap_or_default().as_secs(),
        }
    }
}

/// `GET /api/v1/aliases/{alias}`.
pub(super) async fn alias(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    Path(alias): Path<String>,
) -> Response {
    match shared.registry.lookup(&alias) {
        Ok(Some(lease)) if viewer.sees(&lease) => {
            let Shared { registry, network, last_scrapes, .. } = &*shared;
            let view = AliasView::new(&lease, registry, network.links(), last_scrapes, SystemTime::now());
            Json(view).into_response()
        }
        Ok(_) => text::line(StatusCode::NOT_FOUND, "no peer holds this alias"),
        Err(error) => text::line(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

/// `DELETE /api/v1/aliases/{alias}`: 204 once it is free, on disk. A holder that is still there takes it again when it
/// renews.
pub(super) async fn release(
    State(shared): State<Arc<Shared>>,
    Extension(local): Extension<LocalAddr>,
    Extension(viewer): Extension<Viewer>,
    Path(alias): Path<String>,
    headers: HeaderMap,
) -> Response {
    if !is_from_here(&shared, &local, &headers) {
        return text::line(StatusCode::FORBIDDEN, FOREIGN_ORIGIN);
    }
    let Ok(alias) = alias.parse::<Alias>() else {
        return text::line(StatusCode::NOT_FOUND, "no peer holds this alias");
    };
    match shared.registry.lookup(alias.as_str()) {
        Ok(Some(lease)) if !viewer.sees(&lease) => {
            return text::line(StatusCode::NOT_FOUND, format!("no peer holds alias {alias}"));
        }
        _ => {} // what is to be said of it is said below
    }
    match shared.registry.release(&alias).await {
        Ok(true) => {
            tracing::info!(%alias, "alias released over HTTP");
            StatusCode::NO_CONTENT.into_response()
        }
        Ok(false) => text::line(StatusCode::NOT_FOUND, format!("no peer holds alias {alias}")),
        Err(error) => text::line(StatusCode::SERVICE_UNAVAILABLE, Chain(&error).to_string()),
    }
}

/// `DELETE /api/v1/aliases?peer=<key>` or `?secret=<id>`: the number of aliases that it set free, as JSON. Holders that are
/// still there take theirs again when they renew.
pub(super) async fn release_all(
    State(shared): State<Arc<Shared>>,
    Extension(local): Extension<LocalAddr>,
    Extension(viewer): Extension<Viewer>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if !is_from_here(&shared, &local, &headers) {
        return text::line(StatusCode::FORBIDDEN, FOREIGN_ORIGIN);
    }
    if viewer.is_scoped() {
        return text::line(StatusCode::FORBIDDEN, "a user who sees some of the targets releases them one by one");
    }
    let holders = match uri.query().and_then(|query| query.split_once('=')) {
        Some(("peer", key)) => key.parse().ok().map(Holders::Peer),
        Some(("secret", id)) => id.parse().ok().map(Holders::Secret),
        _ => None,
    };
    let Some(holders) = holders else {
        return text::line(StatusCode::BAD_REQUEST, "expected ?peer=<public key> or ?secret=<id of a secret>");
    };
    match shared.registry.release_all(Cause::Operator, |lease| holders.hold(lease)).await {
        Ok(released) => {
            tracing::info!(?holders, released, "aliases released over HTTP");
            Json(Released { released }).into_response()
        }
        Err(error) => text::line(StatusCode::SERVICE_UNAVAILABLE, Chain(&error).to_string()),
    }
}

/// False for a request of a web page from elsewhere.
pub(super) fn is_from_here(shared: &Shared, local: &LocalAddr, headers: &HeaderMap) -> bool {
    let ours = |origin: &HeaderValue| {
        let origin: Option<Uri> = origin.to_str().ok().and_then(|origin| origin.parse().ok());
        origin.is_some_and(|origin| {
            // By TLS or not: nobody else speaks the other one on this port.
            let http = origin.scheme() == Some(&Scheme::HTTP) || origin.scheme() == Some(&Scheme::HTTPS);
            http && origin.authority().is_some_and(|host| local.is_ours(host, shared.advertise.as_ref()))
        })
    };
    headers.get_all(header::ORIGIN).iter().all(ours)
}

/// RFC 3339 in UTC, to the second. A stored time may be anything; the format ends with the year 9999.
fn rfc3339(at: SystemTime) -> String {
    let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default().min(END_OF_9999);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since_epoch).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_stored_time_can_be_displayed() {
        let century = Duration::from_secs(100 * 366 * 24 * 60 * 60);
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(1_700_000_000_999)), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339(UNIX_EPOCH - century), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(UNIX_EPOCH + century * 90), "9999-12-31T23:59:59Z");
    }
}
