//! Keeps links to the bootstrap nodes.

use std::time::Duration;

use futures::future;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    identity::PeerAddr,
    network::{handle::Network, upkeep::backoff::redial_backoff},
};

/// A link that is lost sooner was refused.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);
/// A node that comes back is found within this time.
const MOST_PAUSE: Duration = Duration::from_secs(15);

/// Keeps a link to every bootstrap node, with backoff, until `stop` fires.
pub(crate) async fn keep_nodes(network: Network, stop: CancellationToken) {
    let nodes = network.bootstrap().iter().map(|node| keep_node(&network, node));
    stop.run_until_cancelled(future::join_all(nodes)).await;
    stop.cancelled().await; // also where there are none
}

async fn keep_node(network: &Network, node: &PeerAddr) {
    network.links().keep_node(node.key);
    let mut pauses = redial_backoff(MOST_PAUSE);
    loop {
        let error = network.link_node(node).await.err();
        if error.is_none() {
            tracing::debug!(%node, "bootstrap node linked");
            let since = Instant::now();
            network.links().down(&node.key).await;
            if since.elapsed() > REFUSED_WITHIN {
                pauses = redial_backoff(MOST_PAUSE);
                continue;
            }
            // A node that has no room for a connection accepts it, and ends it.
        }
        let pause = pauses.next().unwrap_or(MOST_PAUSE);
        match error {
            Some(error) => tracing::warn!(%node, %error, retry_in = ?pause, "bootstrap node does not answer"),
            None => tracing::debug!(%node, retry_in = ?pause, "the link to a bootstrap node was lost at once"),
        }
        time::sleep(pause).await;
    }
}
