//! The connections of a listening socket.
//!
//! An accept loop of our own has three limits that `axum::serve` lacks: the number of connections (`admission`), the time
//! for a request's head (`slow_head`), and the time for a client to read its answer (`slow_reader`). A newcomer waits for no
//! longer than those before it have to ask something, so a flood of connections that ask nothing keeps nobody out.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, response::Response};
use http::{Extensions, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
#[cfg(feature = "scraper")]
use tokio::net::UnixStream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "scraper")]
use super::gate::Gate;
use super::{
    admission::{Admission, HttpLimits, PROBE_PLACES, Place, WAITING},
    listener::{Accepted, Listener},
    requests::{Requests, Worth},
    slow_head::SlowHead,
    slow_reader::SlowReader,
    text,
};
use crate::telemetry::Refusals;

/// How long a connection may be idle between two requests. Prometheus closes one after 5 min; a longer limit never closes one just as
/// Prometheus sends.
pub(crate) const IDLE_LIMIT: Duration = Duration::from_secs(330);
/// How long a request's head may take from its first byte on; the first one of a connection, from the accept on.
pub(crate) const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How long a client may take to read what is buffered for it: at most a whole http_sd list.
pub(crate) const READER_LIMIT: Duration = Duration::from_secs(120);
/// Most bytes of a request's line and headers.
pub(crate) const MAX_HEAD: usize = 16 << 10;
/// The wait after a failed accept, for a connection of our own to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Evicted connections that may not have ended yet.
const LEAVING: usize = 64;
/// Where the paths of probes begin.
const PROBES: &str = "/-/";

/// Answers requests until `stop` fires, then closes the connections on which none is being answered, and returns when
/// the others have got their answers. Dropping the future ends everything at once.
pub(crate) async fn accept(
    listener: Listener,
    limits: HttpLimits,
    refusals: Arc<Refusals>,
    router: Router,
    stop: CancellationToken,
) {
    #[cfg(feature = "scraper")]
    let gate = listener.gate;
    let (socket, mut spare) = (listener.socket, listener.spare);
    let room = limits.connections.saturating_add(PROBE_PLACES + WAITING + LEAVING);
    let admission = Admission::new(limits, refusals);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {
                spare.refill();
                continue;
            }
            accepted = socket.accept(), if connections.len() < room => accepted,
        };
        match accepted {
            Ok(accepted) => {
                let (admission, router, stop) = (Arc::clone(&admission), router.clone(), stop.clone());
                #[cfg(feature = "scraper")]
                let gate = gate.clone();
                connections.spawn(async move {
                    let admitted = stop.run_until_cancelled(admission.admit(accepted.from())).await;
                    let (Some(place), Some(ends)) = (admitted.flatten(), accepted.ends()) else { return };
                    let serving = Serving {
                        #[cfg(feature = "scraper")]
                        gate,
                        ends,
                        place,
                        router,
                        stop,
                    };
                    match accepted {
                        Accepted::Tcp(stream, _) => {
                            // Without this option the last part of an answer waits for the client's delayed
                            // acknowledgement. The call fails on a dead socket, which the next read reports.
                            let _ = stream.set_nodelay(true);
                            serving.serve(stream, TcpStream::into_split).await;
                        }
                        #[cfg(feature = "scraper")]
                        Accepted::Unix(stream) => serving.serve(stream, UnixStream::into_split).await,
                    }
                });
            }
            // The client went away before the accept.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            // Most likely no file descriptor is free: the connection idle longest gives its own to the newcomer.
            Err(_) if admission.evict() => one_ends(&mut connections, &stop).await,
            Err(_) if spare.give() => {}
            // The socket stays readable, so an accept at once would spin.
            Err(error) => {
                tracing::warn!(%error, "could not accept an HTTP connection");
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop((socket, spare));
    while connections.join_next().await.is_some() {}
}

/// Waits for a connection to end; not for long, as the one that was evicted is answered first if it was asked something.
async fn one_ends(connections: &mut JoinSet<()>, stop: &CancellationToken) {
    let _ = time::timeout(ACCEPT_PAUSE, stop.run_until_cancelled(connections.join_next())).await;
}

/// What the answers on one connection take.
struct Serving {
    #[cfg(feature = "scraper")]
    gate: Option<Arc<Gate>>,
    /// Both ends, as requests have them.
    ends: Extensions,
    place: Arc<Place>,
    router: Router,
    stop: CancellationToken,
}

impl Serving {
    /// Answers, over TLS if the gate speaks it.
    async fn serve<S, R, W>(self, stream: S, split: fn(S) -> (R, W))
    where
        S: AsyncRead + AsyncWrite + Unpin,
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        #[cfg(feature = "scraper")]
        if let Some(gate) = &self.gate
            && let Some(tls) = gate.tls().await
        {
            if let Some(stream) = self.handshake(stream, tls).await {
                self.answer(tokio::io::split(stream)).await;
            }
            return;
        }
        self.answer(split(stream)).await;
    }

    /// Begins TLS within the time for a request's head. None if the client does not, or the place is somebody else's.
    #[cfg(feature = "scraper")]
    async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        tls: Arc<rustls::ServerConfig>,
    ) -> Option<tokio_rustls::server::TlsStream<S>> {
        let begun = time::timeout(HEAD_LIMIT, tokio_rustls::TlsAcceptor::from(tls).accept(stream));
        let begun = tokio::select! {
            begun = begun => begun.ok()?,
            () = self.place.evicted().cancelled() => return None,
            () = self.stop.cancelled() => return None,
        };
        begun.inspect_err(|error| tracing::debug!(%error, "no TLS with an HTTP client")).ok()
    }

    async fn answer(self, (reader, writer): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin)) {
        let Self { ends, place, router, stop, .. } = self;
        let router = TowerToHyperService::new(router);
        let only_probes = place.only_probes();
        let requests = Requests::new(Arc::clone(&place));
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().extend(ends.clone());
            answer(request, router.clone(), Arc::clone(&requests), only_probes)
        });
        let reader = SlowHead::new(reader, HEAD_LIMIT, Arc::clone(&requests));
        let writer = SlowReader::new(writer, READER_LIMIT, Arc::clone(&requests));
        let io = TokioIo::new(tokio::io::join(reader, writer));
        let mut serving = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE_LIMIT)
                .keep_alive(!only_probes)
                .max_header_size(MAX_HEAD)
                .serve_connection(io, service)
        );
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = place.evicted().cancelled() => {
                // A request that came at the same moment is answered.
                if place.is_cut() || !requests.is_answering() {
                    return;
                }
                serving.as_mut().graceful_shutdown();
                serving.await
            }
            () = stop.cancelled() => {
                // hyper closes idle connections, but would wait for the end of a connection's first head.
                if requests.asked() == 0 {
                    return;
                }
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            // Cut bodies end here too, on purpose; the code that cut them logged why.
            tracing::trace!(%error, "HTTP connection broke off");
        }
    }
}

/// Answers one request. Every answer is one for now and here: caches keep none, and a browser takes none for anything but
/// what its `Content-Type` says.
async fn answer(
    request: Request<Incoming>,
    router: TowerToHyperService<Router>,
    requests: Arc<Requests>,
    only_probes: bool,
) -> Result<Response, Infallible> {
    let asked = requests.ask();
    let mut answer = if only_probes && !request.uri().path().starts_with(PROBES) {
        text::line(StatusCode::SERVICE_UNAVAILABLE, "too many HTTP connections are being answered at once")
    } else {
        router.call(request).await?
    };
    requests.set_worth(answer.extensions_mut().remove::<Worth>());
    answer.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // The body holds `asked`: hyper drops the body once all of it is passed on.
    Ok(answer.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _ = &asked;
            frame
        }))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before: the listener waited for the answer of the connection that it had evicted, and did not stop either.
    #[tokio::test(start_paused = true)]
    async fn the_wait_for_a_free_file_is_short_and_ends_at_stop() {
        let (mut connections, stop, began) = (JoinSet::new(), CancellationToken::new(), time::Instant::now());
        connections.spawn(std::future::pending());
        one_ends(&mut connections, &stop).await;
        assert_eq!((began.elapsed(), connections.len()), (ACCEPT_PAUSE, 1));
        stop.cancel();
        one_ends(&mut connections, &stop).await;
        assert_eq!(began.elapsed(), ACCEPT_PAUSE, "no wait");
        connections.spawn(std::future::ready(()));
        one_ends(&mut connections, &CancellationToken::new()).await;
        assert_eq!((began.elapsed(), connections.len()), (ACCEPT_PAUSE, 1), "room is used at once");
    }
}
