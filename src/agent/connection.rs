//! Connections to one exporter: opened when they are needed, kept for the next pull.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::Instant,
};

use super::{
    exporter::ExporterError,
    tls::Tls,
    url::{Endpoint, ExporterUrl},
};

pub(super) type Sender = SendRequest<Empty<Bytes>>;

/// A stream to an exporter, over whatever.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Opens a connection.
pub(super) async fn open(url: &ExporterUrl, tls: &Tls) -> Result<Sender, ExporterError> {
    let failed = |source| ExporterError::Connect { url: url.to_string(), source };
    let stream: Box<dyn Duplex> = match url.endpoint() {
        Endpoint::Unix(socket) => Box::new(UnixStream::connect(socket).await.map_err(failed)?),
        Endpoint::Tcp { tls: is_tls, host, port, .. } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            if *is_tls {
                let stream = tls.connect(host, stream).await;
                Box::new(stream.map_err(|source| ExporterError::Tls { url: url.to_string(), source })?)
            } else {
                Box::new(stream)
            }
        }
    };
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| ExporterError::Http { url: url.to_string(), source })?;
    tokio::spawn(async {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a connection to an exporter ended");
        }
    });
    Ok(sender)
}

/// Connections that wait for the next pull. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<(Sender, Instant)>>>);

impl Pool {
    pub(super) fn take(&self) -> Option<Sender> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < IDLE_FOR);
        idle.pop().map(|(sender, _)| sender)
    }

    pub(super) fn put_back(&self, sender: Sender) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE && !sender.is_closed() {
            idle.push((sender, Instant::now()));
        }
    }
}

const IDLE_FOR: Duration = Duration::from_secs(75);
const MAX_IDLE: usize = 16;
/// A buffer is there as long as its connection. It also bounds the head of an answer.
const MAX_BUFFER: usize = 64 * 1024;
