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

use blake2::{Blake2s256, Digest};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    identity::PublicKey,
    lobby::{Group, Host, LabelsChange, LabelsError, NoList},
    network::{InboundStream, LinkStream, Network},
    registry::{Beacon, BeaconName, Registry},
    telemetry::Chain,
    wire::{
        Hi, Hosts, LobbyHost, LobbyRefusal, LobbyReply, LobbyRequest,
        codec::MAX_MESSAGE_LEN,
        lobby::{receive, send},
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
const PART: usize = MAX_MESSAGE_LEN / 2;

/// The group that a scraper keeps. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lobby {
    registry: Registry,
    network: Network,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// From when on there is a list; unset before the table is loaded.
    complete_at: OnceLock<Instant>,
    /// The host of each peer.
    hosts: Mutex<HashMap<PublicKey, String>>,
    last: Mutex<Option<(Instant, List)>>,
}

/// A list, and its version.
#[derive(Clone)]
struct List {
    hosts: Arc<[Host]>,
    ttls: Arc<[u32]>,
    version: u64,
}

/// A host as its beacon's data.
#[derive(Deserialize, Serialize)]
struct Stored {
    labels: Vec<String>,
    peer: String,
}

impl Lobby {
    pub(super) fn new(registry: Registry, network: Network) -> Self {
        Self { registry, network, state: Arc::default() }
    }

    /// Answers requests until `stop` fires.
    pub(super) async fn run(self, mut inbox: mpsc::Receiver<InboundStream>, stop: CancellationToken) {
        let mut generation = self.registry.changes();
        if stop.run_until_cancelled(generation.wait_for(|generation| *generation > 0)).await.is_none() {
            return;
        }
        self.load();
        let (places, mut answering) = (Arc::new(Semaphore::new(PLACES)), JoinSet::new());
        let mut of_peer: HashMap<PublicKey, usize> = HashMap::new();
        while let Some(Some(inbound)) = stop.run_until_cancelled(inbox.recv()).await {
            while let Some(Ok(peer)) = answering.try_join_next() {
                if let Some(count) = of_peer.get_mut(&peer) {
                    *count -= 1;
                }
                of_peer.retain(|_, count| *count > 0);
            }
            // Strangers, who hold no alias, take no place.
            let own = of_peer.get(&inbound.peer).copied().unwrap_or(0);
            let may_ask = self.registry.is_holder(&inbound.peer) && own < PLACES_PER_PEER;
            let Some(place) = Arc::clone(&places).try_acquire_owned().ok().filter(|_| may_ask) else {
                tracing::debug!(peer = %inbound.peer, "no place for a request of the lobby");
                continue;
            };
            *of_peer.entry(inbound.peer).or_default() += 1;
            let lobby = self.clone();
            answering.spawn(async move {
                let _place = place;
                let InboundStream { peer, mut stream } = inbound;
                if let Err(error) = lobby.answer(peer, &mut stream).await {
                    tracing::debug!(%peer, error = %Chain(&error), "a request of the lobby broke off");
                }
                peer
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
        if !self.registry.is_loaded() {
            return Err(LobbyRefusal::Unavailable);
        }
        if !self.registry.is_holder(&peer) {
            return Err(LobbyRefusal::Unproved);
        }
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
        if let Some((at, list)) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(list.clone());
        }
        let beacons = self.registry.beacons_of(KIND).map_err(|error| NoList(error.to_string()))?;
        let hosts = beacons.unwrap_or_default().into_iter().filter_map(|beacon| {
            let (end, lease) = beacon.expires_at.zip(beacon.lease)?;
            let seen = end.checked_sub(lease).and_then(|seen| seen.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            let (hostname, labels) = (beacon.name.key().to_owned(), Stored::of(&beacon)?.labels);
            let host = Host::new(hostname, labels, seen.as_secs()).ok()?;
            Some((host, u32::try_from(lease.as_secs()).unwrap_or(u32::MAX)))
        });
        let (hosts, ttls): (Vec<_>, Vec<_>) = hosts.unzip();
        let list = List { version: version(&hosts), hosts: hosts.into(), ttls: ttls.into() };
        *last = Some((Instant::now(), list.clone()));
        Ok(list)
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
        self.list().map(|list| list.hosts)
    }

    async fn change(&self, _: LabelsChange, _: Vec<String>) -> Result<(), LabelsError> {
        Err(LabelsError::Invalid("a scraper is no host of the group: change the labels at an agent".to_owned()))
    }
}

/// The list in messages, unless the peer knows it.
fn parts(List { hosts, ttls, version }: &List, known: u64) -> Vec<LobbyReply> {
    let version = *version;
    if version == known {
        return vec![LobbyReply::Unchanged];
    }
    let mut parts = vec![Hosts { version, hosts: Vec::new(), more: false }];
    let mut len = 0;
    for (Host { hostname, labels, last_check }, ttl_seconds) in hosts.iter().cloned().zip(ttls.iter().copied()) {
        len += 32 + hostname.len() + labels.iter().map(|label| label.len() + 5).sum::<usize>();
        if len > PART
            && let Some(part) = parts.last_mut()
            && !part.hosts.is_empty()
        {
            part.more = true;
            parts.push(Hosts { version, hosts: Vec::new(), more: false });
            len = 0;
        }
        if let Some(part) = parts.last_mut() {
            part.hosts.push(LobbyHost { hostname, labels, seen: last_check, ttl_seconds });
        }
    }
    parts.into_iter().map(LobbyReply::Hosts).collect()
}

/// Of what the list says; not 0.
fn version(hosts: &[Host]) -> u64 {
    let text = serde_json::to_vec(hosts).expect("text is JSON");
    let digest: [u8; 32] = Blake2s256::digest(&text).into();
    u64::from_le_bytes(*digest.first_chunk().expect("32 bytes")).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec;

    fn host(name: &str, labels: &[String]) -> Host {
        Host::new(name.to_owned(), labels.to_vec(), 5).expect("fit")
    }

    #[test]
    fn a_long_list_comes_in_parts_that_fit_and_a_known_one_does_not() {
        let many: Vec<String> = (0..45).map(|n| format!("{n}:{}", "x".repeat(1000))).collect();
        let hosts: Vec<Host> = (100..130).map(|n| host(&format!("h-{n}"), &many)).collect();
        let list =
            |hosts: &[Host]| List { hosts: hosts.into(), ttls: vec![30; hosts.len()].into(), version: version(hosts) };
        let parts = parts(&list(&hosts), 0);
        assert!(parts.len() > 5);
        let mut names = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            assert!(codec::encode(part).is_ok());
            let LobbyReply::Hosts(part) = part else { panic!("{part:?}") };
            assert_eq!(part.more, at + 1 < parts.len());
            names.extend(part.hosts.iter().map(|host| host.hostname.clone()));
        }
        assert_eq!(names, hosts.iter().map(|host| host.hostname.clone()).collect::<Vec<_>>());
        assert_eq!(super::parts(&list(&hosts), version(&hosts)), [LobbyReply::Unchanged]);
        assert!(
            matches!(&super::parts(&list(&[]), 1)[..], [LobbyReply::Hosts(Hosts { hosts, more: false, .. })] if hosts.is_empty())
        );
    }
}
