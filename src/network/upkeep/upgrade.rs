//! Goes on trying for a direct path where a link stayed relayed.
//!
//! libp2p punches three times, soon after a circuit was made, and never again on that circuit. The obstacle may be gone
//! later: a busy moment, a network that blocks. Each new circuit is a new attempt; it also takes over before the relay
//! ends the old one for its age.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time;

use crate::{
    identity::PeerAddr,
    network::{handle::Network, links::status::LinkPath},
};

/// Looks for a better way to a peer whenever, and as long as, its link is relayed. Never returns.
pub(crate) async fn keep_upgrading(network: &Network, peer: &PeerAddr) {
    let relayed = || network.links().path(&peer.key) == Some(LinkPath::Relayed);
    loop {
        network.links().wait_until(relayed).await;
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
            () = network.links().wait_until(|| !relayed()) => {}
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
