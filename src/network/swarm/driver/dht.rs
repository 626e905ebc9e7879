//! The DHT: announcements that are looked up, handed to nodes, and, at a node, stored; and who its nodes are.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libp2p::{
    PeerId, identify,
    kad::{self, store::RecordStore},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    identity::PublicKey,
    network::{
        config::NetworkRole,
        observation::Observation,
        peer_id,
        swarm::{
            build::{KAD_PROTOCOL, PUT_QUORUM},
            driver::{Driver, Holders},
        },
    },
    wire::{self, AnnounceError, Announcement},
};

pub(crate) struct Lookup {
    peer: PublicKey,
    found: mpsc::Sender<Announcement>,
}

impl Driver {
    pub(crate) fn look_up(&mut self, peer: PublicKey, found: mpsc::Sender<Announcement>) {
        let query = self.kad().get_record(record_key(&peer));
        self.lookups.insert(query, Lookup { peer, found });
    }

    pub(crate) fn put(&mut self, peer: &PublicKey, signed: Vec<u8>, to: Holders, done: oneshot::Sender<()>) {
        let record = kad::Record::new(record_key(peer), signed);
        let query = match to {
            Holders::Linked => {
                let linked = self.linked_nodes();
                Ok(self.kad().put_record_to(record, linked.into_iter(), PUT_QUORUM))
            }
            Holders::Closest => self.kad().put_record(record, PUT_QUORUM),
        };
        match query {
            Ok(query) => {
                self.puts.insert(query, done);
            }
            Err(error) => tracing::warn!(%error, "could not announce our addresses"),
        }
    }

    fn linked_nodes(&mut self) -> Vec<PeerId> {
        let mut known = Vec::new();
        for bucket in self.kad().kbuckets() {
            known.extend(bucket.iter().map(|entry| *entry.node.key.preimage()));
        }
        known.into_iter().filter(|node| self.swarm.is_connected(node)).take(kad::K_VALUE.get()).collect()
    }

    pub(crate) fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::InboundRequest {
                request: kad::InboundRequest::PutRecord { source, record: Some(record), .. },
            } => self.store_announcement(source, record),
            kad::Event::InboundRequest { request: kad::InboundRequest::GetRecord { present_locally, .. } } => {
                self.stats.update(|counts| match present_locally {
                    true => counts.lookups_found += 1,
                    false => counts.lookups_missed += 1,
                });
            }
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => match result {
                kad::QueryResult::GetRecord(result) => self.on_lookup(id, result.ok(), step.last),
                kad::QueryResult::PutRecord(_) => {
                    if let Some(done) = self.puts.remove(&id) {
                        let _ = done.send(());
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// A node takes an announcement from its owner's own connection only, signed, and newer than the one it has: then
    /// filling our store costs a connection per record, and nobody can bring back an old one.
    fn store_announcement(&mut self, source: PeerId, mut record: kad::Record) {
        let Some(peer) = peer_id::public_key(&source) else { return };
        if record.key != record_key(&peer) {
            tracing::debug!(%peer, "refused an announcement for somebody else");
            self.stats.update(|counts| counts.records_refused.not_owner += 1);
            return;
        }
        let announcement = match Announcement::verify(&record.value, &peer, SystemTime::now()) {
            Ok(announcement) => announcement,
            Err(error) => {
                tracing::debug!(%peer, %error, "refused an announcement");
                self.stats.update(|counts| match error {
                    AnnounceError::Signature { .. } => counts.records_refused.signature += 1,
                    _ => counts.records_refused.malformed += 1,
                });
                return;
            }
        };
        let stored = self.kad().store_mut().get(&record.key).map(|stored| stored.value.clone());
        let stored = stored.and_then(|bytes| Announcement::verify(&bytes, &peer, SystemTime::now()).ok());
        if stored.is_some_and(|stored| !announcement.supersedes(&stored)) {
            tracing::debug!(%peer, "refused an announcement that is not newer");
            self.stats.update(|counts| counts.records_refused.stale += 1);
            return;
        }
        let expires_at = UNIX_EPOCH + Duration::from_secs(announcement.expires_at_unix_s);
        let left = expires_at.duration_since(SystemTime::now()).unwrap_or_default();
        // Whoever wants to stay known announces again: what is made up fills the store only for so long.
        record.expires = Some(std::time::Instant::now() + left.min(MOST_KEPT));
        record.publisher = Some(source);
        if self.kad().store_mut().put(record.clone()).is_err() {
            self.forget_the_first_to_expire();
            if let Err(error) = self.kad().store_mut().put(record) {
                tracing::warn!(%peer, %error, "no room for an announcement");
                self.stats.update(|counts| counts.records_refused.full += 1);
                return;
            }
            self.stats.update(|counts| counts.records_displaced += 1);
        }
        self.stats.update(|counts| counts.records_stored += 1);
        self.count_records();
        // It announces again and again: over the connection that it has.
        self.links.keep(peer);
    }

    pub(crate) fn count_records(&mut self) {
        let records = self.kad().store_mut().records().len() as u64;
        self.stats.update(|counts| counts.records = records);
    }

    /// Whoever is still there announces again every few minutes, so the first to expire is the likeliest to be gone.
    fn forget_the_first_to_expire(&mut self) {
        let store = self.kad().store_mut();
        let first = store.records().min_by_key(|record| record.expires).map(|record| record.key.clone());
        if let Some(key) = first {
            store.remove(&key);
        }
    }

    fn on_lookup(&mut self, id: kad::QueryId, found: Option<kad::GetRecordOk>, last: bool) {
        let Some(lookup) = self.lookups.get(&id) else { return };
        // Our own store says only what we have put there ourselves.
        if let Some(kad::GetRecordOk::FoundRecord(kad::PeerRecord { peer: Some(node), record })) = found {
            match Announcement::verify(&record.value, &lookup.peer, SystemTime::now()) {
                // A full queue has the answers of more nodes than there should be.
                Ok(answer) => drop(lookup.found.try_send(answer)),
                Err(error) => {
                    tracing::debug!(peer = %lookup.peer, %node, %error, "a node answered with a bad announcement");
                    let _ = self.observations.send(Observation::Disbelieved { peer: lookup.peer, error });
                }
            }
        }
        if last || lookup.found.is_closed() {
            self.lookups.remove(&id);
            if let Some(mut query) = self.kad().query_mut(&id) {
                query.finish();
            }
        }
    }

    /// A peer that speaks our DHT is put into the routing table at the addresses it listens on, if they are at the
    /// host that it came from: nobody can send our queries to somebody else.
    pub(crate) fn learn_node(&mut self, peer: PeerId, info: &identify::Info) {
        if !info.protocols.contains(&KAD_PROTOCOL) {
            return;
        }
        let remote = peer_id::public_key(&peer).and_then(|key| self.links.address(&key));
        let Some(host) = remote.as_ref().and_then(peer_id::ip) else { return };
        for address in info.listen_addrs.iter().take(MAX_NODE_ADDRESSES) {
            if peer_id::is_dialable(address) && peer_id::ip(address) == Some(host) {
                self.kad().add_address(&peer, address.clone());
                if self.role == NetworkRole::Node
                    && let Some(key) = peer_id::public_key(&peer)
                    && self.nodes.len() < MAX_NODES
                {
                    self.nodes.insert(key);
                    self.links.keep(key);
                }
            }
        }
    }

    /// A node keeps links to peers that announce themselves, and to other nodes.
    pub(crate) fn let_go_of_the_forgotten(&mut self) {
        let links = self.links.clone();
        self.nodes.retain(|node| links.path(node).is_some());
        for peer in links.kept() {
            let announced = self.kad().store_mut().get(&record_key(&peer)).is_some();
            if !announced && !self.nodes.contains(&peer) {
                links.let_go(&peer);
            }
        }
    }

    pub(crate) fn kad(&mut self) -> &mut kad::Behaviour<kad::store::MemoryStore> {
        &mut self.swarm.behaviour_mut().kad
    }
}

fn record_key(peer: &PublicKey) -> kad::RecordKey {
    kad::RecordKey::new(&wire::record_key(peer))
}

const MOST_KEPT: Duration = Duration::from_secs(60 * 60);
/// Other nodes that a node keeps links to.
const MAX_NODES: usize = 256;
const MAX_NODE_ADDRESSES: usize = 16;
