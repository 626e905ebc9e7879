//! Waiting for changes of the table.

use tokio::sync::watch;

use super::Links;
use crate::identity::PublicKey;

impl Links {
    /// Changes whenever a connection comes or goes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Returns once the peer has a link.
    #[cfg(feature = "scraper")]
    pub(crate) async fn up(&self, peer: &PublicKey) {
        self.wait_until(|| self.path(peer).is_some()).await;
    }

    /// Returns once the peer has no link.
    #[cfg(any(feature = "scraper", feature = "node"))]
    pub(crate) async fn down(&self, peer: &PublicKey) {
        self.wait_until(|| self.path(peer).is_none()).await;
    }

    /// Returns once the condition holds; looks again at every change.
    pub(crate) async fn wait_until(&self, mut holds: impl FnMut() -> bool) {
        // `self` holds a sender, so the wait does not end by the channel closing.
        let _ = self.changes().wait_for(|_| holds()).await;
    }

    /// Returns once the peer has reported over each direct connection how it sees us.
    pub(crate) async fn identified(&self, peer: &PublicKey) {
        let all = || self.table().direct(peer).all(|(_, connection)| connection.identified);
        let _ = self.0.identified.subscribe().wait_for(|()| all()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time;

    use super::*;
    use crate::{identity::KeyPair, network::links::status::LinkPath};

    #[tokio::test(start_paused = true)]
    async fn a_peer_has_identified_itself_once_it_did_over_each_direct_connection() {
        let (links, peer) = (Links::new(), KeyPair::generate().public());
        links.add_test_link(peer, LinkPath::Relayed);
        let direct = [(); 2].map(|()| links.add_test_link(peer, LinkPath::Direct));
        links.on_identified(direct[0]);
        assert!(time::timeout(Duration::from_secs(5), links.identified(&peer)).await.is_err());
        links.on_identified(direct[1]);
        links.identified(&peer).await;
    }
}
