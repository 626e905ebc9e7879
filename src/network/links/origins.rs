//! Inbound connections by where they come from, and which of them are strangers'.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use libp2p::swarm::ConnectionId;

use crate::network::{address, links::connection::Connection};

/// Where an inbound connection comes from, as far as the limits tell; all that come through relays are one.
pub(crate) type Origin = Option<IpAddr>;

/// The listed connections that peers opened, by origin.
#[derive(Default)]
pub(crate) struct Origins(HashMap<Origin, Group>);

#[derive(Default)]
struct Group {
    connections: BTreeSet<ConnectionId>,
    /// Those of peers that are not kept, the oldest first.
    strangers: BTreeSet<ConnectionId>,
}

impl Origins {
    /// Enters a connection, if the peer opened it.
    pub(crate) fn enter(&mut self, id: ConnectionId, connection: &Connection, stranger: bool) {
        if connection.inbound {
            self.0.entry(origin(connection)).or_default().connections.insert(id);
            self.judge(id, connection, stranger);
        }
    }

    /// Takes out a connection that was entered.
    pub(crate) fn leave(&mut self, id: ConnectionId, connection: &Connection) {
        self.judge(id, connection, false);
        let Some(group) = self.0.get_mut(&origin(connection)).filter(|_| connection.inbound) else { return };
        group.connections.remove(&id);
        if group.connections.is_empty() {
            self.0.remove(&origin(connection));
        }
    }

    /// Enters whether a connection is a stranger's.
    pub(crate) fn judge(&mut self, id: ConnectionId, connection: &Connection, stranger: bool) {
        if let Some(group) = self.0.get_mut(&origin(connection)).filter(|_| connection.inbound) {
            if stranger {
                group.strangers.insert(id)
            } else {
                group.strangers.remove(&id)
            };
        }
    }

    pub(crate) fn connections(&self, origin: Origin) -> usize {
        self.0.get(&origin).map_or(0, |group| group.connections.len())
    }

    pub(crate) fn strangers(&self, origin: Origin) -> usize {
        self.0.get(&origin).map_or(0, |group| group.strangers.len())
    }

    pub(crate) fn oldest_stranger(&self, origin: Origin) -> Option<ConnectionId> {
        self.0.get(&origin)?.strangers.first().copied()
    }

    /// The origin with most strangers, and their number; of equals the one with the oldest.
    pub(crate) fn fullest(&self) -> Option<(Origin, usize)> {
        let groups = self.0.iter().filter(|(_, group)| !group.strangers.is_empty());
        let fullest = groups.max_by_key(|(_, group)| (group.strangers.len(), Reverse(group.strangers.first())));
        fullest.map(|(origin, group)| (*origin, group.strangers.len()))
    }

    /// The newest connection of the origin with most, if there are more than `most`.
    pub(crate) fn newest_beyond(&self, most: usize) -> Option<ConnectionId> {
        let crowded = self.0.values().max_by_key(|group| group.connections.len());
        crowded.filter(|group| group.connections.len() > most)?.connections.last().copied()
    }

    #[cfg(all(test, any(feature = "scraper", feature = "node")))]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn origin(connection: &Connection) -> Origin {
    if connection.is_direct() { address::network(&connection.address) } else { None }
}
