//! The sockets that we listen on: each address of a name, a free port for port 0, no family that the host lacks.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
};

use libp2p::Multiaddr;
use rustix::io::Errno;

use crate::{
    identity::{HostPort, WebSocketUrl},
    network::{
        address,
        config::{NetworkConfig, NetworkRole},
        error::NetworkError,
        transport::resolve::resolve,
    },
};

/// A port that TCP has free is mostly free for UDP, too.
const PORT_TRIES: usize = 16;

/// The listen addresses. A client that knows nodes may have to punch a hole, for which it must dial from the port that it
/// listens on; one that dials its scraper at a given address opens no port.
pub(crate) fn wanted(config: &NetworkConfig) -> Vec<HostPort> {
    if config.role == NetworkRole::Client && !config.bootstrap.is_empty() {
        return ["0.0.0.0", "::"].map(|host| HostPort { host: host.to_owned(), port: 0 }).into();
    }
    config.listen.clone()
}

/// What to listen on for WebSocket links, none of it in use. libp2p's sockets share a port with each other, also across
/// processes, where half of the links would then be lost.
pub(crate) async fn websockets(given: &[HostPort]) -> Result<Vec<Multiaddr>, NetworkError> {
    let mut listeners = Vec::new();
    for one in given {
        let failed = |source: io::Error| NetworkError::ListenWebSocket { address: one.clone(), source };
        for at in addresses(one).await.map_err(failed)? {
            TcpListener::bind(at).map_err(failed)?;
            let host_port = HostPort { host: at.ip().to_string(), port: at.port() };
            listeners.push(address::websocket(&WebSocketUrl { tls: false, host_port, path: "/".to_owned() }));
        }
    }
    Ok(listeners)
}

/// What to listen on for a listen address: what it resolves to, with port 0 replaced by one that is free for both TCP and
/// UDP. Nothing if it stands for every address of a family that this host does not have.
pub(crate) async fn addresses(given: &HostPort) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = match given.ip() {
        Some(ip) => vec![SocketAddr::new(ip, given.port)],
        None => resolve(given).await?,
    };
    // The kernel's own error, before libp2p wraps it, shows whether this host has such addresses at all.
    for at in &found {
        match UdpSocket::bind((at.ip(), 0)) {
            Err(error) if lacks_ipv6(given, &error) => {
                tracing::info!(listen = %given, "this host has no IPv6");
                return Ok(Vec::new());
            }
            bound => bound?,
        };
    }
    found.into_iter().map(|at| if at.port() == 0 { free_port(at.ip()) } else { Ok(at) }).collect()
}

/// Every address of a family that the host does not have is none: that is no error.
fn lacks_ipv6(given: &HostPort, error: &io::Error) -> bool {
    let unsupported = matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable)
        || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error());
    unsupported && given.ip() == Some(Ipv6Addr::UNSPECIFIED.into())
}

pub(crate) fn free_port(ip: IpAddr) -> io::Result<SocketAddr> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_TRIES {
        let tcp = TcpListener::bind((ip, 0))?;
        let at = tcp.local_addr()?;
        match UdpSocket::bind(at) {
            Ok(_) => return Ok(at),
            Err(error) => last = error,
        }
    }
    Err(last)
}
