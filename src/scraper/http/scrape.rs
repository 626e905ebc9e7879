//! `GET /scrape/{alias}/metrics`: Prometheus's scrape, answered with what the peer answers.
//!
//! Status 200 with the peer's bytes, untouched and as they come, and the headers that describe them; or 404 for an alias nobody holds, 502 for a
//! peer that cannot be reached or fails, 504 for one that is too slow, 503 when the scraper itself cannot. Prometheus
//! displays only the status; the line of text in the body is for people who open the URL.
//!
//! Scrapes over the limit of [`ScrapeConfig::max_concurrent`](super::ScrapeConfig) are answered 503 at once rather than
//! kept waiting: a scrape that waits uses up its own deadline, and then looks like a slow peer. A peer that has clearly more
//! scrapes than another gives one up for it: peers that hang do not keep the others from being scraped.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{Path, Request, State, rejection::PathRejection},
    response::Response,
};
use futures::FutureExt;
use http::{HeaderValue, Method, StatusCode, Version, header, request::Parts};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::{
    headers::{asks_for_a_page, for_prometheus, time_to_pull},
    router::Shared,
    viewer::Viewer,
};
use crate::{
    http::{BodyEnd, BodyObserver, LimitedBody, PullRequest, Worth, expected_len, passed_headers, text},
    identity::PublicKey,
    registry::Lease,
    scraper::{
        last_scrapes::{Began, Fault, LastScrapes},
        metrics::ScrapeRecord,
        outcome::ScrapeOutcome,
        pull::{PullBody, PullError},
        shares::Share,
    },
    telemetry::{Chain, Limit},
    wire::{Alias, PullReason, SCRAPE_TIMEOUT_HEADER},
};

/// How much earlier than ours a peer's deadline may be, and a little for the way.
const EARLIER_AT_PEER: Duration = Duration::from_millis(300);

/// By path: `/scrape/{alias}/metrics`, the alias percent-decoded once.
pub(super) async fn by_path(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    alias: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    // Neither a text that is not UTF-8 once decoded nor "" is an alias.
    let alias = alias.map(|Path(alias)| alias).unwrap_or_default();
    scrape(&shared, &viewer, &alias, request.into_parts().0).await
}

/// Scrapes `alias` as `request` asks. Only GET: a HEAD would cost the peer a whole pull.
pub(super) async fn scrape(shared: &Shared, viewer: &Viewer, alias: &str, request: Parts) -> Response {
    if request.method != Method::GET {
        return text::only("GET");
    }
    let (mut record, began) = (shared.metrics.scrape(), Began::now());
    match pull(shared, viewer, alias, request).await {
        Ok(Pulled { alias, peer, answer, is_metrics, promised, deadline, share }) => {
            let (head, body) = answer.into_parts();
            let worth = Worth { until: deadline + shared.scrape.margin, given_up: CancellationToken::new() };
            let evicted = share.evicted().clone().cancelled_owned().boxed();
            let scrapes = shared.last_scrapes.clone();
            let observer = ScrapeObserver { alias, peer, scrapes, began, deadline, is_metrics, record, _share: share };
            let body = LimitedBody::new(body, shared.scrape.max_body, promised, observer).cut_by(evicted);
            let mut response = Response::new(Body::new(body));
            *response.headers_mut() = head.headers;
            response.extensions_mut().insert(worth);
            response
        }
        Err(failure) => {
            record.end(failure.outcome);
            if let Some(Noted { alias, peer, fault }) = &failure.noted {
                shared.last_scrapes.note(alias, peer, began, 0, Some(*fault));
            }
            tracing::debug!(status = failure.status.as_u16(), why = failure.why, "scrape failed");
            text::line(failure.status, failure.why)
        }
    }
}

/// An exposition that has begun.
struct Pulled {
    alias: Alias,
    peer: PublicKey,
    answer: Response<PullBody>,
    /// False if the peer says that its source answered something else.
    is_metrics: bool,
    promised: Option<u64>,
    deadline: Instant,
    share: Share<PublicKey, Alias>,
}

/// A scrape without an exposition.
struct Failure {
    status: StatusCode,
    outcome: ScrapeOutcome,
    noted: Option<Noted>,
    why: String,
}

/// What is noted of an alias, and of the peer that holds it.
struct Noted {
    alias: Alias,
    peer: PublicKey,
    fault: Fault,
}

async fn pull(shared: &Shared, viewer: &Viewer, alias: &str, request: Parts) -> Result<Pulled, Failure> {
    let began = Instant::now();
    let lease = match shared.registry.lookup(alias) {
        Ok(Some(lease)) if viewer.sees(&lease) => lease,
        Ok(_) => {
            let why = match alias.parse::<Alias>() {
                Ok(alias) => format!("no peer holds alias {alias}"),
                Err(error) => error.to_string(),
            };
            return Err(Failure::new(StatusCode::NOT_FOUND, ScrapeOutcome::UnknownAlias, why));
        }
        Err(error) => return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, ScrapeOutcome::NotReady, error)),
    };
    let limit = time_to_pull(&request.headers, &shared.scrape).map_err(|value| {
        let why = format!("{SCRAPE_TIMEOUT_HEADER} is {value:?}, not a positive decimal number of seconds");
        Failure::new(StatusCode::BAD_REQUEST, ScrapeOutcome::BadRequest, why)
    })?;
    let overloaded = || {
        let why = format!("more than {} scrapes at once", shared.scrape.max_concurrent);
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, ScrapeOutcome::Overloaded, why).of(&lease)
    };
    let share = shared.scrapes.ask(lease.peer, lease.alias.clone());
    if share.as_ref().map_or(true, Share::has_displaced) {
        shared.network.refusals().count(Limit::Scrapes, format_args!("alias {}", lease.alias));
    }
    let share = share.map_err(|_| overloaded())?;

    let page = asks_for_a_page(&request.headers);
    let (alias, peer, deadline) = (&lease.alias, lease.peer, began + limit);
    let headers = passed_headers(request.headers, &shared.scrape.request_headers);
    let query = request.uri.query().map(str::to_owned);
    let pulling = shared.pull.pull(alias, peer, PullRequest::new(headers, query, deadline));
    // A pull keeps its own deadline; this one holds even if the pull does not.
    let late = |_| PullError::Deadline { alias: alias.clone(), peer, limit };
    let pulled = share.evicted().run_until_cancelled(time::timeout_at(deadline, pulling)).await;
    let mut answer = pulled.ok_or_else(overloaded)?.map_err(late).flatten()?;

    let promised = expected_len(answer.headers(), answer.body());
    if promised.is_some_and(|promised| promised > shared.scrape.max_body) {
        let why =
            format!("the exposition of alias {alias} is larger than the limit of {} bytes", shared.scrape.max_body);
        return Err(Failure::new(StatusCode::BAD_GATEWAY, ScrapeOutcome::TooLarge, why).of(&lease));
    }
    if promised.is_none() && request.version < Version::HTTP_11 {
        // In HTTP/1.0 such a body ends with the connection, and a cut one would pass for a whole one.
        let why = "an exposition of unknown length needs HTTP/1.1";
        return Err(Failure::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, ScrapeOutcome::BadRequest, why));
    }
    let is_metrics = PullReason::of(answer.headers()).is_none();
    *answer.headers_mut() = for_prometheus(answer.headers());
    if page {
        answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    }
    Ok(Pulled { alias: alias.clone(), peer, answer, is_metrics, promised, deadline, share })
}

/// Counts a scrape until its exposition ends. An exposition that is cut closes Prometheus's connection, which Prometheus
/// sees as `unexpected EOF`.
struct ScrapeObserver {
    alias: Alias,
    peer: PublicKey,
    scrapes: LastScrapes,
    began: Began,
    deadline: Instant,
    is_metrics: bool,
    record: ScrapeRecord,
    _share: Share<PublicKey, Alias>,
}

impl BodyObserver<PullBody> for ScrapeObserver {
    type Cut = ();

    fn ended(mut self, _: &PullBody, passed: u64, end: BodyEnd<()>) {
        let (outcome, error) = match end {
            BodyEnd::Whole => (ScrapeOutcome::Ok, None),
            BodyEnd::Abandoned => (ScrapeOutcome::ClientGone, None),
            BodyEnd::TooLong => (ScrapeOutcome::TooLarge, Some("the exposition is larger than the limit".into())),
            BodyEnd::TooShort => (ScrapeOutcome::Cut, Some("the exposition is shorter than its Content-Length".into())),
            BodyEnd::Cut(()) => (ScrapeOutcome::Overloaded, Some("its place went to another peer's scrape".into())),
            BodyEnd::Failed(error) => (ScrapeOutcome::Cut, Some(error)),
        };
        if let Some(error) = error {
            tracing::debug!(alias = %self.alias, passed, error = %Chain(&*error), "scrape cut");
        }
        self.record.bytes(passed);
        self.record.end(outcome);
        let fault = match outcome {
            ScrapeOutcome::ClientGone => return, // which says nothing about the alias
            ScrapeOutcome::Ok => (!self.is_metrics).then_some(Fault::Source(PullReason::NotMetrics)),
            // The peer, whose deadline is a little earlier, breaks off as a link does that is lost.
            ScrapeOutcome::Cut if Instant::now() + EARLIER_AT_PEER >= self.deadline => {
                Some(Fault::Here(ScrapeOutcome::Deadline))
            }
            outcome => Some(Fault::Here(outcome)),
        };
        self.scrapes.note(&self.alias, &self.peer, self.began, passed, fault);
    }
}

impl Failure {
    fn new(status: StatusCode, outcome: ScrapeOutcome, why: impl ToString) -> Self {
        Self { status, outcome, noted: None, why: why.to_string() }
    }

    /// A failure that is noted of the alias.
    fn of(self, lease: &Lease) -> Self {
        let noted = Noted { alias: lease.alias.clone(), peer: lease.peer, fault: Fault::Here(self.outcome) };
        Self { noted: Some(noted), ..self }
    }
}

impl From<PullError> for Failure {
    fn from(error: PullError) -> Self {
        let (status, outcome) = match &error {
            PullError::NotConnected { .. } => (StatusCode::BAD_GATEWAY, ScrapeOutcome::NotConnected),
            PullError::Broken { .. } => (StatusCode::BAD_GATEWAY, ScrapeOutcome::Broken),
            // The exporter behind an agent was too slow, which makes this scrape too slow as well.
            PullError::Refused { status: StatusCode::GATEWAY_TIMEOUT, .. } => {
                (StatusCode::GATEWAY_TIMEOUT, ScrapeOutcome::Deadline)
            }
            PullError::Refused { .. } => (StatusCode::BAD_GATEWAY, ScrapeOutcome::Refused),
            PullError::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, ScrapeOutcome::Overloaded),
            PullError::Deadline { .. } => (StatusCode::GATEWAY_TIMEOUT, ScrapeOutcome::Deadline),
        };
        let fault = match &error {
            PullError::Refused { reason: Some(reason), .. } => Fault::Source(*reason),
            _ => Fault::Here(outcome),
        };
        let why = Chain(&error).to_string();
        let (alias, peer) = error.into_asked();
        Self { status, outcome, noted: Some(Noted { alias, peer, fault }), why }
    }
}
