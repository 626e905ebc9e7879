//! A peer of the DHT driven by the test, also to what no narthex peer would do: it puts any bytes under any key,
//! and answers look-ups with whatever it was given.
//!
//! Plain libp2p, so that the test does not depend on the code that it tests.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify,
    identity::{Keypair, PublicKey as Libp2pKey, ed25519},
    kad::{
        self,
        store::{MemoryStore, MemoryStoreConfig, RecordStore},
    },
    multiaddr::Protocol,
    noise, ping,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use narthex::{
    identity::{KeyPair, PeerAddr, PublicKey},
    wire,
};
use tokio::time::timeout;

use super::{SOON, ports::free_port};

/// Far more than any narthex peer takes.
const MOST_BYTES: usize = 1024 * 1024;

#[derive(NetworkBehaviour)]
struct Behaviour {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

/// The peer. It does something only while one of its methods runs.
pub(crate) struct DhtPeer {
    swarm: Swarm<Behaviour>,
    key: KeyPair,
}

impl DhtPeer {
    /// Joins the DHT of this node.
    pub(crate) async fn join(key: &KeyPair, node: &PeerAddr) -> Self {
        let identity = Keypair::ed25519_from_bytes(*key.seed()).expect("a seed of 32 bytes");
        let mut swarm = SwarmBuilder::with_existing_identity(identity)
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .expect("a transport")
            .with_behaviour(behaviour)
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
            .build();
        let at = multiaddr(node);
        swarm.behaviour_mut().kad.add_address(&peer_id(&node.key), at.clone());
        swarm.dial(at).expect("the node's address can be dialled");
        let mut peer = Self { swarm, key: key.clone() };
        peer.until(|event| matches!(event, SwarmEvent::ConnectionEstablished { .. }).then_some(())).await;
        peer
    }

    /// Joins further nodes.
    pub(crate) async fn join_also(&mut self, nodes: &[PeerAddr]) {
        for node in nodes {
            let at = multiaddr(node);
            self.swarm.behaviour_mut().kad.add_address(&peer_id(&node.key), at.clone());
            self.swarm.dial(at).expect("the node's address can be dialled");
            self.until(|event| matches!(event, SwarmEvent::ConnectionEstablished { .. }).then_some(())).await;
        }
    }

    /// Puts a record to every node, and returns when each has answered, whatever it does with it.
    pub(crate) async fn put(&mut self, about: &PublicKey, value: &[u8]) {
        let record = kad::Record::new(wire::record_key(about), value.to_vec());
        // The own store takes a record only if it replaces the last one.
        self.swarm.behaviour_mut().kad.store_mut().retain(|_, _| false);
        let query = self.swarm.behaviour_mut().kad.put_record(record, kad::Quorum::All).expect("put");
        self.until(|event| match event {
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed { id, step, .. })) => {
                (*id == query && step.last).then_some(())
            }
            _ => None,
        })
        .await;
        self.swarm.behaviour_mut().kad.store_mut().retain(|_, _| false);
    }

    /// The nodes' answers about a peer, each answer once.
    pub(crate) async fn answers(&mut self, about: &PublicKey) -> BTreeSet<Vec<u8>> {
        let query = self.swarm.behaviour_mut().kad.get_record(wire::record_key(about).into());
        let mut answers = BTreeSet::new();
        self.until(|event| {
            let SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                result: kad::QueryResult::GetRecord(result),
                step,
                ..
            })) = event
            else {
                return None;
            };
            if let Ok(kad::GetRecordOk::FoundRecord(found)) = result {
                answers.insert(found.record.value.clone());
            }
            (*id == query && step.last).then_some(())
        })
        .await;
        answers
    }

    /// Puts an announcement of its own again and again, until it is all that the nodes answer to `reader`.
    pub(crate) async fn publish(&mut self, value: &[u8], reader: &mut Self) {
        let about = self.key.public();
        let held = async {
            loop {
                self.put(&about, value).await;
                if reader.answers(&about).await == [value.to_vec()].into() {
                    return;
                }
            }
        };
        timeout(SOON, held).await.expect("the nodes take it");
    }

    /// Becomes a node that answers look-ups for `about` with `value` for the rest of the test.
    pub(crate) async fn answer(mut self, about: &PublicKey, value: Vec<u8>) -> PeerAddr {
        let port = free_port();
        let at: SocketAddr = super::ports::loopback(port);
        self.swarm.listen_on(Multiaddr::from(at.ip()).with(Protocol::Tcp(at.port()))).expect("the port is free");
        self.until(|event| matches!(event, SwarmEvent::NewListenAddr { .. }).then_some(())).await;
        let kad = &mut self.swarm.behaviour_mut().kad;
        kad.set_mode(Some(kad::Mode::Server));
        kad.store_mut().put(kad::Record::new(wire::record_key(about), value)).expect("room for a record");
        // The node asked who we are before we were one ourselves; others ask when they first meet us.
        let nodes: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        self.swarm.behaviour_mut().identify.push(nodes);
        let peer = PeerAddr::at(self.key.public(), "127.0.0.1", port);
        tokio::spawn(async move {
            loop {
                self.swarm.select_next_some().await;
            }
        });
        peer
    }

    /// Keys whose place in the DHT is closest to that of `about`'s announcement, of `tries` new ones.
    pub(crate) fn ground_keys(about: &PublicKey, count: usize, tries: usize) -> Vec<KeyPair> {
        let mut keys: Vec<KeyPair> = (0..tries).map(|_| KeyPair::generate()).collect();
        keys.sort_by_cached_key(|key| Self::distance(&key.public(), about));
        keys.truncate(count);
        keys
    }

    /// How far a node is from the announcement of `about`.
    pub(crate) fn distance(node: &PublicKey, about: &PublicKey) -> kad::KBucketDistance {
        let record = kad::KBucketKey::new(kad::RecordKey::new(&wire::record_key(about)).to_vec());
        kad::KBucketKey::from(peer_id(node)).distance(&record)
    }

    async fn until<T>(&mut self, mut pick: impl FnMut(&SwarmEvent<BehaviourEvent>) -> Option<T>) -> T {
        let picked = async {
            loop {
                let event = self.swarm.select_next_some().await;
                if let SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                    peer_id,
                    info,
                    ..
                })) = &event
                {
                    for address in &info.listen_addrs {
                        self.swarm.behaviour_mut().kad.add_address(peer_id, address.clone());
                    }
                }
                if let Some(picked) = pick(&event) {
                    return picked;
                }
            }
        };
        timeout(SOON, picked).await.expect("the DHT answers")
    }
}

fn behaviour(identity: &Keypair) -> Behaviour {
    let local = identity.public().to_peer_id();
    let mut config = kad::Config::new(StreamProtocol::new("/narthex/kad/1"));
    // What others put is dropped, as a node would that hides them.
    config.set_max_packet_size(MOST_BYTES).set_record_filtering(kad::StoreInserts::FilterBoth);
    let store = MemoryStoreConfig { max_value_bytes: MOST_BYTES, ..MemoryStoreConfig::default() };
    let mut kad = kad::Behaviour::with_config(local, MemoryStore::with_config(local, store), config);
    kad.set_mode(Some(kad::Mode::Client));
    let identify = identify::Behaviour::new(identify::Config::new("/narthex/1".into(), identity.public()));
    // Whoever does not answer pings is disconnected.
    Behaviour { kad, identify, ping: ping::Behaviour::default() }
}

fn peer_id(key: &PublicKey) -> PeerId {
    Libp2pKey::from(ed25519::PublicKey::try_from_bytes(key.as_bytes()).expect("a key")).to_peer_id()
}

fn multiaddr(peer: &PeerAddr) -> Multiaddr {
    let hint = peer.hint.as_ref().expect("a node with its address");
    Multiaddr::from(hint.host_port().ip().expect("an IP address")).with(Protocol::Tcp(hint.host_port().port))
}
