//! The sockets that we listen on: each address of a name, a free port for port 0, no family that the host lacks.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
};

use libp2p::Multiaddr;

use crate::{
    identity::{HostPort, WebSocketUrl},
    network::{
        config::{NetworkConfig, NetworkRole},
        error::NetworkError,
        links::dial,
        peer_id,
    },
};

/// `std` has no name for it.
const EAFNOSUPPORT: i32 = 97;
const PORT_TRIES: usize = 16;

/// Where to listen. A client that knows nodes may have to punch a hole, for which it must dial from where it listens;
/// one that dials its scraper at a given place opens no port.
pub(crate) fn places(config: &NetworkConfig) -> Vec<HostPort> {
    if config.role == NetworkRole::Client && !config.bootstrap.is_empty() {
        return ["0.0.0.0", "::"].map(|host| HostPort { host: host.to_owned(), port: 0 }).into();
    }
    config.listen.clone()
}

/// Where to listen for WebSocket links, none of it in use. libp2p's sockets share a port with each other, also across
/// processes, where half of the links would then be lost.
pub(crate) async fn websocket_listeners(places: &[HostPort]) -> Result<Vec<Multiaddr>, NetworkError> {
    let mut listeners = Vec::new();
    for place in places {
        let failed = |source: io::Error| NetworkError::ListenWebSocket { address: place.clone(), source };
        for at in listen_addresses(place).await.map_err(failed)? {
            TcpListener::bind(at).map_err(failed)?;
            let at = HostPort { host: at.ip().to_string(), port: at.port() };
            listeners.push(peer_id::websocket(&WebSocketUrl { tls: false, host_port: at, path: "/".to_owned() }));
        }
    }
    Ok(listeners)
}

/// Where to listen for a place: its addresses, with port 0 replaced by one that is free for both TCP and UDP. None if
/// it is every address of a family that this host does not have.
pub(crate) async fn listen_addresses(place: &HostPort) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = match place.ip() {
        Some(ip) => vec![SocketAddr::new(ip, place.port)],
        None => dial::resolve(place).await?,
    };
    // The kernel's own word, before libp2p wraps it: whether this host has such addresses at all.
    for at in &found {
        match UdpSocket::bind((at.ip(), 0)) {
            Err(error) if lacks_ipv6(place, &error) => {
                tracing::info!(%place, "this host has no IPv6");
                return Ok(Vec::new());
            }
            bound => bound?,
        };
    }
    found.into_iter().map(|at| if at.port() == 0 { free_port(at.ip()) } else { Ok(at) }).collect()
}

/// Every address of a family that the host does not have is none: that is no error.
fn lacks_ipv6(place: &HostPort, error: &io::Error) -> bool {
    let unsupported = matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable)
        || error.raw_os_error() == Some(EAFNOSUPPORT);
    unsupported && place.ip() == Some(Ipv6Addr::UNSPECIFIED.into())
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
