//! The DHT, as a node serves it: stores announcements, and keeps links to their owners and to the other nodes.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use libp2p::{
    PeerId,
    kad::{self, store::RecordStore},
};
use tokio::sync::watch;

use crate::{
    identity::PublicKey,
    ip_network,
    network::{
        address,
        config::NetworkLimits,
        links::table::Links,
        peer_id,
        swarm::{
            announcements::{Announcements, Full},
            dht::{Kad, record_key},
            node_stats::NodeStats,
        },
    },
    telemetry::{Limit, Refusals},
    wire::{AnnounceError, Announcement},
};

/// Peers that want to stay known announce again after a few minutes. Announcements that are made up fill the store for so
/// long.
const MOST_KEPT: Duration = Duration::from_secs(60 * 60);
/// Other nodes that a node keeps links to.
const MAX_NODES: usize = 256;

pub(crate) struct DhtServer {
    links: Links,
    stats: NodeStats,
    refusals: Arc<Refusals>,
    announcements: Announcements,
    nodes: HashSet<PublicKey>,
    /// The latest announcements of peers that are followed.
    followed: HashMap<PublicKey, watch::Sender<Option<Vec<u8>>>>,
}

impl DhtServer {
    pub(crate) fn new(links: Links, stats: NodeStats, refusals: Arc<Refusals>, limits: &NetworkLimits) -> Self {
        let announcements = Announcements::new(limits.announcements, limits.announcements_per_network);
        Self { links, stats, refusals, announcements, nodes: HashSet::new(), followed: HashMap::new() }
    }

    /// A peer has got its first link, or lost its last.
    pub(crate) fn on_link(&mut self, peer: &PeerId, linked: bool) {
        if let Some(key) = peer_id::public_key(peer) {
            self.announcements.set_linked(&key, linked);
        }
    }

    pub(crate) fn on_request(&mut self, kad: &mut Kad, request: kad::InboundRequest) {
        match request {
            kad::InboundRequest::PutRecord { source, record: Some(record), .. } => self.store(kad, source, record),
            kad::InboundRequest::GetRecord { present_locally, .. } => {
                self.stats.update(|counts| match present_locally {
                    true => counts.lookups_found += 1,
                    false => counts.lookups_missed += 1,
                });
            }
            _ => {}
        }
    }

    /// A node takes an announcement from its owner's own connection only, signed, and newer than the one it has: then
    /// filling our store costs a connection per record, and nobody can bring back an old one.
    fn store(&mut self, kad: &mut Kad, source: PeerId, mut record: kad::Record) {
        let Some(peer) = peer_id::public_key(&source) else { return };
        // From its owner?
        if record.key != record_key(&peer) {
            tracing::debug!(%peer, "refused an announcement for another peer");
            self.stats.update(|counts| counts.records_refused.not_owner += 1);
            return;
        }
        // Signed, and well formed?
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
        // Newer than the stored one?
        let stored = kad.store_mut().get(&record.key).map(|stored| stored.value.clone());
        let stored = stored.and_then(|bytes| Announcement::verify(&bytes, &peer, SystemTime::now()).ok());
        if stored.is_some_and(|stored| !announcement.supersedes(&stored)) {
            tracing::debug!(%peer, "refused an announcement that is not newer");
            self.stats.update(|counts| counts.records_refused.stale += 1);
            return;
        }
        // Kept from now for as long as its owner means, within bounds: its owner's clock may be slow, and the announcement is
        // fresh, as it comes from its owner.
        let expires = Instant::now() + announcement.life().unwrap_or(MOST_KEPT).min(MOST_KEPT);
        record.expires = Some(expires);
        record.publisher = Some(source);
        if let Err(full) = self.make_room(kad, &peer, expires) {
            tracing::debug!(%peer, %full, "no room for an announcement");
            self.stats.update(|counts| counts.records_refused.full += 1);
            return;
        }
        if let Some(latest) = self.followed.get(&peer) {
            latest.send_replace(Some(record.value.clone()));
        }
        if let Err(error) = kad.store_mut().put(record) {
            tracing::warn!(%peer, %error, "could not keep an announcement");
            self.announcements.remove(&peer);
            return;
        }
        self.stats.update(|counts| counts.records_stored += 1);
        self.count_records();
        // The peer announces again and again: over the connection that it has.
        self.links.keep(peer);
    }

    /// The latest announcement of a peer, now and as later ones come.
    pub(crate) fn follow(&mut self, kad: &mut Kad, peer: PublicKey) -> watch::Receiver<Option<Vec<u8>>> {
        let mut known = || kad.store_mut().get(&record_key(&peer)).map(|stored| stored.value.clone());
        self.followed.entry(peer).or_insert_with(|| watch::Sender::new(known())).subscribe()
    }

    /// One who followed the peer does so no more.
    pub(crate) fn unfollow(&mut self, peer: &PublicKey) {
        if self.followed.get(peer).is_some_and(|latest| latest.receiver_count() == 0) {
            self.followed.remove(peer);
        }
    }

    /// Enters the owner of an announcement; forgets another announcement if there is no room.
    fn make_room(&mut self, kad: &mut Kad, owner: &PublicKey, expires: Instant) -> Result<(), Full> {
        let ip = self.links.address(owner).as_ref().and_then(address::ip).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let network = ip_network::of_owner(ip);
        let in_the_way = self.announcements.in_the_way(owner, network).inspect_err(|full| {
            if *full == Full::Network {
                self.refusals.count(Limit::AnnouncementsPerNetwork, network);
            }
        })?;
        if let Some(gone) = in_the_way {
            self.announcements.remove(&gone);
            kad.store_mut().remove(&record_key(&gone));
            self.stats.update(|counts| counts.records_displaced += 1);
        }
        self.announcements.insert(*owner, network, expires);
        Ok(())
    }

    pub(crate) fn on_node(&mut self, peer: &PeerId) {
        if let Some(key) = peer_id::public_key(peer)
            && self.nodes.len() < MAX_NODES
        {
            self.nodes.insert(key);
            self.links.keep(key);
        }
    }

    pub(crate) fn sweep(&mut self, kad: &mut Kad) {
        for expired in self.announcements.expired(Instant::now()) {
            self.announcements.remove(&expired);
            kad.store_mut().remove(&record_key(&expired));
        }
        self.count_records();
        self.let_go(kad);
    }

    /// A node keeps links to peers that announce themselves, and to other nodes.
    fn let_go(&mut self, kad: &mut Kad) {
        self.nodes.retain(|node| self.links.path(node).is_some());
        for peer in self.links.kept() {
            let announced = kad.store_mut().get(&record_key(&peer)).is_some();
            if !announced && !self.nodes.contains(&peer) {
                self.links.let_go(&peer);
            }
        }
    }

    fn count_records(&self) {
        let records = self.announcements.len() as u64;
        self.stats.update(|counts| counts.records = records);
    }
}
