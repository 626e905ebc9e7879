//! The lobby's group: what hosts say of themselves, and the list that they ask for.
//!
//! A host is a [`Beacon`](crate::registry::Beacon) of the kind `lobby`, with a lease, so it is stored, counted and exported as
//! any other. Its name is its holder's as long as that has a link; afterwards another peer may take it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use blake2::{Blake2s256, Digest};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time,
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

/// The kind of the beacons that are hosts.
const KIND: &str = "lobby";
/// Requests that are answered at once; further streams are closed, and their peers ask again.
const PLACES: usize = 256;
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
}

/// A host as its beacon's data.
#[derive(Deserialize, Serialize)]
struct Stored {
    labels: Vec<String>,
    peer: String,
}

impl Lobby {
    pub(super) fn new(registry: Registry, network: Network) -> Self {
        Self { registry, network }
    }

    /// Answers requests until `stop` fires.
    pub(super) async fn run(self, mut inbox: mpsc::Receiver<InboundStream>, stop: CancellationToken) {
        let (places, mut answering) = (Arc::new(Semaphore::new(PLACES)), JoinSet::new());
        while let Some(Some(inbound)) = stop.run_until_cancelled(inbox.recv()).await {
            while answering.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
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
                self.registry.unregister_beacon(&name).await.map_err(|_| LobbyRefusal::Unavailable)?;
                Ok(vec![LobbyReply::Done])
            }
            LobbyRequest::List { known } => {
                let hosts = self.list().map_err(|_| LobbyRefusal::Unavailable)?;
                Ok(parts(&hosts, known))
            }
        }
    }

    async fn hi(&self, peer: PublicKey, hi: Hi) -> Result<(), LobbyRefusal> {
        let Hi { hostname, labels, ttl_seconds } = hi;
        let name = self.free_for(peer, &hostname)?;
        let host = Host::new(hostname, labels, 0).map_err(|_| LobbyRefusal::Invalid)?;
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

    /// The name of the host's beacon, if the peer may have it.
    fn free_for(&self, peer: PublicKey, hostname: &str) -> Result<BeaconName, LobbyRefusal> {
        let name = BeaconName::new(KIND, hostname).map_err(|_| LobbyRefusal::Invalid)?;
        let held = self.registry.beacon(&name).map_err(|_| LobbyRefusal::Unavailable)?;
        let holder = held.and_then(|beacon| Stored::of(&beacon)?.peer.parse::<PublicKey>().ok());
        match holder {
            Some(holder) if holder != peer && self.network.links().path(&holder).is_some() => Err(LobbyRefusal::Taken),
            _ => Ok(name),
        }
    }

    fn list(&self) -> Result<Vec<Host>, NoList> {
        if !self.registry.is_loaded() || !self.registry.is_complete() {
            return Err(NoList("the table of hosts is not loaded, or not complete after damage".to_owned()));
        }
        let beacons = self.registry.beacons_of(KIND).map_err(|error| NoList(error.to_string()))?;
        let hosts = beacons.unwrap_or_default().into_iter().filter_map(|beacon| {
            let seen = beacon.expires_at.zip(beacon.lease).and_then(|(end, lease)| end.checked_sub(lease));
            let seen = seen.and_then(|seen| seen.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            Some(Host {
                hostname: beacon.name.key().to_owned(),
                labels: Stored::of(&beacon)?.labels,
                last_check: seen.as_secs(),
            })
        });
        Ok(hosts.collect())
    }
}

impl Stored {
    /// `None` for a beacon that came by another way.
    fn of(beacon: &Beacon) -> Option<Self> {
        serde_json::from_str(&beacon.data).ok()
    }
}

/// A scraper answers for the group, and is no host of it.
impl Group for Lobby {
    async fn own(&self) -> Result<Host, LabelsError> {
        let hostname = gethostname::gethostname().to_string_lossy().into_owned();
        Host::new(hostname, Vec::new(), 0).map_err(|error| LabelsError::Failed(error.to_string()))
    }

    async fn hosts(&self) -> Result<Arc<[Host]>, NoList> {
        self.list().map(Arc::from)
    }

    async fn change(&self, _: LabelsChange, _: Vec<String>) -> Result<(), LabelsError> {
        Err(LabelsError::Invalid("a scraper is no host of the group: change the labels at an agent".to_owned()))
    }
}

/// The list in messages, unless the peer knows it.
fn parts(hosts: &[Host], known: u64) -> Vec<LobbyReply> {
    let version = version(hosts);
    if version == known {
        return vec![LobbyReply::Unchanged];
    }
    let mut parts = vec![Hosts { version, hosts: Vec::new(), more: false }];
    let mut len = 0;
    for Host { hostname, labels, last_check } in hosts.iter().cloned() {
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
            part.hosts.push(LobbyHost { hostname, labels, seen: last_check });
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
        let many: Vec<String> = (0..60).map(|n| format!("{n}:{}", "x".repeat(1000))).collect();
        let hosts: Vec<Host> = (100..120).map(|n| host(&format!("h-{n}"), &many)).collect();
        let parts = parts(&hosts, 0);
        assert!(parts.len() > 5);
        let mut names = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            assert!(codec::encode(part).is_ok());
            let LobbyReply::Hosts(part) = part else { panic!("{part:?}") };
            assert_eq!(part.more, at + 1 < parts.len());
            names.extend(part.hosts.iter().map(|host| host.hostname.clone()));
        }
        assert_eq!(names, hosts.iter().map(|host| host.hostname.clone()).collect::<Vec<_>>());
        assert_eq!(super::parts(&hosts, version(&hosts)), [LobbyReply::Unchanged]);
        assert!(
            matches!(&super::parts(&[], 1)[..], [LobbyReply::Hosts(Hosts { hosts, more: false, .. })] if hosts.is_empty())
        );
    }
}
