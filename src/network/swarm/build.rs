//! How the libp2p swarm is put together: transports, behaviours, limits.

use std::{collections::HashSet, sync::Arc, time::Duration};

use libp2p::{
    PeerId, StreamProtocol, Swarm, SwarmBuilder, Transport, autonat, connection_limits,
    core::upgrade::Version,
    dcutr, identify,
    identity::Keypair,
    kad::{self, store::MemoryStore, store::MemoryStoreConfig},
    memory_connection_limits, noise, quic, relay,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    yamux,
};
use libp2p_websocket as websocket;

use crate::{
    network::{
        config::{NetworkConfig, NetworkRole, nodes_pinged_every},
        error::NetworkError,
        peer_id,
        swarm::{
            dial_back,
            limits::{Inbound, InboundCounters},
            node_stats::NodeStats,
            observed, pinger,
            relay::server,
            stream_behaviour,
        },
        transport::{proxy::Proxies, roots, tcp},
    },
    wire::Announcement,
};

#[cfg(feature = "mdns")]
use crate::network::swarm::nearby;

/// Everything that runs on each connection.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    // The limits come first: a connection they deny costs the others nothing.
    totals: connection_limits::Behaviour,
    memory: memory_connection_limits::Behaviour,
    inbound: Inbound,
    pub(crate) streams: stream_behaviour::Behaviour,
    pub(crate) kad: kad::Behaviour<MemoryStore>,
    identify: super::identify::Behaviour,
    ping: pinger::Behaviour,
    /// A node carries circuits of others; the rest hold their ends.
    relay: Toggle<server::Behaviour>,
    relay_client: relay::client::Behaviour,
    pub(crate) observed: observed::Behaviour,
    pub(crate) dcutr: Toggle<dcutr::Behaviour>,
    nat_client: Toggle<dial_back::Behaviour>,
    nat_server: Toggle<autonat::v2::server::Behaviour>,
    #[cfg(feature = "mdns")]
    nearby: Toggle<nearby::Behaviour>,
}

/// Our own DHT: nothing is shared with the public IPFS one.
pub(crate) const KAD_PROTOCOL: StreamProtocol = StreamProtocol::new("/narthex/kad/1");

const IDENTIFY_PROTOCOL: &str = "/narthex/1";

pub(crate) fn build(
    keypair: Keypair,
    config: &NetworkConfig,
    streams: stream_behaviour::Behaviour,
    inbound: Arc<InboundCounters>,
    stats: NodeStats,
    proxies: Arc<Proxies>,
    #[cfg(feature = "mdns")] nearby: Option<nearby::Behaviour>,
) -> Result<Swarm<Behaviour>, NetworkError> {
    let (role, local) = (config.role, keypair.public().to_peer_id());
    let nodes: HashSet<PeerId> = config.bootstrap.iter().map(|node| peer_id::peer_id(&node.key)).collect();
    let is_node = role == NetworkRole::Node;
    let asks_dial_back = role == NetworkRole::Scraper || config.asks_dial_back;
    let behaviour = |keypair: &Keypair, relay_client: relay::client::Behaviour| Behaviour {
        totals: connection_limits::Behaviour::new(
            connection_limits::ConnectionLimits::default()
                .with_max_established_per_peer(Some(config.limits.connections_per_peer))
                .with_max_established(Some(config.limits.connections)),
        ),
        memory: memory_connection_limits::Behaviour::with_max_percentage(MOST_MEMORY),
        inbound: Inbound::new(max_handshakes(role), config.limits.connections_per_address, inbound),
        streams,
        kad: kademlia(local, config),
        identify: super::identify::Behaviour::new(
            identify::Config::new(IDENTIFY_PROTOCOL.to_owned(), keypair.public())
                .with_agent_version(concat!("narthex/", env!("CARGO_PKG_VERSION")).to_owned())
                .with_push_listen_addr_updates(false)
                .with_interval(Duration::from_secs(24 * 60 * 60))
                .with_hide_listen_addrs(role == NetworkRole::Client)
                .with_cache_size(0),
        ),
        ping: pinger::Behaviour::new(nodes.clone(), nodes_pinged_every(role), config.ping_every.clone()),
        relay: config.relay.map(|limits| server::Behaviour::new(local, limits, stats)).into(),
        relay_client,
        observed: observed::Behaviour::default(),
        dcutr: (!is_node && config.hole_punching).then(|| dcutr::Behaviour::new(local)).into(),
        nat_client: asks_dial_back.then(|| dial_back::Behaviour::new(nodes.clone())).into(),
        nat_server: is_node.then(autonat::v2::server::Behaviour::default).into(),
        #[cfg(feature = "mdns")]
        nearby: nearby.into(),
    };
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_quic_config(|quic| quic_config(quic, role))
        .with_other_transport(|keypair| {
            let tcp = tcp::Transport::new(Arc::clone(&proxies)).upgrade(Version::V1Lazy);
            Ok(tcp.authenticate(noise::Config::new(keypair)?).multiplex(yamux_config()))
        })
        .map_err(|source| NetworkError::Transport { source: source.into() })?
        .with_other_transport(|keypair| {
            let mut websocket = websocket::Config::new(tcp::Transport::new(Arc::clone(&proxies)).below_websocket());
            websocket.set_tls_config(roots::roots()).set_max_data_size(MAX_WEBSOCKET_FRAME);
            let websocket = websocket.upgrade(Version::V1Lazy);
            Ok(websocket.authenticate(noise::Config::new(keypair)?).multiplex(yamux_config()))
        })
        .map_err(|source| NetworkError::Transport { source: source.into() })?
        .with_relay_client(noise::Config::new, yamux_config)
        .map_err(|source| NetworkError::Transport { source: source.into() })?
        .with_behaviour(behaviour)
        .unwrap_or_else(|never| match never {})
        .with_swarm_config(|swarm| {
            swarm
                .with_idle_connection_timeout(IDLE_TIMEOUT)
                .with_max_negotiating_inbound_streams(max_negotiating(role))
                // Proposes and uses a protocol in one flight: half the cost of a new stream.
                .with_substream_upgrade_protocol_override(Version::V1Lazy)
        })
        .with_connection_timeout(HANDSHAKE_TIMEOUT)
        .build();
    Ok(swarm)
}

fn kademlia(local: PeerId, NetworkConfig { role, limits, .. }: &NetworkConfig) -> kad::Behaviour<MemoryStore> {
    let node = *role == NetworkRole::Node;
    let mut config = kad::Config::new(KAD_PROTOCOL);
    config
        .set_query_timeout(QUERY_TIMEOUT)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_max_packet_size(MAX_KAD_PACKET)
        // Owners announce again and again by themselves; what nobody announces any more shall be forgotten.
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_caching(kad::Caching::Disabled)
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        // Only nodes need to know many others.
        .set_periodic_bootstrap_interval(node.then_some(BOOTSTRAP_EVERY));
    let store = MemoryStoreConfig {
        max_records: if node { limits.announcements } else { 1 },
        max_value_bytes: Announcement::MAX_LEN,
        max_providers_per_key: 0,
        max_provided_keys: 0,
    };
    let mut kad = kad::Behaviour::with_config(local, MemoryStore::with_config(local, store), config);
    // Only public helpers get into other peers' tables: a peer behind NAT there costs everybody a timeout.
    kad.set_mode(Some(if node { kad::Mode::Server } else { kad::Mode::Client }));
    kad
}

/// What a connection may pin is its streams times their window of 256 KiB, which yamux fills before we read.
pub(crate) fn yamux_config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(MAX_STREAMS);
    config
}

/// Towards a scraper a peer opens a few streams; a scraper opens up to [`MAX_PULL_STREAMS`] of its own on the same
/// connection. Between a relay and a scraper each circuit is one; those that find no place are refused.
pub(crate) const MAX_STREAMS: usize = MAX_PULL_STREAMS + 32;

/// Circuits that a relay builds over one connection: what is left is for the other end's streams, and for those that
/// are being closed.
pub(crate) fn max_circuits(is_tcp: bool) -> usize {
    let streams = if is_tcp { MAX_STREAMS } else { MAX_QUIC_STREAMS as usize };
    streams - 16
}

/// A client listens for the sake of hole punching only.
pub(crate) fn max_handshakes(role: NetworkRole) -> usize {
    match role {
        NetworkRole::Client => 16,
        // A thousand at once take longer than each of them has, and are all begun again.
        NetworkRole::Scraper | NetworkRole::Node => 512,
    }
}

fn max_negotiating(role: NetworkRole) -> usize {
    match role {
        NetworkRole::Client => MAX_PULL_STREAMS,
        NetworkRole::Scraper | NetworkRole::Node => 8,
    }
}

pub(crate) fn quic_config(mut config: quic::Config, role: NetworkRole) -> quic::Config {
    config.handshake_timeout = Duration::from_secs(2);
    // Nothing but silence tells that the other side, or a NAT's mapping, is gone.
    config.max_idle_timeout = 25_000;
    // One side keeps the path alive, the one that has few links.
    config.keep_alive_interval = match role {
        NetworkRole::Client => Duration::from_secs(10),
        NetworkRole::Scraper | NetworkRole::Node => RARELY,
    };
    // What a hostile peer can pin: the defaults are 10 and 15 MB, and no faster.
    config.max_stream_data = 256 * 1024;
    config.max_connection_data = 1024 * 1024;
    // Those few bytes bound what all streams can pin together, so that a relay may have one for each of many circuits.
    config.max_concurrent_stream_limit = MAX_QUIC_STREAMS;
    config
}

const RARELY: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Noise writes some 200 KiB at once.
const MAX_WEBSOCKET_FRAME: usize = 1024 * 1024;
/// For strangers; peers that are kept stay however long they are idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Part of the machine's memory beyond which no further connection is taken.
const MOST_MEMORY: f64 = 0.7;
/// Pulls from one peer at once; further ones wait.
pub(crate) const MAX_PULL_STREAMS: usize = 64;
pub(crate) const MAX_QUIC_STREAMS: u32 = 1024;
const BOOTSTRAP_EVERY: Duration = Duration::from_secs(5 * 60);
/// One signed announcement and the closest peers fit.
const MAX_KAD_PACKET: usize = 16 * 1024;

/// A node says yes to every announcement, and keeps the good ones: its answer counts for nothing.
pub(crate) const PUT_QUORUM: kad::Quorum = kad::Quorum::One;
