//! Answers pulls: HTTP/1.1 on the streams that a scraper opens.
//!
//! Only `GET /<alias>` is answered. Streams are kept alive, as the scraper pools them. A scraper receives
//! the status of a failure, the pull's id and a word of a closed set; the detail stays in the event of that id.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    compression::{self, LinkBody},
    event::{EventKind, Events, PullFailure},
    outage::{Ended, Outage},
    source::{Exposition, ExpositionBody, PullRequest, Source, SourceError},
    targets::ServedTarget,
};
use crate::{
    http::{BodyEnd, BodyObserver, LimitedBody, expected_len, serve_streams},
    identity::PublicKey,
    network::InboundStream,
    telemetry::{Chain, short_duration},
    wire::{Alias, PullReason, REASON_HEADER, scrape_timeout},
};

/// Time for a pull whose scraper states none: Prometheus's default timeout.
const DEFAULT_LIMIT: Duration = Duration::from_secs(10);
/// Longest time that a scraper can ask for, so that no pull holds its source for ever.
const MAX_LIMIT: Duration = Duration::from_secs(300);
/// How much sooner than the scraper's deadline a pull ends, at most.
const MARGIN: Duration = Duration::from_millis(750);

/// Serves streams until `stop` fires, then lets the pulls in flight end. The firewall has let none but those of our scrapers
/// through.
pub(super) async fn serve(shared: Arc<Shared>, streams: mpsc::Receiver<InboundStream>, stop: CancellationToken) {
    let open = |InboundStream { peer, stream }| {
        let shared = Arc::clone(&shared);
        (peer, stream, move |request| answer(Arc::clone(&shared), peer, request))
    };
    serve_streams(streams, stop, open).await;
}

async fn answer(shared: Arc<Shared>, scraper: PublicKey, request: Request<Incoming>) -> Response<ExpositionBody> {
    if request.method() != Method::GET {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
    }
    let path = request.uri().path();
    let Some(served) = path.strip_prefix('/').and_then(|alias| shared.targets.find(alias)) else {
        return refusal(StatusCode::NOT_FOUND, "this peer does not serve the alias");
    };
    shared.pull_watchdog.pulled(scraper);
    let began = Instant::now();
    let deadline = began + own_limit(request.headers());
    let mut pull = Pull::start(&shared, scraper, &served, began);
    let gzip = compression::accepts_gzip(request.headers());
    let query = request.uri().query().map(str::to_owned);
    let request = PullRequest::new(request.into_parts().0.headers, query, deadline);

    // One future ends the pull early, whether the source or the body is at work.
    let removed = served.removed.clone();
    let mut cut: BoxFuture<'static, PullFailure> = Box::pin(async move {
        tokio::select! {
            () = removed.cancelled() => PullFailure::Removed,
            () = time::sleep_until(deadline) => PullFailure::Source(SourceError::Deadline),
        }
    });
    let answered = tokio::select! {
        biased;
        answered = exposition(&shared, &*served.source, request, gzip) => answered,
        failure = &mut cut => Err(failure),
    };
    match answered {
        Ok((headers, body)) => {
            let expected = expected_len(&headers, &body);
            pull.is_metrics = !headers.contains_key(REASON_HEADER);
            let body = LimitedBody::new(body, shared.max_body, expected, pull).cut_by(cut);
            let mut response = Response::new(ExpositionBody::new(body));
            *response.headers_mut() = headers;
            response
        }
        Err(failure) => pull.refuse(failure),
    }
}

/// The source's exposition, compressed if that is wanted. One known to be too long fails before its first byte.
async fn exposition(
    shared: &Shared,
    source: &dyn Source,
    request: PullRequest,
    gzip: bool,
) -> Result<(HeaderMap, LinkBody), PullFailure> {
    // A panic of the source ends the pull, not the stream with other pulls to come.
    let pulled = AssertUnwindSafe(async { source.pull(request).await }).catch_unwind().await;
    let exposition = pulled.unwrap_or(Err(SourceError::Panicked)).map_err(PullFailure::Source)?;
    if expected_len(&exposition.headers, &exposition.body).is_some_and(|len| len > shared.max_body) {
        return Err(PullFailure::TooLarge { limit: shared.max_body });
    }
    Ok(shared.compression.apply(gzip, exposition).await)
}

/// The client's limit is a little shorter than the scraper's, so that the scraper gets an answer that names the pull.
fn own_limit(headers: &HeaderMap) -> Duration {
    let limit = scrape_timeout(headers).ok().flatten().unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    limit - (limit * 15 / 100).min(MARGIN)
}

fn refusal(status: StatusCode, text: &str) -> Response<ExpositionBody> {
    let body = Full::new(Bytes::from(format!("{text}\n"))).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(Exposition::TEXT));
    response
}

/// A pull under way. Its end is reported once, however it ends.
struct Pull {
    id: u64,
    events: Events,
    scraper: PublicKey,
    alias: Alias,
    outage: Arc<Outage>,
    began: Instant,
    limit: u64,
    /// False if the source says that its answer is something else, which is passed on all the same.
    is_metrics: bool,
    reported: bool,
}

impl Pull {
    fn start(shared: &Shared, scraper: PublicKey, served: &ServedTarget, began: Instant) -> Self {
        let (events, alias, outage) = (shared.events.clone(), served.target.alias.clone(), Arc::clone(&served.outage));
        let id = events.next_id();
        events.emit_as(id, EventKind::PullStarted { scraper, alias: alias.clone() });
        Self { id, events, scraper, alias, outage, began, limit: shared.max_body, is_metrics: true, reported: false }
    }

    /// Ends the pull before its answer began.
    fn refuse(mut self, failure: PullFailure) -> Response<ExpositionBody> {
        let status = match failure {
            PullFailure::Source(SourceError::Deadline) => StatusCode::GATEWAY_TIMEOUT,
            PullFailure::Removed => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_GATEWAY,
        };
        // What was removed is not served any more, which the status says.
        let reason = (status != StatusCode::NOT_FOUND).then(|| (REASON_HEADER, failure.reason().header()));
        self.report_failure(failure);
        let mut response = refusal(status, &format!("pull {} failed at its source", self.id));
        response.headers_mut().extend(reason);
        response
    }

    /// The log of a pull whose answer was sent.
    fn answered(&self) {
        let (id, alias) = (self.id, &self.alias);
        if !self.is_metrics {
            if self.outage.failed() {
                tracing::warn!(id, %alias, reason = %PullReason::NotMetrics, "the answer is passed on, but is no metrics: is the URL's path right?");
            }
        } else if let Some(Ended { failed, lasted }) = self.outage.succeeded() {
            tracing::info!(%alias, failed, lasted = short_duration(lasted), "pulls succeed again");
        }
    }

    fn report_failure(&mut self, error: PullFailure) {
        let (id, scraper, alias) = (self.id, self.scraper, self.alias.clone());
        if self.outage.failed() {
            let (reason, error) = (error.reason(), Chain(&error));
            tracing::warn!(id, %scraper, %alias, %reason, %error, "pull failed; the next line when pulls succeed again");
        }
        self.report(EventKind::PullFailed { scraper, alias, error: Arc::new(error) });
    }

    fn report(&mut self, end: EventKind) {
        self.reported = true;
        self.events.emit_as(self.id, end);
    }
}

impl BodyObserver<LinkBody> for Pull {
    type Cut = PullFailure;

    /// The limit is one of the exposition, whatever compression makes of it.
    fn counted(&self, body: &LinkBody, passed: u64) -> u64 {
        body.uncompressed(passed)
    }

    fn ended(mut self, body: &LinkBody, bytes: u64, end: BodyEnd<PullFailure>) {
        let failed = |error| PullFailure::Source(SourceError::Failed(error));
        let failure = match end {
            BodyEnd::Whole => {
                let (scraper, alias, took) = (self.scraper, self.alias.clone(), self.began.elapsed());
                let uncompressed_bytes = body.uncompressed(bytes);
                self.answered();
                return self.report(EventKind::PullSucceeded { scraper, alias, bytes, uncompressed_bytes, took });
            }
            BodyEnd::TooLong => PullFailure::TooLarge { limit: self.limit },
            BodyEnd::TooShort => failed("the exposition is shorter than its Content-Length".into()),
            BodyEnd::Failed(error) => failed(error),
            BodyEnd::Cut(failure) => failure,
            BodyEnd::Abandoned => PullFailure::Abandoned,
        };
        self.report_failure(failure);
    }
}

impl Drop for Pull {
    /// Dropped while the source was at work: the scraper has gone.
    fn drop(&mut self) {
        if !self.reported {
            self.report_failure(PullFailure::Abandoned);
        }
    }
}
