//! Goes on trying for a better path where a link is relayed, or goes over QUIC.
//!
//! libp2p punches three times, soon after a circuit was made, and never again on that circuit. The obstacle may be gone
//! later: a busy moment, a network that blocks. Each new circuit is a new attempt; it also takes over before the relay
//! ends the old one for its age.
//!
//! A link goes over QUIC where TCP did not work at the time. It costs more, and shows the end of a killed scraper late.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time;

use crate::{
    identity::PeerAddr,
    network::{
        handle::Network,
        links::status::{LinkPath, LinkTransport},
    },
};

/// Looks for a better way to a peer whenever, and as long as, there may be one. Never returns.
pub(crate) async fn keep_upgrading(network: &Network, peer: &PeerAddr) {
    let way = || network.links().way(&peer.key);
    let may_be_better =
        || matches!(way(), Some((LinkPath::Relayed, _) | (LinkPath::Direct, Some(LinkTransport::Quic))));
    loop {
        network.links().wait_until(may_be_better).await;
        let before = way();
        let again = async {
            for pause in pauses() {
                time::sleep(pause).await;
                upgrade(network, peer).await;
            }
        };
        tokio::select! {
            () = again => {}
            () = network.links().wait_until(|| way() != before) => {}
        }
    }
}

pub(in crate::network) async fn upgrade(network: &Network, peer: &PeerAddr) {
    let dialled = match network.links().path(&peer.key) {
        Some(LinkPath::Relayed) => network.connect_anew(peer).await,
        Some(LinkPath::Direct) => network.connect_over_tcp(peer).await,
        None => return,
    };
    if let Err(error) = dialled {
        tracing::debug!(peer = %peer.key, %error, "found no better way to a peer");
    }
}

/// The first soon after libp2p gave up, then ever more rarely: most that stay where they are can do no better.
fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_secs(30))
        .with_max_delay(Duration::from_secs(30 * 60))
        .with_jitter()
        .without_max_times()
        .build()
}
