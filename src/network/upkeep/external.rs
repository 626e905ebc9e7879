//! Looks the names among the operator's external addresses up again and again.

use std::time::Duration;

use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::network::handle::Network;

/// Dynamic names are good for about as long.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Keeps up with what the names resolve to, until `stop` fires. The peers that a relay makes reachable have to know where
/// the relay is.
pub(crate) async fn keep_external(network: Network, stop: CancellationToken) {
    let named = network.external().iter().any(|address| address.host_port().ip().is_none());
    let forever = async {
        loop {
            time::sleep(LOOK_EVERY).await;
            if let Err(error) = network.resolve_external().await {
                tracing::warn!(%error, "the addresses found before stay in use");
            }
        }
    };
    if named {
        stop.run_until_cancelled(forever).await;
    }
    stop.cancelled().await;
}
