//! Names to addresses.

use std::{io, net::SocketAddr};

use libp2p::Multiaddr;

use crate::{
    identity::{DialAddress, HostPort},
    network::{address, error::NetworkError},
};

/// A name may mean several addresses; a few are tried.
const MAX_RESOLVED: usize = 8;

/// The addresses of a `host:port`.
///
/// # Errors
/// The resolver's.
pub(crate) async fn resolve(name: &HostPort) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((name.host.as_str(), name.port)).await?;
    Ok(found.take(MAX_RESOLVED).collect())
}

/// The multiaddresses that a dial address stands for. The name of a WebSocket is looked up when it is dialled.
pub(crate) async fn multiaddresses(of: &DialAddress) -> io::Result<Vec<Multiaddr>> {
    match of {
        DialAddress::HostPort(at) => {
            Ok(resolve(at).await?.into_iter().flat_map(|at| [address::tcp(at), address::quic(at)]).collect())
        }
        DialAddress::WebSocket(url) => Ok(vec![address::websocket(url)]),
    }
}

/// The multiaddresses of the operator's external addresses.
///
/// # Errors
/// [`NetworkError::External`] names the first that has none.
pub(crate) async fn external(given: &[DialAddress]) -> Result<Vec<Multiaddr>, NetworkError> {
    let mut addresses = Vec::new();
    for one in given {
        let mut found = multiaddresses(one).await.map_err(|_| NetworkError::External(one.clone()))?;
        // Name servers give the same addresses in turn.
        found.sort();
        addresses.extend(found);
    }
    Ok(addresses)
}
