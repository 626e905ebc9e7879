//! Writes down from where secrets were proved, again and again and at the end.

use std::{sync::Arc, time::Duration};

use tokio::{task, time};
use tokio_util::sync::CancellationToken;

use crate::network::handle::Network;

/// What a crash loses: most of the fleet has registered long before.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// Saves the networks from which a secret was proved, until `stop` fires.
pub(crate) async fn keep_proved(network: Network, stop: CancellationToken) {
    let mut last = false;
    while !last {
        last = stop.run_until_cancelled(time::sleep(SAVE_EVERY)).await.is_none();
        let proved = Arc::clone(&network.proved);
        if let Ok(Err(error)) = task::spawn_blocking(move || proved.save()).await {
            tracing::warn!(%error, "could not remember from where secrets were proved");
        }
    }
}
