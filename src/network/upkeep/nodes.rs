//! Keeps links to the bootstrap nodes.

use std::time::Duration;

use futures::future;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    identity::PeerAddr,
    network::{handle::Network, upkeep::backoff::Redial},
    telemetry::short_duration,
};

/// A link that is lost sooner was refused.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);
/// A node that comes back is found within this time, and one that was linked lately within a third of it.
const MOST_PAUSE: Duration = Duration::from_secs(15);

/// Keeps a link to every bootstrap node, with backoff, until `stop` fires.
pub(crate) async fn keep_nodes(network: Network, stop: CancellationToken) {
    let nodes = network.bootstrap().iter().map(|node| keep_node(&network, node));
    stop.run_until_cancelled(future::join_all(nodes)).await;
    stop.cancelled().await; // also where there are none
}

async fn keep_node(network: &Network, node: &PeerAddr) {
    network.links().keep_node(node.key);
    let mut redial = Redial::new(MOST_PAUSE, network.host_changes());
    loop {
        let error = redial.attempt(|| network.link_node(node)).await.err();
        if error.is_none() {
            tracing::debug!(%node, "bootstrap node linked");
            let since = Instant::now();
            network.links().down(&node.key).await;
            if since.elapsed() > REFUSED_WITHIN {
                redial.was_good();
                continue;
            }
            // A node that has no room for a connection accepts it, and ends it.
        }
        let pause = redial.next_pause();
        match error {
            Some(error) => {
                tracing::warn!(%node, %error, retry_in = short_duration(pause), "bootstrap node does not answer")
            }
            None => {
                tracing::debug!(%node, retry_in = short_duration(pause), "the link to a bootstrap node was lost at once")
            }
        }
        redial.pause(pause).await;
    }
}
