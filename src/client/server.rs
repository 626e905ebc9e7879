//! Answers pulls: HTTP/1.1 on the streams that a scraper opens.
//!
//! `GET /<alias>` and nothing else. Streams are kept alive, as the scraper pools them. What a scraper is told of a
//! failure is a status and the pull's id; the detail stays in the event of that id.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures::future::{BoxFuture, FutureExt};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    compression::{self, LinkBody},
    event::{EventKind, Events, PullFailure},
    source::{BoxError, Exposition, ExpositionBody, PullRequest, Source, SourceError},
};
use crate::{
    identity::PublicKey,
    network::InboundStream,
    wire::{Alias, scrape_timeout},
};

/// Serves streams until `stop` fires, then lets the pulls in flight end.
pub(super) async fn serve(shared: Arc<Shared>, mut streams: mpsc::Receiver<InboundStream>, stop: CancellationToken) {
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = serving.join_next() => {}
            // libp2p bounds the streams of a connection; the firewall has let none but our scrapers through.
            stream = streams.recv() => match stream {
                Some(stream) => { serving.spawn(serve_stream(Arc::clone(&shared), stream, stop.clone())); }
                None => break,
            },
        }
    }
    drop(streams);
    while serving.join_next().await.is_some() {}
}

async fn serve_stream(shared: Arc<Shared>, inbound: InboundStream, stop: CancellationToken) {
    let scraper = inbound.peer;
    let service = service_fn(move |request| answer(Arc::clone(&shared), scraper, request));
    let connection = http1::Builder::new()
        .auto_date_header(false) // the exporter's own headers, and no others
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(inbound.stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%scraper, %error, "a pull stream ended");
    }
}

async fn answer(
    shared: Arc<Shared>,
    scraper: PublicKey,
    request: Request<Incoming>,
) -> Result<Response<ExpositionBody>, Infallible> {
    if request.method() != Method::GET {
        return Ok(refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here"));
    }
    let path = request.uri().path();
    let Some(served) = path.strip_prefix('/').and_then(|alias| shared.targets.find(alias)) else {
        return Ok(refusal(StatusCode::NOT_FOUND, "this peer does not serve the alias"));
    };
    shared.pull_watchdog.pulled(scraper);
    let began = Instant::now();
    let deadline = began + own_limit(request.headers());
    let mut pull = Pull::start(shared.events.clone(), scraper, served.target.alias.clone(), began);
    let query = request.uri().query().map(str::to_owned);
    let gzip = compression::accepts_gzip(request.headers());
    let request = PullRequest { headers: request.into_parts().0.headers, query, deadline };
    let mut cut: BoxFuture<'static, PullFailure> = {
        let removed = served.removed.clone();
        Box::pin(async move {
            tokio::select! {
                () = removed.cancelled() => PullFailure::Removed,
                () = time::sleep_until(deadline) => PullFailure::Source(SourceError::Deadline),
            }
        })
    };
    let answering = async {
        let exposition = asked(&*served.source, request).await.map_err(PullFailure::Source)?;
        let promised = compression::expected_len(&exposition.headers, &exposition.body);
        if promised.is_some_and(|promised| promised > shared.max_body) {
            return Err(PullFailure::TooLarge { limit: shared.max_body });
        }
        Ok(shared.compression.apply(gzip, exposition).await)
    };
    let answered = tokio::select! {
        biased;
        answered = answering => answered,
        failure = &mut cut => Err(failure),
    };
    Ok(match answered {
        Ok((headers, body)) => {
            pull.limit = shared.max_body;
            pull.expected = compression::expected_len(&headers, &body);
            let mut response = Response::new(ExpositionBody::new(ServedBody { body, cut, pull }));
            *response.headers_mut() = headers;
            response
        }
        Err(error) => {
            let status = match error {
                PullFailure::Source(SourceError::Deadline) => StatusCode::GATEWAY_TIMEOUT,
                PullFailure::Removed => StatusCode::NOT_FOUND,
                _ => StatusCode::BAD_GATEWAY,
            };
            let text = format!("pull {} failed at its source", pull.id);
            pull.fail(error);
            refusal(status, &text)
        }
    })
}

/// A source's panic is its own affair: the stream lives on.
async fn asked(source: &dyn Source, request: PullRequest) -> Result<Exposition, SourceError> {
    let pulled = AssertUnwindSafe(async { source.pull(request).await }).catch_unwind();
    pulled.await.unwrap_or(Err(SourceError::Panicked))
}

/// A little less than the scraper's own deadline, so that our answer, which names the pull, is the one that counts.
fn own_limit(headers: &HeaderMap) -> Duration {
    let limit = scrape_timeout(headers).ok().flatten().unwrap_or(DEFAULT_LIMIT).min(MOST_LIMIT);
    limit - (limit * 15 / 100).min(MARGIN)
}

fn refusal(status: StatusCode, text: &str) -> Response<ExpositionBody> {
    let body = Full::new(Bytes::from(format!("{text}\n"))).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(Exposition::TEXT));
    response
}

/// A pull under way; tells its end exactly once, however it ends.
struct Pull {
    id: u64,
    events: Events,
    scraper: PublicKey,
    alias: Alias,
    began: Instant,
    bytes: u64,
    uncompressed: u64,
    limit: u64,
    expected: Option<u64>,
    told: bool,
}

impl Pull {
    fn start(events: Events, scraper: PublicKey, alias: Alias, began: Instant) -> Self {
        let id = events.next_id();
        events.emit_as(id, EventKind::PullStarted { scraper, alias: alias.clone() });
        Self { id, events, scraper, alias, began, bytes: 0, uncompressed: 0, limit: 0, expected: None, told: false }
    }

    fn fail(&mut self, error: PullFailure) {
        if !std::mem::replace(&mut self.told, true) {
            let kind =
                EventKind::PullFailed { scraper: self.scraper, alias: self.alias.clone(), error: Arc::new(error) };
            self.events.emit_as(self.id, kind);
        }
    }

    fn succeed(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            let (scraper, alias) = (self.scraper, self.alias.clone());
            let kind = EventKind::PullSucceeded {
                scraper,
                alias,
                bytes: self.bytes,
                uncompressed_bytes: self.uncompressed,
                took: self.began.elapsed(),
            };
            self.events.emit_as(self.id, kind);
        }
    }
}

/// Dropped while the source or the body is still at work: the scraper has gone.
impl Drop for Pull {
    fn drop(&mut self) {
        // hyper does not ask for the end of a body whose length it knows.
        if self.expected == Some(self.bytes) {
            self.succeed();
        } else {
            self.fail(PullFailure::Abandoned);
        }
    }
}

/// The body, counted and bounded in length and time. It ends with an error rather than early.
struct ServedBody {
    body: LinkBody,
    /// Resolves when it must end early, by the deadline or because its target was removed.
    cut: BoxFuture<'static, PullFailure>,
    pull: Pull,
}

impl Body for ServedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.body).poll_frame(cx);
        // Trailers belong to one connection; and hyper, given some, would never ask for the end that follows them.
        while matches!(&polled, Poll::Ready(Some(Ok(frame))) if frame.is_trailers()) {
            polled = Pin::new(&mut this.body).poll_frame(cx);
        }
        let failure = match polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.pull.bytes += frame.data_ref().map_or(0, |data| data.remaining() as u64);
                this.pull.uncompressed = this.body.uncompressed(this.pull.bytes);
                if this.pull.uncompressed <= this.pull.limit {
                    return Poll::Ready(Some(Ok(frame)));
                }
                PullFailure::TooLarge { limit: this.pull.limit }
            }
            Poll::Ready(Some(Err(error))) => PullFailure::Source(SourceError::Failed(error)),
            Poll::Ready(None) => {
                this.pull.succeed();
                return Poll::Ready(None);
            }
            Poll::Pending => ready!(this.cut.as_mut().poll(cx)),
        };
        let told = failure.to_string();
        this.pull.fail(failure);
        Poll::Ready(Some(Err(told.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

const DEFAULT_LIMIT: Duration = Duration::from_secs(10);
const MOST_LIMIT: Duration = Duration::from_secs(300);
const MARGIN: Duration = Duration::from_millis(750);
const MAX_BUFFER: usize = 64 * 1024;
