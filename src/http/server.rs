//! The listening socket and its connections.
//!
//! An accept loop of our own has three limits that `axum::serve` lacks: the number of connections, the time for a
//! request's head, and the time for a client to read its answer.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use futures::TryFutureExt;
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
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;

use super::{
    slow_head::{Requests, SlowHead},
    slow_reader::SlowReader,
};
use crate::identity::HostPort;

/// How long a connection may be idle. Prometheus closes one after 5 min; a longer limit never closes one just as
/// Prometheus sends.
pub(crate) const IDLE_LIMIT: Duration = Duration::from_secs(330);
/// How long a request's head may take from its first byte on.
pub(crate) const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How long a client may take to read what is buffered for it: at most some 50 MB, the http_sd list of a full table.
pub(crate) const READER_LIMIT: Duration = Duration::from_secs(120);
/// Most bytes of a request's line and headers.
pub(crate) const MAX_HEAD: usize = 16 << 10;
/// The wait after a failed accept, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

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

#[cfg(feature = "scraper")]
impl From<SocketAddr> for LocalAddr {
    fn from(addr: SocketAddr) -> Self {
        Self(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
    }
}

/// Opens the listening socket, and returns its address: port 0 takes any free one.
pub(crate) async fn bind(addr: &HostPort) -> Result<(TcpListener, SocketAddr), BindError> {
    let bound = async {
        let listener = TcpListener::bind((addr.host.as_str(), addr.port)).await?;
        let local = listener.local_addr()?;
        Ok((listener, local))
    };
    bound.await.map_err(|source| BindError { addr: addr.clone(), source })
}

/// Answers requests until `stop` fires, then closes the connections on which none is being answered, and returns when
/// the others have got their answers. Dropping the future ends everything at once.
pub(crate) async fn accept(listener: TcpListener, max_connections: usize, router: Router, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < max_connections => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, router.clone(), stop.clone()));
            }
            // The client went away before the accept.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            // Most likely no file descriptor is free. The socket stays readable, so an accept at once would spin.
            Err(error) => {
                tracing::warn!(%error, "could not accept an HTTP connection");
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

#[cfg(feature = "scraper")]
fn with_local_addr(mut request: Request<Incoming>, local: SocketAddr) -> Request<Incoming> {
    request.extensions_mut().insert(LocalAddr::from(local));
    request
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    #[cfg(feature = "scraper")]
    let Ok(local) = stream.local_addr() else { return };
    // Without this option the last part of an answer waits for the client's delayed acknowledgement. The call fails on
    // a dead socket, which the next read reports.
    let _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let requests = Arc::new(Requests::default());
    let service = service_fn(|request: Request<Incoming>| {
        let asked = requests.ask();
        #[cfg(feature = "scraper")]
        let request = with_local_addr(request, local);
        // The body holds `asked`: hyper drops the body once the answer is written.
        router.call(request).map_ok(|answer| {
            answer.map(|body| {
                body.map_frame(move |frame| {
                    let _ = &asked;
                    frame
                })
            })
        })
    });
    let (reader, writer) = stream.into_split();
    let reader = SlowHead::new(reader, HEAD_LIMIT, Arc::clone(&requests));
    let io = TokioIo::new(tokio::io::join(reader, SlowReader::new(writer, READER_LIMIT)));
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_LIMIT)
            .max_header_size(MAX_HEAD)
            .serve_connection(io, service)
    );
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            // hyper closes idle connections, but would wait for the end of a connection's first head.
            if !requests.any() {
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
