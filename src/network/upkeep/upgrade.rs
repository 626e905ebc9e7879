//! Goes on trying for a direct path where a link stayed relayed.
//!
//! libp2p punches three times, soon after a circuit was made, and never again on that circuit. What was in the way then
//! may be gone: a busy moment, a network that blocks. Each new circuit is a new attempt; being young, it also never comes
//! of the age at which a relay ends it.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time;

use crate::{
    identity::PeerAddr,
    network::{handle::Network, links::status::LinkPath},
};

/// Looks for a better way to a peer whenever, and as long as, its link is relayed. Never returns.
pub(crate) async fn keep_upgrading(network: &Network, peer: &PeerAddr) {
    let relayed = || network.links.path(&peer.key) == Some(LinkPath::Relayed);
    loop {
        network.links.wait_until(relayed).await;
        let again = async {
            for pause in pauses() {
                time::sleep(pause).await;
                if let Err(error) = network.connect_anew(peer).await {
                    tracing::debug!(peer = %peer.key, %error, "found no other way to a relayed peer");
                }
            }
        };
        tokio::select! {
            () = again => {}
            () = network.links.wait_until(|| !relayed()) => {}
        }
    }
}

/// The first soon after libp2p gave up, then ever more rarely: most that stay relayed can do no better.
fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_secs(30))
        .with_max_delay(Duration::from_secs(30 * 60))
        .with_jitter()
        .without_max_times()
        .build()
}
