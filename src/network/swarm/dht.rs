//! The DHT, as everybody uses it: looks announcements up, hands ours to nodes, and knows which peers are nodes.
//!
//! The routing table has the nodes that we were told of, and no others. Whoever could enter by claiming to be a node could
//! make keys that are closest to a scraper's: the scraper would hand its announcement to them alone, and clients would ask
//! nobody else. A query goes from our nodes to the nodes that these were told of, and on.

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

#[cfg(feature = "scraper")]
use libp2p::Swarm;
use libp2p::{
    Multiaddr, PeerId, identify,
    kad::{self, store::MemoryStore},
};
use tokio::sync::mpsc;
#[cfg(feature = "scraper")]
use tokio::sync::{broadcast, oneshot};

#[cfg(feature = "scraper")]
use crate::network::{
    command::Holders,
    observation::Observation,
    swarm::{boxed::Boxed, build::Behaviour},
};
use crate::{
    identity::PublicKey,
    network::{address, links::table::Links, peer_id, protocols::KAD_PROTOCOL},
    wire::{self, Announcement},
};

/// A node accepts every announcement, and keeps the good ones: its answer counts for nothing.
#[cfg(feature = "scraper")]
const PUT_QUORUM: kad::Quorum = kad::Quorum::One;
/// Addresses of a node that are taken from its identify message.
const MAX_NODE_ADDRESSES: usize = 16;

pub(crate) type Kad = kad::Behaviour<MemoryStore>;

struct Lookup {
    peer: PublicKey,
    found: mpsc::Sender<Announcement>,
}

pub(crate) struct Dht {
    /// The nodes that we were told of.
    nodes: HashSet<PeerId>,
    lookups: HashMap<kad::QueryId, Lookup>,
    #[cfg(feature = "scraper")]
    puts: HashMap<kad::QueryId, oneshot::Sender<()>>,
    #[cfg(feature = "scraper")]
    observations: Option<broadcast::Sender<Observation>>,
}

impl Dht {
    pub(crate) fn new(nodes: HashSet<PeerId>) -> Self {
        Self {
            nodes,
            lookups: HashMap::new(),
            #[cfg(feature = "scraper")]
            puts: HashMap::new(),
            #[cfg(feature = "scraper")]
            observations: None,
        }
    }

    #[cfg(feature = "scraper")]
    pub(crate) fn report_to(&mut self, observations: broadcast::Sender<Observation>) {
        self.observations = Some(observations);
    }

    pub(crate) fn look_up(&mut self, kad: &mut Kad, peer: PublicKey, found: mpsc::Sender<Announcement>) {
        let query = kad.get_record(record_key(&peer));
        self.lookups.insert(query, Lookup { peer, found });
    }

    #[cfg(feature = "scraper")]
    pub(crate) fn put(
        &mut self,
        swarm: &mut Swarm<Boxed<Behaviour>>,
        peer: &PublicKey,
        signed: Vec<u8>,
        to: Holders,
        done: oneshot::Sender<()>,
    ) {
        let record = kad::Record::new(record_key(peer), signed);
        let query = match to {
            Holders::Linked => {
                let linked = linked_nodes(swarm);
                Ok(swarm.behaviour_mut().0.kad.put_record_to(record, linked.into_iter(), PUT_QUORUM))
            }
            Holders::Closest => swarm.behaviour_mut().0.kad.put_record(record, PUT_QUORUM),
        };
        match query {
            Ok(query) => {
                self.puts.insert(query, done);
            }
            Err(error) => tracing::warn!(%error, "could not announce our addresses"),
        }
    }

    pub(crate) fn on_progress(&mut self, kad: &mut Kad, id: kad::QueryId, result: kad::QueryResult, last: bool) {
        match result {
            kad::QueryResult::GetRecord(result) => self.on_lookup(kad, id, result.ok(), last),
            #[cfg(feature = "scraper")]
            kad::QueryResult::PutRecord(_) => {
                if let Some(done) = self.puts.remove(&id) {
                    let _ = done.send(());
                }
            }
            _ => {}
        }
    }

    /// True for a peer that says that it answers the DHT.
    pub(crate) fn is_node(info: &identify::Info) -> bool {
        info.protocols.contains(&KAD_PROTOCOL)
    }

    /// The addresses that a node of ours listens on, as far as they are at the host that it is connected from. Empty for
    /// any other peer.
    pub(crate) fn node_addresses(&self, links: &Links, peer: &PeerId, info: &identify::Info) -> Vec<Multiaddr> {
        if !self.nodes.contains(peer) || !Self::is_node(info) {
            return Vec::new();
        }
        let remote = peer_id::public_key(peer).and_then(|key| links.address(&key));
        let Some(host) = remote.as_ref().and_then(address::ip) else { return Vec::new() };
        let at_its_host = |own: &&Multiaddr| address::is_dialable(own) && address::ip(own) == Some(host);
        info.listen_addrs.iter().take(MAX_NODE_ADDRESSES).filter(at_its_host).cloned().collect()
    }

    fn on_lookup(&mut self, kad: &mut Kad, id: kad::QueryId, found: Option<kad::GetRecordOk>, last: bool) {
        let Some(lookup) = self.lookups.get(&id) else { return };
        // An answer without a peer is from our own store, which holds only what we have put there ourselves.
        if let Some(kad::GetRecordOk::FoundRecord(kad::PeerRecord { peer: Some(node), record })) = found {
            match Announcement::verify(&record.value, &lookup.peer, SystemTime::now()) {
                // A full queue has the answers of more nodes than there should be.
                Ok(answer) => drop(lookup.found.try_send(answer)),
                Err(error) => {
                    tracing::debug!(peer = %lookup.peer, %node, %error, "a node answered with a bad announcement");
                    #[cfg(feature = "cli")]
                    if let Some(observations) = &self.observations {
                        let _ = observations.send(Observation::InvalidAnnouncement { peer: lookup.peer, error });
                    }
                }
            }
        }
        if last || lookup.found.is_closed() {
            self.lookups.remove(&id);
            if let Some(mut query) = kad.query_mut(&id) {
                query.finish();
            }
        }
    }
}

#[cfg(feature = "scraper")]
fn linked_nodes(swarm: &mut Swarm<Boxed<Behaviour>>) -> Vec<PeerId> {
    let mut known = Vec::new();
    for bucket in swarm.behaviour_mut().0.kad.kbuckets() {
        known.extend(bucket.iter().map(|entry| *entry.node.key.preimage()));
    }
    known.into_iter().filter(|node| swarm.is_connected(node)).take(kad::K_VALUE.get()).collect()
}

pub(crate) fn record_key(peer: &PublicKey) -> kad::RecordKey {
    kad::RecordKey::new(&wire::record_key(peer))
}
