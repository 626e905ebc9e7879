//! Room for one more connection: by peer, by where the connection comes from, and in all.
//!
//! A stranger makes room for somebody from elsewhere when there is no room at all, or for another from the same place, whom
//! the stranger may be keeping out: the oldest of them, which has had the most time to register. Peers that hold their place
//! never make room for strangers, nor for a dial of ours; for each other they do at an origin that has more connections than the
//! newcomer's.

use std::time::Duration;

use libp2p::{Multiaddr, swarm::ConnectionId};

use super::{Links, Table};
use crate::{
    identity::PublicKey,
    network::{address, config::NetworkLimits},
    telemetry::Limit,
};

/// Longer than a registration takes: strangers of one origin do not push each other out before.
const TIME_TO_REGISTER: Duration = Duration::from_secs(1);

/// A connection that is about to be established.
#[derive(Clone, Copy)]
pub(crate) struct Newcomer<'a> {
    pub(crate) peer: &'a PublicKey,
    /// The other end's address, if the other end opened the connection.
    pub(crate) from: Option<&'a Multiaddr>,
    /// True if a peer at that address has proved a secret lately.
    pub(crate) proved: bool,
    /// True if one stranger may take the place of another from the same origin.
    pub(crate) may_replace: bool,
}

/// What the place of a newcomer costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    /// This connection has to end, because of the limit.
    Replaces(ConnectionId, Limit),
    None(Limit),
}

impl Links {
    /// The room that there is for a connection.
    pub(crate) fn room(&self, newcomer: Newcomer<'_>, limits: &NetworkLimits) -> Room {
        self.table().room(newcomer, limits)
    }

    /// The limit that strangers at an address have reached.
    pub(crate) fn full(&self, from: &Multiaddr, limits: &NetworkLimits) -> Option<Limit> {
        self.table().full(from, false, false, limits)
    }
}

impl Table {
    fn room(&self, newcomer: Newcomer<'_>, limits: &NetworkLimits) -> Room {
        let Newcomer { peer, from, proved, may_replace } = newcomer;
        if self.of(peer).count() >= limits.connections_per_peer as usize {
            return Room::None(Limit::ConnectionsPerPeer);
        }
        let wanted = from.is_none() || !self.makes_room(peer);
        let own = from.map(address::network);
        let (origin, limit) = if let Some(limit) = from.and_then(|from| self.full(from, wanted, proved, limits)) {
            (own, limit)
        } else if self.has_places(limits.connections as usize) {
            return Room::Free;
        } else {
            // A stranger takes a place elsewhere only where there are more strangers than at its own origin.
            let at_own = own.map_or(0, |own| self.origins.strangers(own));
            let fullest = self.origins.fullest().filter(|(_, strangers)| wanted || *strangers > at_own);
            (fullest.map(|(origin, _)| origin).or(own), Limit::Connections)
        };
        let oldest = origin.and_then(|origin| self.origins.oldest_stranger(origin));
        let are_neighbours = !wanted && origin == own;
        let oldest = oldest.filter(|oldest| !are_neighbours || may_replace && self.has_had_time(*oldest));
        let crowding = || {
            let at_own = self.origins.connections(own?);
            self.origins.newest_beyond(at_own + 1).filter(|_| wanted && limit == Limit::Connections)
        };
        oldest.or_else(crowding).map_or(Room::None(limit), |loser| Room::Replaces(loser, limit))
    }

    /// The limit of an origin that leaves no room for a further stranger, or not even for a peer that is kept.
    fn full(&self, from: &Multiaddr, kept: bool, proved: bool, limits: &NetworkLimits) -> Option<Limit> {
        let origin @ Some(_) = address::network(from) else { return None };
        let of_shared = limits.connections_per_private_address;
        let (limit, most) = if proved || address::is_private(from) {
            (Limit::ConnectionsPerPrivateIp, of_shared)
        } else {
            (Limit::ConnectionsPerIp, limits.connections_per_address)
        };
        if !kept && self.origins.strangers(origin) >= most {
            return Some(limit);
        }
        (self.origins.connections(origin) >= of_shared.max(most)).then_some(Limit::ConnectionsPerPrivateIp)
    }

    /// True if fewer connections are listed. The others are closing, and are counted only when it matters.
    fn has_places(&self, most: usize) -> bool {
        self.connections.len() < most || self.listed().count() < most
    }

    fn has_had_time(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_none_or(|connection| connection.since.elapsed() >= TIME_TO_REGISTER)
    }
}

#[cfg(all(test, any(feature = "scraper", feature = "node")))]
mod tests {
    use tokio::time;

    use super::*;
    use crate::{identity::KeyPair, network::links::connection::Connection};

    const LIMITS: NetworkLimits = NetworkLimits {
        connections: 12,
        connections_per_peer: 3,
        connections_per_address: 4,
        connections_per_private_address: 6,
        ..NetworkLimits::DEFAULT
    };

    struct Lab {
        links: Links,
        next: usize,
        /// What holds of the newcomers.
        proved: bool,
        may_replace: bool,
    }

    impl Lab {
        fn new() -> Self {
            Self { links: Links::new(), next: 0, proved: false, may_replace: true }
        }

        /// A connection of the peer from the IP address; those that make room end.
        fn connect(&mut self, peer: &PublicKey, ip: &str) -> Result<ConnectionId, Limit> {
            let from: Multiaddr = format!("/ip4/{ip}/tcp/1").parse().expect("an address");
            let Self { proved, may_replace, .. } = *self;
            match self.links.room(Newcomer { peer, from: Some(&from), proved, may_replace }, &LIMITS) {
                Room::Free => (),
                Room::Replaces(id, _) => {
                    self.links.unlist(id, "a test");
                    self.links.forget(id);
                }
                Room::None(limit) => return Err(limit),
            }
            self.next += 1;
            let id = ConnectionId::new_unchecked(self.next);
            self.links.add(id, Connection::opened_from(*peer, from));
            Ok(id)
        }

        fn stranger(&mut self, ip: &str) -> Result<ConnectionId, Limit> {
            self.connect(&KeyPair::generate().public(), ip)
        }

        /// Fills all places but one from three public addresses.
        fn fill(&mut self) -> Vec<ConnectionId> {
            let ips = (0..11).map(|number| format!("203.0.113.{}", number % 3));
            ips.map(|ip| self.stranger(&ip).expect("room")).collect()
        }

        fn alive(&self, id: ConnectionId) -> bool {
            self.links.table().connections.contains_key(&id)
        }

        async fn pass(&self) {
            time::advance(TIME_TO_REGISTER).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_from_a_quiet_address_takes_the_place_of_the_oldest_stranger_of_the_fullest() {
        let mut lab = Lab::new();
        let hostile = lab.fill();
        let first = lab.stranger("198.51.100.1").expect("the last place");
        let second = lab.stranger("198.51.100.1").expect("a place");
        assert!(lab.alive(first) && lab.alive(second) && !lab.alive(hostile[0]));
        for round in 0..50 {
            let _ = lab.stranger(&format!("203.0.113.{}", round % 3));
            lab.pass().await;
        }
        assert!(lab.alive(first) && lab.alive(second), "those who have few keep what they have");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_kept_finds_room_and_never_makes_it() {
        let mut lab = Lab::new();
        let holders: Vec<_> = (0..12).map(|_| KeyPair::generate().public()).collect();
        let strangers = lab.fill();
        lab.links.know(holders.iter().copied());
        let at = |number: usize| format!("198.51.100.{}", number / 4);
        let linked: Vec<_> = holders.iter().enumerate().map(|(number, key)| lab.connect(key, &at(number))).collect();
        assert!(linked.iter().all(Result::is_ok) && strangers.iter().all(|id| !lab.alive(*id)));
        assert_eq!(lab.stranger("192.0.2.1"), Err(Limit::Connections));
        lab.links.unlist(linked[0].expect("linked"), "a test");
        lab.links.forget(linked[0].expect("linked"));
        assert!(lab.stranger("192.0.2.1").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn peers_that_are_kept_leave_each_other_their_share() {
        let mut lab = Lab::new();
        let keys: Vec<_> = (0..15).map(|_| KeyPair::generate().public()).collect();
        lab.links.know(keys.iter().copied());
        let at = |number: usize| if number < 6 { "198.51.100.1" } else { "198.51.100.2" };
        let many: Vec<_> = (0..12).map(|number| lab.connect(&keys[number], at(number)).expect("room")).collect();
        assert_eq!(lab.stranger("192.0.2.1"), Err(Limit::Connections), "strangers take nothing from them");
        for (number, least) in [(12, 11), (13, 10)] {
            lab.connect(&keys[number], "192.0.2.1").expect("a share");
            assert_eq!(many.iter().filter(|id| lab.alive(**id)).count(), least);
        }
        assert_eq!(lab.connect(&keys[0], "198.51.100.1"), Err(Limit::Connections), "that origin has most");
    }

    /// A connection that is closing is in the table until libp2p reports its end, seconds later if the peer reads nothing.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_closing_has_no_place() {
        let mut lab = Lab::new();
        let keys: Vec<_> = (0..13).map(|_| KeyPair::generate().public()).collect();
        lab.links.know(keys.iter().copied());
        let linked: Vec<_> =
            (0..12).map(|n| lab.connect(&keys[n], ["10.0.0.1", "10.0.0.2"][n / 6]).expect("room")).collect();
        lab.links.unlist(linked[0], "a test");
        lab.connect(&keys[12], "192.0.2.1").expect("the place that is free");
        assert!(linked.iter().all(|id| lab.alive(*id)), "nobody else has to go");
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_of_one_address_make_room_for_each_other_once_they_had_time_to_register() {
        for (ip, most, proved, limit) in [
            ("203.0.113.7", 4, false, Limit::ConnectionsPerIp),
            ("10.1.2.3", 6, false, Limit::ConnectionsPerPrivateIp),
            ("203.0.113.7", 6, true, Limit::ConnectionsPerPrivateIp),
        ] {
            let mut lab = Lab { proved, ..Lab::new() };
            let here: Vec<_> = (0..most).map(|_| lab.stranger(ip).expect("room")).collect();
            assert_eq!(lab.stranger(ip), Err(limit), "{ip}");
            lab.pass().await;
            assert!(lab.stranger(ip).is_ok() && !lab.alive(here[0]) && lab.alive(here[1]));
            lab.may_replace = false;
            assert_eq!(lab.stranger(ip), Err(limit), "at a node");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_registered_leaves_the_place_of_a_stranger() {
        let mut lab = Lab::new();
        let registered = [(); 4].map(|()| KeyPair::generate().public());
        let ids = registered.map(|key| lab.connect(&key, "203.0.113.7").expect("room"));
        assert_eq!(lab.stranger("203.0.113.7"), Err(Limit::ConnectionsPerIp));
        lab.links.keep(registered[0]);
        assert!(lab.stranger("203.0.113.7").is_ok());
        registered.iter().for_each(|key| lab.links.keep(*key));
        assert!(lab.stranger("203.0.113.7").is_ok());
        assert_eq!(lab.stranger("203.0.113.7"), Err(Limit::ConnectionsPerPrivateIp), "six in all");
        lab.links.let_go(&registered[3]);
        lab.pass().await;
        assert!(lab.stranger("203.0.113.7").is_ok() && !lab.alive(ids[3]), "a stranger again, and the oldest");
    }

    #[test]
    fn a_peer_has_its_own_limit_and_an_address_leaves_no_trace() {
        let mut lab = Lab::new();
        let peer = KeyPair::generate().public();
        let ids = [(); 3].map(|()| lab.connect(&peer, "203.0.113.7").expect("room"));
        assert_eq!(lab.connect(&peer, "203.0.113.8"), Err(Limit::ConnectionsPerPeer));
        ids.iter().for_each(|id| lab.links.unlist(*id, "a test"));
        assert!(lab.links.table().origins.is_empty());
    }

    #[test]
    fn addresses_of_one_v6_network_are_counted_together() {
        let mut lab = Lab::new();
        for (number, room) in [(1, true), (2, true), (3, true), (4, true), (5, false)] {
            let (peer, from) = (KeyPair::generate().public(), format!("/ip6/2001:db8::{number}/tcp/1"));
            let from: Multiaddr = from.parse().expect("an address");
            let newcomer = Newcomer { peer: &peer, from: Some(&from), proved: false, may_replace: true };
            assert_eq!(lab.links.room(newcomer, &LIMITS) == Room::Free, room);
            lab.next += 1;
            lab.links.add(ConnectionId::new_unchecked(lab.next), Connection::opened_from(peer, from));
        }
    }
}
