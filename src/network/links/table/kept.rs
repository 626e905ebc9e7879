//! Whose connections are kept, and who is a stranger.
//!
//! A peer is kept once there is a reason: a scraper of ours, a node, a holder of an alias, and while there is room a stranger
//! that has proved a secret. Another stranger's connection ends after a while, however busy the connection is. A scraper
//! reads the holders from its table at the start; until then nobody is judged.

#[cfg(any(feature = "scraper", feature = "node"))]
use std::collections::HashSet;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

use super::{Links, Peer, Table};
#[cfg(feature = "scraper")]
use crate::network::links::connection::LinkId;
use crate::{identity::PublicKey, network::links::connection::Connection};

/// Longer than a registration takes, and than a peer waits before it tries again.
#[cfg(feature = "scraper")]
const REGISTERING: Duration = Duration::from_secs(15);

impl Table {
    /// Enters whether the peer's connections are a stranger's, after a change of that.
    fn judge(&mut self, peer: &PublicKey) {
        let stranger = self.makes_room(peer);
        let ids = self.peers.get(peer).into_iter().flat_map(|peer| &peer.connections);
        for (id, connection) in ids.filter_map(|id| Some((*id, self.connections.get(id)?))) {
            self.origins.judge(id, connection, stranger);
        }
    }
}

impl Links {
    /// Keeps connections to the peer open while idle.
    pub(crate) fn keep(&self, peer: PublicKey) {
        let mut table = self.table();
        let entry = table.peers.entry(peer).or_default();
        entry.kept.store(true, Ordering::Relaxed);
        #[cfg(feature = "scraper")]
        {
            entry.claimant = false;
        }
        table.judge(&peer);
    }

    /// Keeps connections to a peer that has proved a secret and holds no alias, for as long as there is room.
    #[cfg(feature = "scraper")]
    pub(crate) fn keep_claimant(&self, peer: PublicKey) {
        let mut table = self.table();
        let entry = table.peers.entry(peer).or_default();
        entry.claimant |= !entry.kept.swap(true, Ordering::Relaxed);
        table.judge(&peer);
    }

    #[cfg(all(test, feature = "scraper"))]
    pub(crate) fn makes_room(&self, peer: &PublicKey) -> bool {
        self.table().makes_room(peer)
    }

    /// Keeps connections to these peers, the first of all to be kept: whoever else connects is a stranger from now on.
    pub(crate) fn know(&self, peers: impl IntoIterator<Item = PublicKey>) {
        peers.into_iter().for_each(|peer| self.keep(peer));
        self.0.known_since.send_replace(Some(Instant::now()));
    }

    /// Returns once it is known who is a stranger.
    #[cfg(feature = "scraper")]
    pub(crate) async fn known(&self) {
        // `self` holds a sender, so the wait does not end by the channel closing.
        let _ = self.0.known_since.subscribe().wait_for(Option::is_some).await;
    }

    /// Keeps connections to a node open while idle.
    #[cfg(any(feature = "scraper", feature = "node"))]
    pub(crate) fn keep_node(&self, peer: PublicKey) {
        self.table().peers.entry(peer).or_default().always = true;
        self.keep(peer);
    }

    /// Lets idle connections to the peer end.
    pub(crate) fn let_go(&self, peer: &PublicKey) {
        let mut table = self.table();
        if let Some(entry) = table.peers.get_mut(peer) {
            entry.kept.store(false, Ordering::Relaxed);
            entry.always = false;
            #[cfg(feature = "scraper")]
            {
                entry.claimant = false;
            }
            if entry.connections.is_empty() {
                table.peers.remove(peer);
            }
            table.judge(peer);
        }
    }

    /// Whether the peer, a stranger, waits here to be told of another one, for as long as it may take.
    #[cfg(feature = "node")]
    pub(crate) fn follows(&self, peer: &PublicKey, follows: bool) {
        if let Some(entry) = self.table().peers.get_mut(peer) {
            entry.follows = follows;
        }
    }

    pub(crate) fn is_kept(&self, peer: &PublicKey) -> bool {
        self.table().is_kept(peer)
    }

    /// The peers that are kept, nodes left out.
    #[cfg(any(feature = "scraper", feature = "node"))]
    pub(crate) fn kept(&self) -> HashSet<PublicKey> {
        let table = self.table();
        let kept = table.peers.iter().filter(|(_, peer)| !peer.always && peer.kept.load(Ordering::Relaxed));
        kept.map(|(key, _)| *key).collect()
    }

    /// A peer registers over the connection, or would if there was a place.
    #[cfg(feature = "scraper")]
    pub(crate) fn registering(&self, link: LinkId) {
        self.update(link.0, |connection| connection.registering_at = Some(Instant::now()));
    }

    pub(crate) fn kept_flag(&self, peer: PublicKey) -> Arc<AtomicBool> {
        Arc::clone(&self.table().peers.entry(peer).or_default().kept)
    }

    /// Connections that peers opened a while ago, from peers that nothing has made us keep. A bootstrap node is kept; its
    /// connections count as well, unless one that we opened is among them. Connections of peers that register do not.
    pub(crate) fn strangers(&self, after: Duration) -> Vec<ConnectionId> {
        let Some(known_since) = *self.0.known_since.borrow() else { return Vec::new() };
        #[cfg(feature = "scraper")]
        let registers = |connection: &Connection, age: Duration| {
            // Once: a stranger with a wrong secret would else stay for as long as it likes.
            age < after + REGISTERING && connection.registering_at.is_some_and(|at| at.elapsed() < REGISTERING)
        };
        #[cfg(not(feature = "scraper"))]
        let registers = |_: &Connection, _: Duration| false;
        self.select(|table, connection| {
            let peer = &connection.peer;
            let is_only_way =
                || table.is_kept(peer) && !table.direct(peer).any(|(_, connection)| connection.from_our_port);
            let has_reason = |known: &Peer| known.follows || !known.always && table.is_kept(peer);
            let known = table.peers.get(peer).is_some_and(has_reason);
            let age = connection.since.max(known_since).elapsed();
            connection.inbound && age > after && !known && !registers(connection, age) && !is_only_way()
        })
    }
}

#[cfg(all(test, feature = "scraper", feature = "node"))]
mod tests {
    use tokio::time;

    use super::*;
    use crate::{identity::KeyPair, network::links::status::LinkPath};

    #[tokio::test(start_paused = true)]
    async fn nobody_is_a_stranger_before_the_holders_are_known_and_no_holder_is_one_then() {
        let (links, [holder, stranger]) = (Links::new(), [(); 2].map(|()| KeyPair::generate().public()));
        let after = Duration::from_secs(30);
        let [_, other] = [holder, stranger].map(|peer| links.add_test_link(peer, LinkPath::Direct));
        links.table().connections.values_mut().for_each(|connection| connection.inbound = true);
        time::advance(after * 2).await;
        assert_eq!(links.strangers(after), [], "the table is not loaded");

        links.know([holder]);
        assert_eq!(links.strangers(after), [], "time to register begins now");
        time::advance(after + Duration::from_secs(1)).await;
        assert_eq!(links.strangers(after), [other]);

        links.registering(LinkId(other));
        assert_eq!(links.strangers(after), [], "a place was wanted");
        time::advance(REGISTERING).await;
        links.registering(LinkId(other));
        assert_eq!(links.strangers(after), [other], "again and again is too often");

        links.follows(&stranger, true);
        assert_eq!(links.strangers(after), [], "it waits for another peer");
        links.follows(&stranger, false);
        assert_eq!(links.strangers(after), [other]);
    }
}
