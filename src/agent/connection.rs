//! Connections to one exporter.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream, lookup_host},
};

use super::{
    exporter::ExporterError,
    tls::Tls,
    url::{Endpoint, ExporterUrl},
};
use crate::http::{Connection, Pool, PoolLimits};

/// Idle connections to an exporter: one for each of several scrapers that pull at once. Prometheus's usual interval is
/// up to a minute, so a connection lives from one pull to the next.
const POOL: PoolLimits = PoolLimits { max_idle: 16, idle_for: Duration::from_secs(75) };

pub(super) type ExporterPool = Pool<(), ()>;

/// A stream to an exporter, over TCP, TLS or a Unix socket.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub(super) fn pool() -> ExporterPool {
    Pool::new(POOL, |(), ()| true)
}

pub(super) async fn open(url: &ExporterUrl, tls: &Tls, pool: &ExporterPool) -> Result<Connection<()>, ExporterError> {
    let failed = |source| ExporterError::Connect { url: url.to_string(), source };
    let unknown = |source| ExporterError::Resolve { url: url.to_string(), source };
    let stream: Box<dyn Duplex> = match url.endpoint() {
        Endpoint::Unix(socket) => Box::new(UnixStream::connect(socket).await.map_err(failed)?),
        Endpoint::Tcp { tls: is_tls, host, port, .. } => {
            let addresses: Vec<SocketAddr> = lookup_host((host.as_str(), *port)).await.map_err(unknown)?.collect();
            let stream = TcpStream::connect(&*addresses).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            if *is_tls {
                let stream = tls.connect(host, stream).await;
                Box::new(stream.map_err(|source| ExporterError::Tls { url: url.to_string(), source })?)
            } else {
                Box::new(stream)
            }
        }
    };
    pool.connect(stream, ()).await.map_err(|source| ExporterError::Http { url: url.to_string(), source: source.into() })
}
