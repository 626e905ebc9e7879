//! How the libp2p swarm is put together: transports, behaviours, limits.

use std::time::Duration;

use libp2p::{
    PeerId, StreamProtocol, Swarm, SwarmBuilder, connection_limits,
    core::upgrade::Version,
    identify,
    identity::Keypair,
    kad::{self, store::MemoryStore, store::MemoryStoreConfig},
    memory_connection_limits, noise, ping, quic,
    swarm::NetworkBehaviour,
    tcp, yamux,
};
use rand::Rng;

use crate::wire::Announcement;

use super::{
    NetworkError,
    config::{NetworkConfig, NetworkRole},
    limits::PerAddress,
    streams,
};

/// Everything that runs on each connection.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    // The limits come first: a connection they deny costs the others nothing.
    totals: connection_limits::Behaviour,
    memory: memory_connection_limits::Behaviour,
    per_address: PerAddress,
    pub(super) streams: streams::Behaviour,
    pub(super) kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

/// Our own DHT: nothing is shared with the public IPFS one.
pub(super) const KAD_PROTOCOL: StreamProtocol = StreamProtocol::new("/narthex/kad/1");

const IDENTIFY_PROTOCOL: &str = "/narthex/1";

pub(super) fn build(
    keypair: Keypair,
    config: &NetworkConfig,
    streams: streams::Behaviour,
) -> Result<Swarm<Behaviour>, NetworkError> {
    let behaviour = |keypair: &Keypair| Behaviour {
        totals: connection_limits::Behaviour::new(
            connection_limits::ConnectionLimits::default()
                .with_max_established_per_peer(Some(config.limits.connections_per_peer))
                .with_max_established(Some(config.limits.connections))
                .with_max_pending_incoming(Some(MAX_PENDING_INCOMING)),
        ),
        memory: memory_connection_limits::Behaviour::with_max_percentage(MOST_MEMORY),
        per_address: PerAddress::new(config.limits.connections_per_address),
        streams,
        kad: kademlia(keypair.public().to_peer_id(), config.role),
        identify: identify::Behaviour::new(
            identify::Config::new(IDENTIFY_PROTOCOL.to_owned(), keypair.public())
                .with_agent_version(concat!("narthex/", env!("CARGO_PKG_VERSION")).to_owned())
                .with_push_listen_addr_updates(false)
                .with_interval(Duration::from_secs(24 * 60 * 60))
                .with_hide_listen_addrs(config.role == NetworkRole::Client)
                .with_cache_size(0),
        ),
        ping: ping::Behaviour::new(
            ping::Config::new().with_interval(ping_interval(config.role)).with_timeout(PING_TIMEOUT),
        ),
    };
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, || yamux_config(config.role))
        .map_err(|source| NetworkError::Transport { source: source.into() })?
        .with_quic_config(|quic| quic_config(quic, config.role))
        .with_behaviour(behaviour)
        .unwrap_or_else(|never| match never {})
        .with_swarm_config(|swarm| {
            swarm
                .with_idle_connection_timeout(IDLE_TIMEOUT)
                .with_max_negotiating_inbound_streams(max_negotiating(config.role))
                // Proposes and uses a protocol in one flight: half the cost of a new stream.
                .with_substream_upgrade_protocol_override(Version::V1Lazy)
        })
        .with_connection_timeout(HANDSHAKE_TIMEOUT)
        .build();
    Ok(swarm)
}

fn kademlia(local: PeerId, role: NetworkRole) -> kad::Behaviour<MemoryStore> {
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
        .set_periodic_bootstrap_interval((role == NetworkRole::Node).then_some(BOOTSTRAP_EVERY));
    let store = MemoryStoreConfig {
        max_records: if role == NetworkRole::Node { MAX_RECORDS } else { 1 },
        max_value_bytes: Announcement::MAX_LEN,
        max_providers_per_key: 0,
        max_provided_keys: 0,
    };
    let mut kad = kad::Behaviour::with_config(local, MemoryStore::with_config(local, store), config);
    // Only public helpers get into other peers' tables: a peer behind NAT there costs everybody a timeout.
    kad.set_mode(Some(if role == NetworkRole::Node { kad::Mode::Server } else { kad::Mode::Client }));
    kad
}

/// What a connection may pin is its streams times their window of 256 KiB, which yamux fills before we read.
fn yamux_config(role: NetworkRole) -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(max_streams(role));
    config
}

/// Towards a scraper a peer opens a few streams; a scraper opens up to [`MAX_PULL_STREAMS`] of its own on the same
/// connection. A node is only ever asked a few questions at once.
fn max_streams(role: NetworkRole) -> usize {
    match role {
        NetworkRole::Node => 32,
        NetworkRole::Client | NetworkRole::Scraper => MAX_PULL_STREAMS + 32,
    }
}

fn max_negotiating(role: NetworkRole) -> usize {
    match role {
        NetworkRole::Client => MAX_PULL_STREAMS,
        NetworkRole::Scraper | NetworkRole::Node => 8,
    }
}

fn quic_config(mut config: quic::Config, role: NetworkRole) -> quic::Config {
    config.handshake_timeout = Duration::from_secs(2);
    config.max_idle_timeout = 45_000;
    // One side keeps the path alive, the one that has few links.
    config.keep_alive_interval = match role {
        NetworkRole::Client => Duration::from_secs(15),
        NetworkRole::Scraper | NetworkRole::Node => RARELY,
    };
    // What a hostile peer can pin: the defaults are 10 and 15 MB, and no faster.
    config.max_stream_data = 256 * 1024;
    config.max_connection_data = 1024 * 1024;
    config.max_concurrent_stream_limit = u32::try_from(max_streams(role)).unwrap_or(u32::MAX);
    config
}

/// A client pings, at 30 to 60 s, so that a silently dead link is noticed on the side that can dial. The others answer,
/// and send the one ping with which the behaviour begins: to a scraped peer the scrape is the ping.
fn ping_interval(role: NetworkRole) -> Duration {
    match role {
        NetworkRole::Client => Duration::from_millis(rand::rng().random_range(30_000..60_000)),
        NetworkRole::Scraper | NetworkRole::Node => RARELY,
    }
}

const RARELY: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// For strangers; peers that are kept stay however long they are idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Part of the machine's memory beyond which no further connection is taken.
const MOST_MEMORY: f64 = 0.7;
const MAX_PENDING_INCOMING: u32 = 4096;
/// Pulls from one peer at once; further ones wait.
pub(crate) const MAX_PULL_STREAMS: usize = 64;
const BOOTSTRAP_EVERY: Duration = Duration::from_secs(5 * 60);
/// One signed announcement and the closest peers fit.
const MAX_KAD_PACKET: usize = 16 * 1024;
/// Announcements a node stores, 4 KiB each at most.
const MAX_RECORDS: usize = 65_536;

/// How many of the nodes closest to a key must take an announcement: one is enough to be found.
pub(super) const PUT_QUORUM: kad::Quorum = kad::Quorum::One;
