//! The listening socket and its connections.
//!
//! An accept loop of our own has three limits that `axum::serve` lacks: the number of connections (`admission`), the time
//! for a request's head (`slow_head`), and the time for a client to read its answer (`slow_reader`). A newcomer waits for no
//! longer than those before it have to ask something, so a flood of connections that ask nothing keeps nobody out.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

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
use tokio::net::TcpStream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{self, TcpListener, TcpSocket},
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "scraper")]
use super::gate::Gate;
use super::{
    admission::{Admission, HttpLimits, PROBE_PLACES, Place, WAITING},
    requests::{Requests, Worth},
    slow_head::SlowHead,
    slow_reader::SlowReader,
    spare_files::SpareFiles,
    text,
};
use crate::{identity::HostPort, telemetry::Refusals};

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
/// Bytes that the kernel takes for a client that does not read; it would take several MiB by itself, which a peer would send
/// in vain.
const SEND_BUFFER: u32 = 256 << 10;
/// Connections that may wait for the accept.
const BACKLOG: u32 = 1024;
/// Evicted connections that may not have ended yet.
const LEAVING: usize = 64;
/// Where the paths of probes begin.
const PROBES: &str = "/-/";

/// The address to listen on for HTTP is taken, or is no address of this host.
#[derive(Debug, thiserror::Error)]
#[error("could not listen for HTTP on {addr}")]
#[non_exhaustive]
pub struct BindError {
    /// The address asked for.
    pub addr: HostPort,
    /// The error of the system.
    pub source: io::Error,
}

/// The scraper's end of the connection that a request came by; every request has it as an extension.
#[cfg(feature = "scraper")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalAddr(pub(crate) SocketAddr);

/// The address that a request comes from; every request has it as an extension.
#[cfg(feature = "scraper")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddr(pub(crate) std::net::IpAddr);

#[cfg(feature = "scraper")]
impl From<SocketAddr> for LocalAddr {
    fn from(addr: SocketAddr) -> Self {
        Self(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
    }
}

/// A listening socket, and what its accept loop has in reserve.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    spare: SpareFiles,
    /// Whose TLS is spoken, if any.
    #[cfg(feature = "scraper")]
    gate: Option<Arc<Gate>>,
}

#[cfg(feature = "scraper")]
impl Listener {
    /// Speaks the gate's TLS.
    pub(crate) fn behind(self, gate: Arc<Gate>) -> Self {
        Self { gate: Some(gate), ..self }
    }
}

impl Listener {
    /// One that listens on this socket, and its address.
    #[cfg(feature = "scraper")]
    pub(crate) fn passed(socket: std::net::TcpListener) -> Result<(Self, SocketAddr), BindError> {
        let addr = HostPort::new("a passed socket", 0);
        let sized = socket2::SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER as usize);
        sized.and_then(|()| Self::of(socket)).map_err(|source| BindError { addr, source })
    }

    fn of(socket: std::net::TcpListener) -> io::Result<(Self, SocketAddr)> {
        let (spare, local) = (SpareFiles::of(&socket)?, socket.local_addr()?);
        socket.set_nonblocking(true)?;
        let listener = Self {
            socket: TcpListener::from_std(socket)?,
            spare,
            #[cfg(feature = "scraper")]
            gate: None,
        };
        Ok((listener, local))
    }
}

/// Opens the listening socket, and returns its address: port 0 takes any free one.
pub(crate) async fn bind(addr: &HostPort) -> Result<(Listener, SocketAddr), BindError> {
    let bound = async {
        let socket = listen((addr.host.as_str(), addr.port)).await?.into_std()?;
        Listener::of(socket)
    };
    bound.await.map_err(|source| BindError { addr: addr.clone(), source })
}

/// Listens on the first of the addresses that can be listened on. Connections inherit the size of the send buffer.
async fn listen(addr: (&str, u16)) -> io::Result<TcpListener> {
    let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for addr in net::lookup_host(addr).await? {
        let listening = || {
            let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            socket.set_send_buffer_size(SEND_BUFFER)?;
            socket.bind(addr)?;
            socket.listen(BACKLOG)
        };
        match listening() {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

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
            Ok((stream, from)) => {
                let (admission, router, stop) = (Arc::clone(&admission), router.clone(), stop.clone());
                #[cfg(feature = "scraper")]
                let gate = gate.clone();
                connections.spawn(async move {
                    let admitted = stop.run_until_cancelled(admission.admit(from.ip())).await;
                    let Some(place) = admitted.flatten() else { return };
                    // Without this option the last part of an answer waits for the client's delayed acknowledgement. The
                    // call fails on a dead socket, which the next read reports.
                    let _ = stream.set_nodelay(true);
                    let Ok(local) = stream.local_addr() else { return };
                    let ends = ends(local, from);
                    #[cfg(feature = "scraper")]
                    if let Some(gate) = gate
                        && let Some(tls) = gate.tls().await
                    {
                        if let Some(stream) = handshake(stream, tls, &place, &stop).await {
                            connection(tokio::io::split(stream), ends, place, router, stop).await;
                        }
                        return;
                    }
                    connection(stream.into_split(), ends, place, router, stop).await;
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

/// The two ends of a connection, as its requests have them.
#[cfg(feature = "scraper")]
fn ends(local: SocketAddr, from: SocketAddr) -> Extensions {
    let mut ends = Extensions::new();
    ends.insert(LocalAddr::from(local));
    ends.insert(ClientAddr(from.ip()));
    ends
}

/// A node asks for neither.
#[cfg(not(feature = "scraper"))]
fn ends(_: SocketAddr, _: SocketAddr) -> Extensions {
    Extensions::new()
}

/// Begins TLS within the time for a request's head. None if the client does not, or the place is somebody else's.
#[cfg(feature = "scraper")]
async fn handshake(
    stream: TcpStream,
    tls: Arc<rustls::ServerConfig>,
    place: &Place,
    stop: &CancellationToken,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    let begun = time::timeout(HEAD_LIMIT, tokio_rustls::TlsAcceptor::from(tls).accept(stream));
    let begun = tokio::select! {
        begun = begun => begun.ok()?,
        () = place.evicted().cancelled() => return None,
        () = stop.cancelled() => return None,
    };
    begun.inspect_err(|error| tracing::debug!(%error, "no TLS with an HTTP client")).ok()
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

async fn connection(
    (reader, writer): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    ends: Extensions,
    place: Arc<Place>,
    router: Router,
    stop: CancellationToken,
) {
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
