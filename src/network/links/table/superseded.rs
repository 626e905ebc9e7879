//! Connections that a better or a newer one has made superfluous.

use std::{sync::Arc, time::Duration};

use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

use super::{Links, Table};
use crate::{
    identity::PublicKey,
    network::links::status::{LinkPath, LinkTransport},
};

/// Time for a task that is about to open a stream to notice the better path.
const SUPERSEDED_FOR: Duration = Duration::from_secs(5);

/// Circuits through several relays are dialled one a moment after the other.
const MADE_TOGETHER: Duration = Duration::from_secs(10);

/// Holders of a connection's stream counter beside the streams: the table, and the connection's handler.
const HELD_BY_US: usize = 2;

impl Table {
    /// A relayed connection has nothing more to do while there is a direct one, or a circuit that is clearly newer. (Of
    /// two direct ones, or of two circuits made together, both stay: the two ends may not agree on which is the better,
    /// and would each close the other's. A node is linked over several transports on purpose.) A direct one has nothing more to
    /// do once we have left it.
    pub(super) fn mark_superseded(&mut self, peer: &PublicKey) {
        let Some((rank, since)) = self.best(peer).map(|(_, best)| (best.rank(), best.since)) else { return };
        let Some(peer) = self.peers.get(peer) else { return };
        for id in &peer.connections {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            let superseded = match connection.path {
                LinkPath::Direct => connection.left && rank < connection.rank(),
                LinkPath::Relayed => {
                    rank.0 == LinkPath::Direct || since.duration_since(connection.since) > MADE_TOGETHER
                }
            };
            connection.superseded_at = superseded.then(|| connection.superseded_at.unwrap_or_else(Instant::now));
        }
    }
}

impl Links {
    /// The direct connections that a peer may have replaced by a newer one of the same transport.
    pub(crate) fn replaced_by(&self, newer: ConnectionId, after: Duration) -> Vec<ConnectionId> {
        let table = self.table();
        let Some(newer) = table.connections.get(&newer) else { return Vec::new() };
        let replaced = table.direct(&newer.peer).filter(|(_, older)| older.may_be_replaced_by(newer, after));
        replaced.map(|(id, _)| id).collect()
    }

    /// Has the direct connections that we opened over a transport end with their last streams, as long as there is a better one.
    pub(crate) fn leave(&self, peer: &PublicKey, transport: LinkTransport) {
        let table = &mut *self.table();
        let Some(entry) = table.peers.get(peer) else { return };
        for id in &entry.connections {
            let connection = table.connections.get_mut(id);
            if let Some(connection) = connection.filter(|one| one.is_direct() && one.transport() == transport) {
                connection.left = !connection.inbound;
            }
        }
        table.mark_superseded(peer);
    }

    /// Connections that a better one has made superfluous a while ago, and whose last stream has ended. libp2p's hole
    /// punching would keep them open for ever.
    pub(crate) fn superfluous(&self) -> Vec<ConnectionId> {
        self.select(|_, connection| {
            connection.superseded_at.is_some_and(|at| at.elapsed() > SUPERSEDED_FOR)
                && Arc::strong_count(&connection.control.streams) <= HELD_BY_US
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;
    use crate::{identity::KeyPair, network::links::connection::LinkId};

    #[tokio::test(start_paused = true)]
    async fn a_newer_circuit_takes_over_and_one_of_the_same_moment_stays() {
        let (links, peer) = (Links::new(), KeyPair::generate().public());
        let first = links.add_test_link(peer, LinkPath::Relayed);
        time::advance(Duration::from_secs(1)).await;
        let second = links.add_test_link(peer, LinkPath::Relayed);
        time::advance(Duration::from_secs(60)).await;
        assert_eq!(links.superfluous(), [], "made together");

        let third = links.add_test_link(peer, LinkPath::Relayed);
        assert_eq!(links.best(&peer), Some(LinkId(third)));
        time::advance(SUPERSEDED_FOR * 2).await;
        assert_eq!(links.superfluous(), [second, first]);

        links.unlist(third, "a test");
        assert_eq!(links.best(&peer), Some(LinkId(second)));
        assert_eq!(links.superfluous(), [], "they are needed again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_direct_connection_takes_over_and_is_never_superfluous() {
        let (links, peer) = (Links::new(), KeyPair::generate().public());
        let direct = [(); 2].map(|()| links.add_test_link(peer, LinkPath::Direct));
        let relayed = links.add_test_link(peer, LinkPath::Relayed);
        time::advance(Duration::from_secs(60)).await;
        let other = links.add_test_link(peer, LinkPath::Direct);
        assert_eq!(links.superfluous(), [relayed]);
        assert_eq!(links.direct(&peer), [other, direct[1], direct[0]]);
    }
}
