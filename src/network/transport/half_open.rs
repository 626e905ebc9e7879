//! Half-open connections: those that others open and that have not proved their key yet.
//!
//! Nobody is known before the handshake has ended, so places are shared out by where a connection comes from. A source that
//! has as many as it may have replaces one of its own. When all places are taken, the source with the most gives one up,
//! never the newcomer from a source with few. Addresses from which a secret was proved lately have places of their own.
//!
//! A connection gives its place up when its handshake ends, or when the future that holds its [`Place`] is aborted.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::AbortHandle;
use libp2p::Multiaddr;
use rand::seq::{IndexedRandom, IteratorRandom};
use tokio::time::Instant;

use crate::{
    network::{address, config::NetworkLimits, links::proved::ProvedNetworks, transport::inbound::InboundCounters},
    telemetry::{Limit, Refusals},
};

/// Of the places, this part is for addresses from which a secret was proved lately.
const RESERVED: usize = 4;

/// A full source replaces its own connections so slowly that each may stay this long on average: an honest handshake among
/// them has then mostly ended.
const SOURCE_TURNOVER: Duration = Duration::from_millis(250);

/// How a connection came. Each way has places of its own: a sender of QUIC's first packet may have forged its address, and
/// peers behind a relay have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Stream,
    Quic,
    Relay,
}

/// Where connections come from, as far as they are told apart; peers that come through relays are one source.
type Source = Option<IpAddr>;

/// The places of half-open connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct HalfOpen(Arc<Shared>);

struct Shared {
    pools: Mutex<[Pool; 3]>,
    limits: NetworkLimits,
    proved: Arc<ProvedNetworks>,
    counters: Arc<InboundCounters>,
    refusals: Arc<Refusals>,
}

/// The places of one way.
struct Pool {
    places: usize,
    taken: usize,
    sources: HashMap<Source, Group>,
    last_id: u64,
}

/// The half-open connections of one source.
#[derive(Default)]
struct Group {
    proved: bool,
    connections: Vec<(u64, AbortHandle)>,
    replaced_at: Option<Instant>,
}

/// The place of one half-open connection, free again when this is dropped.
pub(crate) struct Place {
    half_open: HalfOpen,
    way: Way,
    source: Source,
    id: u64,
}

impl HalfOpen {
    pub(crate) fn new(
        limits: NetworkLimits,
        proved: Arc<ProvedNetworks>,
        counters: Arc<InboundCounters>,
        refusals: Arc<Refusals>,
    ) -> Self {
        let pool = |part: usize| Pool {
            places: (limits.half_open / part).max(1),
            taken: 0,
            sources: HashMap::new(),
            last_id: 0,
        };
        let pools = Mutex::new([pool(2), pool(4), pool(4)]);
        Self(Arc::new(Shared { pools, limits, proved, counters, refusals }))
    }

    /// Takes a place for a connection from this address, which `abort` ends; none if the source has as many as it may have,
    /// and has replaced one just now.
    pub(crate) fn admit(&self, remote: &Multiaddr, abort: AbortHandle) -> Option<Place> {
        let shared = &self.0;
        let (way, source) = (Way::of(remote), address::network(remote));
        let proved = source.is_some_and(|network| shared.proved.contains(&network));
        let (limit, most) = match source {
            Some(_) if proved || address::is_private(remote) => {
                (Limit::HalfOpenPerPrivateIp, shared.limits.half_open_per_private_address)
            }
            Some(_) => (Limit::HalfOpenPerIp, shared.limits.half_open_per_address),
            None => (Limit::HalfOpen, usize::MAX),
        };
        let mut pools = self.pools();
        let pool = &mut pools[way as usize];
        let room = match pool.room_for(source, proved, most) {
            Room::Free => Ok(()),
            Room::Replaces(own) if own >= most => Err((source, limit)),
            Room::Replaces(_) => Err((source, Limit::HalfOpen)),
            Room::Evicts(fullest) => Err((fullest, Limit::HalfOpen)),
        };
        if let Err((loser, limit)) = room {
            let evicted = loser != source || pool.may_replace(source);
            if evicted {
                pool.evict(loser);
            }
            shared.counters.no_room(evicted);
            let what = source.map_or_else(|| "a relayed peer".to_owned(), |network| network.to_string());
            shared.refusals.count(limit, format_args!("half-open connection from {what}"));
            if !evicted {
                return None;
            }
        }
        let id = pool.add(source, proved, abort);
        shared.counters.set_handshakes(pools.iter().map(|pool| pool.taken).sum());
        Some(Place { half_open: self.clone(), way, source, id })
    }

    fn pools(&self) -> MutexGuard<'_, [Pool; 3]> {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut pools = self.half_open.pools();
        pools[self.way as usize].remove(self.source, self.id);
        self.half_open.0.counters.set_handshakes(pools.iter().map(|pool| pool.taken).sum());
    }
}

impl Way {
    fn of(remote: &Multiaddr) -> Self {
        match address::ip(remote) {
            None => Self::Relay,
            Some(_) if address::is_tcp(remote) => Self::Stream,
            Some(_) => Self::Quic,
        }
    }
}

/// What a newcomer's place costs.
enum Room {
    Free,
    /// One of its own source, which has this many.
    Replaces(usize),
    Evicts(Source),
}

impl Pool {
    fn room_for(&self, source: Source, proved: bool, most: usize) -> Room {
        let own = self.sources.get(&source).map_or(0, |group| group.connections.len());
        if own >= most {
            return Room::Replaces(own);
        }
        let unproved: usize = self.groups(|group| !group.proved).map(|(_, count)| count).sum();
        let unproved_full = unproved >= self.places - self.places / RESERVED;
        if self.taken < self.places && (proved || !unproved_full) {
            return Room::Free;
        }
        // Those who have proved nothing do not take what is reserved.
        let losers = |group: &Group| !group.proved || proved || !unproved_full;
        let fullest = self.groups(losers).map(|(_, count)| count).max().unwrap_or_default();
        if own >= fullest {
            return Room::Replaces(own);
        }
        let equals = self.groups(losers).filter(|(_, count)| *count == fullest).map(|(source, _)| source);
        equals.choose(&mut rand::rng()).map_or(Room::Free, Room::Evicts)
    }

    fn groups(&self, wanted: impl Fn(&Group) -> bool) -> impl Iterator<Item = (Source, usize)> {
        let groups = self.sources.iter().filter(move |(_, group)| wanted(group));
        groups.map(|(source, group)| (*source, group.connections.len()))
    }

    /// False if the source has replaced a connection of its own too short a time ago.
    fn may_replace(&mut self, source: Source) -> bool {
        let Some(group) = self.sources.get_mut(&source) else { return false };
        let pause = SOURCE_TURNOVER / u32::try_from(group.connections.len().max(1)).unwrap_or(u32::MAX);
        let may = group.replaced_at.is_none_or(|at| at.elapsed() >= pause);
        if may {
            group.replaced_at = Some(Instant::now());
        }
        may
    }

    /// Ends one connection of a source. A random one: the oldest would be known beforehand, and is mostly the slow one
    /// behind a bad line.
    fn evict(&mut self, source: Source) {
        let Some(group) = self.sources.get(&source) else { return };
        let Some((id, abort)) = group.connections.choose(&mut rand::rng()) else { return };
        abort.abort();
        let id = *id;
        self.remove(source, id);
    }

    fn add(&mut self, source: Source, proved: bool, abort: AbortHandle) -> u64 {
        self.last_id += 1;
        let group = self.sources.entry(source).or_default();
        group.proved = proved;
        group.connections.push((self.last_id, abort));
        self.taken += 1;
        self.last_id
    }

    /// Does nothing if it was removed before.
    fn remove(&mut self, source: Source, id: u64) {
        let Some(group) = self.sources.get_mut(&source) else { return };
        let Some(at) = group.connections.iter().position(|(other, _)| *other == id) else { return };
        group.connections.swap_remove(at);
        self.taken -= 1;
        if group.connections.is_empty() {
            self.sources.remove(&source);
        }
    }
}

#[cfg(all(test, feature = "scraper"))]
mod tests {
    use super::*;

    /// Half-open connections in a table with 64 places: 32 for TCP, 8 of them reserved.
    struct Lab {
        table: HalfOpen,
        held: Vec<(String, Place, AbortHandle)>,
    }

    impl Lab {
        fn new(proved: &[[u8; 4]]) -> Self {
            let limits = NetworkLimits {
                half_open: 64,
                half_open_per_address: 4,
                half_open_per_private_address: 12,
                ..NetworkLimits::default()
            };
            let networks = ProvedNetworks::default();
            proved.iter().for_each(|ip| networks.note((*ip).into()));
            let table = HalfOpen::new(limits, Arc::new(networks), Arc::default(), Arc::new(Refusals::new()));
            Self { table, held: Vec::new() }
        }

        /// False if the connection was refused.
        fn open(&mut self, ip: impl Into<String>) -> bool {
            self.open_at(ip, "tcp/1")
        }

        fn open_at(&mut self, ip: impl Into<String>, port: &str) -> bool {
            let (ip, (abort, _)) = (ip.into(), AbortHandle::new_pair());
            let remote = format!("/ip4/{ip}/{port}").parse().expect("multiaddr");
            let place = self.table.admit(&remote, abort.clone());
            place.map(|place| self.held.push((ip, place, abort))).is_some()
        }

        /// Fills the table from eight addresses that have proved nothing.
        fn fill(&mut self) {
            for number in 0..24 {
                assert!(self.open(format!("203.0.113.{}", number % 8)));
            }
        }

        fn alive(&self, ip: &str) -> usize {
            self.held.iter().filter(|(from, _, abort)| from.starts_with(ip) && !abort.is_aborted()).count()
        }

        fn counts(&self) -> (usize, u64, u64) {
            let counts = self.table.0.counters.read();
            (counts.handshakes, counts.evicted, counts.refused_handshakes)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_from_a_quiet_source_takes_the_place_of_the_fullest() {
        let mut lab = Lab::new(&[]);
        lab.fill();
        assert!(lab.open("203.0.113.0"), "a source may have four");
        assert!(lab.open("198.51.100.1") && lab.open("198.51.100.2"));
        assert_eq!((lab.alive("198.51.100."), lab.alive("203.0.113.")), (2, 22));
        assert_eq!(lab.counts(), (24, 3, 0));
        for round in 0..200 {
            let _ = lab.open(format!("203.0.113.{}", round % 8));
            assert_eq!(lab.alive("198.51.100."), 2, "those who have few keep what they have");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_source_replaces_its_own_and_not_too_fast() {
        let mut lab = Lab::new(&[]);
        (0..4).for_each(|_| assert!(lab.open("203.0.113.7")));
        assert!(lab.open("203.0.113.7"));
        assert!(!lab.open("203.0.113.7"), "a place is kept for a while");
        assert_eq!((lab.alive("203.0.113.7"), lab.counts()), (4, (4, 1, 1)));
        assert_eq!(lab.table.0.refusals.counted(Limit::HalfOpenPerIp), 2);
        tokio::time::advance(SOURCE_TURNOVER / 4).await;
        assert!(lab.open("203.0.113.7") && lab.open("203.0.113.8"));
    }

    #[tokio::test(start_paused = true)]
    async fn private_addresses_and_those_that_proved_a_secret_may_have_more() {
        for (ip, limit) in [
            ("127.0.0.1", Limit::HalfOpenPerPrivateIp),
            ("192.0.2.1", Limit::HalfOpenPerPrivateIp),
            ("192.0.2.2", Limit::HalfOpenPerIp),
        ] {
            let mut lab = Lab::new(&[[192, 0, 2, 1]]);
            let most = if limit == Limit::HalfOpenPerIp { 4 } else { 12 };
            assert_eq!((0..14).filter(|_| lab.open(ip)).count(), most + 1);
            assert_eq!((lab.alive(ip), lab.table.0.refusals.counted(limit)), (most, 14 - most as u64), "{ip}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_leave_the_reserved_places_to_those_who_proved_a_secret() {
        let mut lab = Lab::new(&[[192, 0, 2, 1]]);
        lab.fill();
        (0..8).for_each(|_| assert!(lab.open("192.0.2.1")));
        assert_eq!((lab.alive("192.0.2.1"), lab.counts()), (8, (32, 0, 0)));
        assert!(lab.open("198.51.100.1"));
        assert_eq!((lab.alive("192.0.2.1"), lab.alive("203.0.113.")), (8, 23));
    }

    #[tokio::test(start_paused = true)]
    async fn forged_quic_packets_take_no_place_of_tcp() {
        let mut lab = Lab::new(&[]);
        assert!((0..200).all(|number| lab.open_at(format!("203.0.113.{number}"), "udp/1/quic-v1") || number >= 12));
        assert_eq!(lab.counts().0, 12);
        lab.fill();
        assert_eq!(lab.alive("203.0.113."), 12 + 24);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_free_when_the_handshake_has_ended() {
        let mut lab = Lab::new(&[]);
        lab.fill();
        lab.held.clear();
        assert_eq!(lab.counts().0, 0);
        assert!(lab.table.pools().iter().all(|pool| pool.sources.is_empty()));
    }
}
