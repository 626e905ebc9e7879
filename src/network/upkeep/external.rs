//! The places that the operator says we are at: names among them may come to mean other addresses.

use std::time::Duration;

use libp2p::Multiaddr;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{
    identity::DialAddress,
    network::{error::NetworkError, handle::Network, links::dial, swarm::driver::Command},
};

/// The addresses of all of them.
///
/// # Errors
/// [`NetworkError::External`] names the first that has none.
pub(crate) async fn resolve(places: &[DialAddress]) -> Result<Vec<Multiaddr>, NetworkError> {
    let mut addresses = Vec::new();
    for place in places {
        let mut found = dial::addresses(place).await.map_err(|_| NetworkError::External(place.clone()))?;
        // Name servers give the same addresses in turn.
        found.sort();
        addresses.extend(found);
    }
    Ok(addresses)
}

/// Looks the names up again and again, until `stop` fires. A relay tells those whom it makes reachable where it is.
pub(crate) async fn keep_external(network: Network, stop: CancellationToken) {
    let named = network.external.iter().any(|place| place.host_port().ip().is_none());
    let forever = async {
        loop {
            time::sleep(LOOK_EVERY).await;
            match resolve(&network.external).await {
                Ok(addresses) => drop(network.command(Command::External { addresses }).await),
                Err(error) => tracing::warn!(%error, "what it meant before stays in use"),
            }
        }
    };
    if named {
        stop.run_until_cancelled(forever).await;
    }
    stop.cancelled().await;
}

/// Dynamic names are good for about as long.
const LOOK_EVERY: Duration = Duration::from_secs(60);
