//! The lobby's group: what hosts say of themselves, and the list that they ask for.
//!
//! A host is a [`Beacon`](crate::registry::Beacon) of a kind of its own, with a lease, so it is stored, counted and exported as
//! any other. A peer has one. Its name is its holder's while that has a link, or lost it a moment ago; afterwards another peer may
//! take it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "nats")]
use super::metrics::ScraperMetrics;
#[cfg(feature = "nats")]
use crate::lobby::Bus;
use crate::{
    identity::PublicKey,
    lobby::{Group, Host, LabelsChange, LabelsError, NoList, Others, beside},
    network::{InboundStream, LinkStream, Network},
    registry::{Beacon, BeaconName, Registry},
    telemetry::Chain,
    wire::{
        Hi, Hosts, LobbyHost, LobbyRefusal, LobbyReply, LobbyRequest,
        lobby::{MAX_LEN, receive, send},
    },
};

/// The kind of the beacons that are hosts; one of [`OWN_KINDS`](crate::registry::OWN_KINDS).
const KIND: &str = "narthex/lobby";
/// After the start hosts have so long to come back before a list is given: some may have ended meanwhile.
const START_GRACE: Duration = Duration::from_secs(20);
/// How long after the loss of its link a host keeps its name.
const RECONNECT_GRACE: Duration = Duration::from_secs(10);
/// A list is made anew after this time.
const FRESH: Duration = Duration::from_millis(500);
/// Requests that are answered at once; further streams are closed, and their peers ask again.
const PLACES: usize = 256;
/// The same of one peer.
const PLACES_PER_PEER: usize = 4;
/// Longest time for a request to come, and for its answer to be sent.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Limits of the time that a host asks to be listed for.
const TTL: std::ops::RangeInclusive<u32> = 2..=86_400;
/// Bytes of a part of the list: a host, whose data has at most 64 KiB, fits beside them.
const PART: usize = MAX_LEN / 2;

/// The group that a scraper keeps. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lobby {
    registry: Registry,
    network: Network,
    /// Another group, whose hosts are in the list.
    others: Option<Arc<dyn Others>>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// From when on there is a list; unset before the table is loaded.
    complete_at: OnceLock<Instant>,
    /// The host of each peer.
    hosts: Mutex<HashMap<PublicKey, String>>,
    last: Mutex<Option<List>>,
}

/// The list as of a moment.
#[derive(Clone)]
struct List {
    hosts: Arc<[LobbyHost]>,
    /// Not 0.
    version: u64,
    made_at: Instant,
}

/// Places of the requests under way: of all peers, and of each that has some.
struct Places {
    all: Arc<Semaphore>,
    of_peers: HashMap<PublicKey, Arc<Semaphore>>,
}

/// A host as its beacon's data.
#[derive(Deserialize, Serialize)]
struct Stored {
    labels: Vec<String>,
    peer: String,
}

impl Lobby {
    pub(super) fn new(registry: Registry, network: Network) -> Self {
        Self { registry, network, others: None, state: Arc::default() }
    }

    /// Lists these hosts, too.
    #[cfg(feature = "nats")]
    pub(super) fn beside(self, others: impl Others) -> Self {
        Self { others: Some(Arc::new(others)), ..self }
    }

    /// Says the hosts on a bus, and hears those of others, until `stop` fires. Our hosts run on when the scraper ends.
    #[cfg(feature = "nats")]
    pub(super) async fn keep_bus(self, bus: Bus, metrics: Arc<ScraperMetrics>, stop: CancellationToken) {
        let own = async || {
            metrics.set_lobby_nats(bus.is_failing(), bus.len());
            self.own_hosts().ok().map(|hosts| hosts.iter().map(Host::from).collect())
        };
        bus.keep(own, false, stop).await;
    }

    /// Answers requests until `stop` fires.
    pub(super) async fn run(self, mut inbox: mpsc::Receiver<InboundStream>, stop: CancellationToken) {
        let mut generation = self.registry.changes();
        if stop.run_until_cancelled(generation.wait_for(|generation| *generation > 0)).await.is_none() {
            return;
        }
        self.load();
        let (mut places, mut answering) = (Places::new(), JoinSet::new());
        while let Some(Some(inbound)) = stop.run_until_cancelled(inbox.recv()).await {
            while answering.try_join_next().is_some() {}
            // Strangers, who hold no alias, take no place.
            let is_known = self.registry.is_holder(&inbound.peer);
            let Some(place) = is_known.then(|| places.take(inbound.peer)).flatten() else {
                tracing::debug!(peer = %inbound.peer, "no place for a request of the lobby");
                continue;
            };
            let lobby = self.clone();
            answering.spawn(async move {
                let _place = place;
                let InboundStream { peer, mut stream } = inbound;
                if let Err(error) = lobby.answer(peer, &mut stream).await {
                    tracing::debug!(%peer, error = %Chain(&error), "a request of the lobby broke off");
                }
            });
        }
    }

    /// Notes who has which host. Where there were some before the start, a list has to wait for them.
    fn load(&self) {
        let beacons = self.registry.beacons_of(KIND).ok().flatten();
        let grace = if beacons.is_some() { START_GRACE } else { Duration::ZERO };
        let hosts = beacons.iter().flatten();
        let of_peers = hosts.filter_map(|beacon| Some((Stored::of(beacon)?.peer()?, beacon.name.key().to_owned())));
        self.hosts().extend(of_peers);
        let _ = self.state.complete_at.set(Instant::now() + grace);
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<PublicKey, String>> {
        self.state.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, peer: PublicKey, stream: &mut LinkStream) -> std::io::Result<()> {
        let request = time::timeout(TIMEOUT, receive(stream)).await??;
        let replies = match self.reply(peer, request).await {
            Ok(replies) => replies,
            Err(refusal) => vec![LobbyReply::Refused(refusal)],
        };
        for reply in replies {
            time::timeout(TIMEOUT, send(stream, &reply)).await??;
        }
        Ok(())
    }

    async fn reply(&self, peer: PublicKey, request: LobbyRequest) -> Result<Vec<LobbyReply>, LobbyRefusal> {
        match request {
            LobbyRequest::Hi(hi) => self.hi(peer, hi).await.map(|()| vec![LobbyReply::Done]),
            LobbyRequest::Goodbye { hostname } => {
                let name = self.free_for(peer, &hostname)?;
                self.forget(&name).await?;
                Ok(vec![LobbyReply::Done])
            }
            LobbyRequest::List { known } => {
                let list = self.list().map_err(|_| LobbyRefusal::Unavailable)?;
                Ok(parts(&list, known))
            }
        }
    }

    async fn hi(&self, peer: PublicKey, hi: Hi) -> Result<(), LobbyRefusal> {
        let Hi { hostname, labels, ttl_seconds } = hi;
        let name = self.free_for(peer, &hostname)?;
        let host = Host::new(hostname, labels, 0).map_err(|_| LobbyRefusal::Invalid)?;
        let other = self.hosts().insert(peer, host.hostname.clone()).filter(|other| *other != host.hostname);
        if let Some(other) = other
            && let Ok(other) = self.free_for(peer, &other)
        {
            self.forget(&other).await?;
        }
        let data =
            serde_json::to_string(&Stored { labels: host.labels, peer: peer.to_string() }).expect("text is JSON");
        let lease = Duration::from_secs(ttl_seconds.clamp(*TTL.start(), *TTL.end()).into());
        let beacon = Beacon::new(name, data, Some(lease), SystemTime::now()).map_err(|_| LobbyRefusal::Invalid)?;
        match self.registry.register_beacon(beacon).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(LobbyRefusal::Full),
            Err(_) => Err(LobbyRefusal::Unavailable),
        }
    }

    async fn forget(&self, name: &BeaconName) -> Result<(), LobbyRefusal> {
        self.registry.unregister_beacon(name).await.map(drop).map_err(|_| LobbyRefusal::Unavailable)
    }

    /// The name of the host's beacon, if the peer may have it.
    fn free_for(&self, peer: PublicKey, hostname: &str) -> Result<BeaconName, LobbyRefusal> {
        let name = BeaconName::new(KIND, hostname).map_err(|_| LobbyRefusal::Invalid)?;
        let held = self.registry.beacon(&name).map_err(|_| LobbyRefusal::Unavailable)?;
        let holder = held.and_then(|beacon| Stored::of(&beacon)?.peer()).filter(|holder| *holder != peer);
        let links = self.network.links();
        let is_here = |holder: &PublicKey| {
            links.path(holder).is_some() || links.lost_for(holder).is_some_and(|lost| lost < RECONNECT_GRACE)
        };
        let is_coming = self.state.complete_at.get().is_none_or(|at| Instant::now() < *at);
        match holder {
            Some(holder) if is_coming || is_here(&holder) => Err(LobbyRefusal::Taken),
            _ => Ok(name),
        }
    }

    fn list(&self) -> Result<List, NoList> {
        let is_complete = self.state.complete_at.get().is_some_and(|at| Instant::now() >= *at);
        if !is_complete || !self.registry.is_complete() {
            return Err(NoList(
                "the scraper has just started, or lost a part of its table: hosts are coming back".to_owned(),
            ));
        }
        let mut last = self.state.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = last.as_ref().filter(|list| list.made_at.elapsed() < FRESH) {
            return Ok(list.clone());
        }
        let mut hosts = self.own_hosts()?;
        if let Some(others) = &self.others {
            hosts = beside(hosts, others.hosts()?);
        }
        let list = List::after(last.as_ref(), hosts.into());
        Ok(last.insert(list).clone())
    }

    /// The hosts that peers have said, in the order of their names.
    pub(super) fn own_hosts(&self) -> Result<Vec<LobbyHost>, NoList> {
        let beacons = self.registry.beacons_of(KIND).map_err(|error| NoList(error.to_string()))?;
        let hosts = beacons.unwrap_or_default().into_iter().filter_map(|beacon| {
            let (end, lease) = beacon.expires_at.zip(beacon.lease)?;
            let seen = end.checked_sub(lease).and_then(|seen| seen.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            let (hostname, labels) = (beacon.name.key().to_owned(), Stored::of(&beacon)?.labels);
            let Host { hostname, labels, last_check } = Host::new(hostname, labels, seen.as_secs()).ok()?;
            let ttl_seconds = u32::try_from(lease.as_secs()).unwrap_or(u32::MAX);
            Some(LobbyHost { hostname, labels, seen: last_check, ttl_seconds })
        });
        Ok(hosts.collect())
    }
}

impl List {
    /// A list of these hosts. Its version is that of the last one if that says the same, each host's last hi included: callers of
    /// the API are shown it.
    fn after(last: Option<&Self>, hosts: Arc<[LobbyHost]>) -> Self {
        let same = last.filter(|last| last.hosts == hosts);
        let version = same.map_or_else(|| rand::random_range(1..=u64::MAX), |last| last.version);
        Self { hosts, version, made_at: Instant::now() }
    }
}

impl Places {
    fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(PLACES)), of_peers: HashMap::new() }
    }

    /// A place, the peer's until it is dropped.
    fn take(&mut self, peer: PublicKey) -> Option<[OwnedSemaphorePermit; 2]> {
        self.of_peers.retain(|_, of_peer| of_peer.available_permits() < PLACES_PER_PEER);
        let of_all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let of_peer = self.of_peers.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(PLACES_PER_PEER)));
        Some([of_all, Arc::clone(of_peer).try_acquire_owned().ok()?])
    }
}

impl Stored {
    /// `None` for a beacon that came by another way.
    fn of(beacon: &Beacon) -> Option<Self> {
        serde_json::from_str(&beacon.data).ok()
    }

    fn peer(&self) -> Option<PublicKey> {
        self.peer.parse().ok()
    }
}

/// A scraper answers for the group, and is no host of it.
impl Group for Lobby {
    async fn own(&self) -> Result<Host, LabelsError> {
        let hostname = gethostname::gethostname().to_string_lossy().into_owned();
        Host::new(hostname, Vec::new(), 0).map_err(|error| LabelsError::Failed(error.to_string()))
    }

    async fn hosts(&self) -> Result<Arc<[Host]>, NoList> {
        self.list().map(|list| list.hosts.iter().map(Host::from).collect())
    }

    async fn change(&self, _: LabelsChange, _: Vec<String>) -> Result<(), LabelsError> {
        Err(LabelsError::Invalid("a scraper is no host of the group: change the labels at an agent".to_owned()))
    }
}

/// The list in messages, unless the peer knows it.
fn parts(List { hosts, version, .. }: &List, known: u64) -> Vec<LobbyReply> {
    let version = *version;
    if version == known {
        return vec![LobbyReply::Unchanged];
    }
    let mut parts = vec![Hosts { version, hosts: Vec::new(), more: false }];
    let mut len = 0;
    for host in hosts.iter().cloned() {
        len += 32 + host.hostname.len() + host.labels.iter().map(|label| label.len() + 5).sum::<usize>();
        if len > PART
            && let Some(part) = parts.last_mut()
            && !part.hosts.is_empty()
        {
            part.more = true;
            parts.push(Hosts { version, hosts: Vec::new(), more: false });
            len = 0;
        }
        if let Some(part) = parts.last_mut() {
            part.hosts.push(host);
        }
    }
    parts.into_iter().map(LobbyReply::Hosts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::KeyPair, wire::codec};

    fn host(name: &str, labels: &[String]) -> LobbyHost {
        LobbyHost { hostname: name.to_owned(), labels: labels.to_vec(), seen: 5, ttl_seconds: 30 }
    }

    #[test]
    fn a_long_list_comes_in_parts_that_fit_and_a_known_one_does_not() {
        let many: Vec<String> = (0..45).map(|n| format!("{n}:{}", "x".repeat(1000))).collect();
        let hosts: Vec<LobbyHost> = (100..130).map(|n| host(&format!("h-{n}"), &many)).collect();
        let list = List::after(None, hosts.clone().into());
        let parts = parts(&list, 0);
        assert!(parts.len() > 5);
        let mut names = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            assert!(codec::encode(part).is_ok());
            let LobbyReply::Hosts(part) = part else { panic!("{part:?}") };
            assert_eq!(part.more, at + 1 < parts.len());
            names.extend(part.hosts.iter().map(|host| host.hostname.clone()));
        }
        assert_eq!(names, hosts.iter().map(|host| host.hostname.clone()).collect::<Vec<_>>());
        assert_eq!(super::parts(&list, list.version), [LobbyReply::Unchanged]);
        let empty = List { hosts: Arc::default(), version: 2, made_at: Instant::now() };
        let part = Hosts { version: 2, hosts: Vec::new(), more: false };
        assert_eq!(super::parts(&empty, 1), [LobbyReply::Hosts(part)]);
    }

    #[test]
    fn a_list_keeps_its_version_while_it_says_the_same() {
        let first = List::after(None, [host("h", &[])].into());
        let version = |hosts: &[LobbyHost]| List::after(Some(&first), hosts.into()).version;
        assert_eq!(version(&[host("h", &[])]), first.version);
        let later = LobbyHost { seen: 6, ..host("h", &[]) };
        for other in [&[][..], &[host("h", &["a".to_owned()])], &[later]] {
            assert_ne!(version(other), first.version, "{other:?}");
        }
    }

    #[test]
    fn a_peer_has_its_places_and_no_more_until_one_is_free() {
        let (mut places, [one, other]) = (Places::new(), [(); 2].map(|()| KeyPair::generate().public()));
        let mut taken: Vec<_> = (0..PLACES_PER_PEER).map(|_| places.take(one).expect("a place")).collect();
        assert!(places.take(one).is_none());
        assert!(places.take(other).is_some());
        taken.pop();
        taken.push(places.take(one).expect("a place is free again"));
        assert!(places.take(one).is_none());
        drop(taken);
        assert_eq!(places.all.available_permits(), PLACES);
        drop(places.take(other));
        assert_eq!(places.of_peers.len(), 1, "peers without a request are forgotten");
    }
}
