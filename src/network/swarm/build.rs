//! How the libp2p swarm is put together: transports, behaviours, limits.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

#[cfg(any(feature = "scraper", feature = "node"))]
use libp2p::memory_connection_limits;
use libp2p::{
    PeerId, Swarm, Transport,
    core::{
        ConnectedPoint,
        muxing::{StreamMuxer, StreamMuxerBox},
        transport::timeout::TransportTimeout,
        upgrade::Version,
    },
    identify,
    identity::Keypair,
    kad::{self, store::MemoryStore, store::MemoryStoreConfig},
    noise, quic, relay,
    swarm::{self, NetworkBehaviour, behaviour::toggle::Toggle},
};
use libp2p_websocket as websocket;

#[cfg(feature = "scraper")]
use crate::network::swarm::dial_back;
#[cfg(feature = "mdns")]
use crate::network::swarm::nearby;
#[cfg(feature = "node")]
use crate::network::swarm::{dial_back_server, node_stats::NodeStats, relay::server};
use crate::{
    network::{
        config::{NetworkConfig, NetworkLimits, NetworkRole, nodes_pinged_every},
        error::NetworkError,
        links::{proved::ProvedNetworks, table::Links},
        protocols::{IDENTIFY_PROTOCOL, KAD_PROTOCOL},
        swarm::{
            boxed::Boxed,
            hole_punch, identify as own_identify,
            limits::{self, Limits},
            pinger,
            relay::client,
            stream_behaviour,
            wrapped::Wrapped,
        },
        transport::{
            admission::Admission,
            answered::Answered,
            close::CloseInTime,
            half_open::HalfOpen,
            inbound::InboundCounters,
            muxing::{MAX_PULL_STREAMS, quic_config, yamux_config},
            proxy::Proxies,
            refusal::Gate,
            roots, tcp,
        },
    },
    telemetry::Refusals,
    wire::Announcement,
};

/// A handshake takes three round trips, and time at a busy peer. Strangers gain nothing by it: whoever needs the place of a
/// silent connection has it evicted, however young that is.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Half-open connections at a client, which listens for the sake of hole punching only.
const CLIENT_HALF_OPEN: usize = 32;
/// A dead node among those asked costs this much; the others have answered long before.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Noise writes some 200 KiB at once.
const MAX_WEBSOCKET_FRAME: usize = 1024 * 1024;
/// For strangers; peers that are kept stay however long they are idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer's addresses are asked for once: those that matter are announced in the DHT.
const IDENTIFY_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// Part of the machine's memory beyond which no further connection is taken.
#[cfg(any(feature = "scraper", feature = "node"))]
const MOST_MEMORY: f64 = 0.7;
/// Nodes that hold one announcement.
const MOST_HOLDERS: NonZeroUsize = NonZeroUsize::new(100).expect("not zero");
/// How often a node looks for others.
const BOOTSTRAP_EVERY: Duration = Duration::from_secs(5 * 60);
/// One signed announcement and the closest peers fit.
const MAX_KAD_PACKET: usize = 16 * 1024;

/// Everything that runs on each connection.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    // The limits come first: a connection they deny costs the others nothing.
    /// A client opens its few connections itself.
    #[cfg(any(feature = "scraper", feature = "node"))]
    memory: Toggle<memory_connection_limits::Behaviour>,
    limits: Wrapped<Limits>,
    streams: Wrapped<stream_behaviour::Behaviour>,
    pub(crate) kad: kad::Behaviour<MemoryStore>,
    pub(crate) identify: Wrapped<own_identify::Behaviour>,
    ping: Wrapped<pinger::Behaviour>,
    /// A node carries circuits of others; the rest hold their ends.
    #[cfg(feature = "node")]
    relay: Toggle<Wrapped<server::Behaviour>>,
    pub(crate) relay_client: Wrapped<client::Behaviour>,
    pub(crate) dcutr: Toggle<Wrapped<hole_punch::Behaviour>>,
    #[cfg(feature = "scraper")]
    nat_client: Toggle<Wrapped<dial_back::Behaviour>>,
    #[cfg(feature = "node")]
    nat_server: Toggle<Wrapped<dial_back_server::Behaviour>>,
    #[cfg(feature = "mdns")]
    nearby: Toggle<Wrapped<nearby::Behaviour>>,
}

/// What the behaviours share with the network's handle.
pub(crate) struct Parts {
    pub(crate) streams: stream_behaviour::Behaviour,
    pub(crate) links: Links,
    pub(crate) inbound: Arc<InboundCounters>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) proved: Arc<ProvedNetworks>,
    #[cfg(feature = "node")]
    pub(crate) stats: NodeStats,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) answered: Answered,
    #[cfg(feature = "mdns")]
    pub(crate) nearby: Option<nearby::Behaviour>,
}

pub(crate) fn build(
    keypair: Keypair,
    config: &NetworkConfig,
    parts: Parts,
) -> Result<Swarm<Boxed<Behaviour>>, NetworkError> {
    let (role, local) = (config.role, keypair.public().to_peer_id());
    let nodes = config.nodes();
    let (proxies, answered) = (parts.proxies, parts.answered);
    let limits = match role {
        NetworkRole::Client => NetworkLimits { half_open: CLIENT_HALF_OPEN, ..config.limits },
        #[cfg(any(feature = "scraper", feature = "node"))]
        _ => config.limits,
    };
    let half_open =
        HalfOpen::new(limits, Arc::clone(&parts.proved), Arc::clone(&parts.inbound), Arc::clone(&parts.refusals));
    let (relayed, relay_client) = relay::client::new(local);
    let gate = match role.is_node() {
        true => limits::gate(&parts.links, limits, &parts.inbound, &parts.refusals),
        false => Gate::open(),
    };
    let transport = Admission::new(transport(&keypair, role, &proxies, &answered, gate, relayed)?, half_open);
    let behaviour = Behaviour {
        #[cfg(any(feature = "scraper", feature = "node"))]
        memory: (role != NetworkRole::Client)
            .then(|| memory_connection_limits::Behaviour::with_max_percentage(MOST_MEMORY))
            .into(),
        limits: Wrapped(Limits::new(
            config.limits,
            role,
            parts.links.clone(),
            parts.proved,
            parts.inbound,
            Arc::clone(&parts.refusals),
        )),
        streams: Wrapped(parts.streams),
        kad: kademlia(local, config),
        identify: Wrapped(own_identify::Behaviour::new(
            identify::Config::new(IDENTIFY_PROTOCOL.to_owned(), keypair.public())
                .with_agent_version(concat!("narthex/", env!("CARGO_PKG_VERSION")).to_owned())
                .with_push_listen_addr_updates(false)
                .with_interval(IDENTIFY_EVERY)
                .with_hide_listen_addrs(role == NetworkRole::Client)
                .with_cache_size(0),
        )),
        ping: Wrapped(pinger::Behaviour::new(nodes.clone(), nodes_pinged_every(role), config.ping_every.clone())),
        #[cfg(feature = "node")]
        relay: config
            .relay
            .map(|limits| {
                let (stats, refusals) = (parts.stats.clone(), Arc::clone(&parts.refusals));
                Wrapped(server::Behaviour::new(local, limits, &config.relay_for, stats, refusals))
            })
            .into(),
        relay_client: Wrapped(client::Behaviour::new(relay_client)),
        dcutr: (!role.is_node() && config.hole_punching)
            .then(|| Wrapped(hole_punch::Behaviour::new(local, parts.links)))
            .into(),
        #[cfg(feature = "scraper")]
        nat_client: (role.is_scraper() || config.asks_dial_back)
            .then(|| Wrapped(dial_back::Behaviour::new(nodes)))
            .into(),
        #[cfg(feature = "node")]
        nat_server: role
            .is_node()
            .then(|| Wrapped(dial_back_server::Behaviour::new(config.dial_back, parts.stats, parts.refusals)))
            .into(),
        #[cfg(feature = "mdns")]
        nearby: parts.nearby.map(Wrapped).into(),
    };
    let swarm_config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_TIMEOUT)
        .with_max_negotiating_inbound_streams(max_negotiating(role))
        // Proposes and uses a protocol in one flight: half the cost of a new stream.
        .with_substream_upgrade_protocol_override(Version::V1Lazy);
    Ok(Swarm::new(TransportTimeout::new(transport, HANDSHAKE_TIMEOUT).boxed(), Boxed(behaviour), local, swarm_config))
}

/// All ways to a peer and from one, each with its handshake.
fn transport(
    keypair: &Keypair,
    role: NetworkRole,
    proxies: &Arc<Proxies>,
    answered: &Answered,
    gate: Gate,
    relayed: relay::client::Transport,
) -> Result<
    impl Transport<Output = (PeerId, StreamMuxerBox), Error: Send + Sync, ListenerUpgrade: Send, Dial: Send>
    + Send
    + Unpin
    + use<>,
    NetworkError,
> {
    let noise = noise::Config::new(keypair).map_err(|source| NetworkError::Transport { source: source.into() })?;
    let tcp = || tcp::Transport::new(Arc::clone(proxies), answered.clone(), gate.clone());
    let mut websocket = websocket::Config::new(tcp().below_websocket());
    websocket.set_tls_config(roots::roots()).set_max_data_size(MAX_WEBSOCKET_FRAME);
    let quic = quic::tokio::Transport::new(quic_config(quic::Config::new(keypair), role));
    let tcp = tcp().upgrade(Version::V1Lazy);
    let (websocket, relayed) = (websocket.upgrade(Version::V1Lazy), relayed.upgrade(Version::V1Lazy));
    let tcp = tcp.authenticate(noise.clone()).multiplex(yamux_config());
    let websocket = websocket.authenticate(noise.clone()).multiplex(yamux_config());
    let relayed = relayed.authenticate(noise).multiplex(yamux_config());
    Ok(relayed
        .map(boxed)
        .or_transport(quic.map(boxed))
        .map(|either, _| either.into_inner())
        .or_transport(tcp.map(boxed))
        .map(|either, _| either.into_inner())
        .or_transport(websocket.map(boxed))
        .map(|either, _| either.into_inner()))
}

fn boxed<M>((peer, muxer): (PeerId, M), _: ConnectedPoint) -> (PeerId, StreamMuxerBox)
where
    M: StreamMuxer<Substream: Send + 'static, Error: Send + Sync + 'static> + Send + Unpin + 'static,
{
    (peer, StreamMuxerBox::new(CloseInTime::new(muxer)))
}

fn kademlia(
    local: PeerId,
    NetworkConfig { role, limits, bootstrap, .. }: &NetworkConfig,
) -> kad::Behaviour<MemoryStore> {
    let node = role.is_node();
    let mut config = kad::Config::new(KAD_PROTOCOL);
    config
        .set_query_timeout(QUERY_TIMEOUT)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_max_packet_size(MAX_KAD_PACKET)
        // Owners announce again and again by themselves; what nobody announces any more expires.
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_caching(kad::Caching::Disabled)
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        // Only nodes need to know many others.
        .set_periodic_bootstrap_interval(node.then_some(BOOTSTRAP_EVERY));
    if !node {
        // The others know the nodes that they were told of, and libp2p allocates all 256 buckets at once: 1.7 MB of full size.
        config.set_kbucket_size(
            NonZeroUsize::new(bootstrap.len()).map_or(NonZeroUsize::MIN, |told| told.min(kad::K_VALUE)),
        );
    }
    if role.is_scraper() {
        // A scraper hands its announcement to every node that there is, so that no choice of keys hides it.
        config.set_replication_factor(MOST_HOLDERS);
    }
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

/// Inbound streams of a connection that are in negotiation.
fn max_negotiating(role: NetworkRole) -> usize {
    if role == NetworkRole::Client { MAX_PULL_STREAMS } else { 8 }
}

#[cfg(test)]
mod tests {
    use libp2p::swarm::THandler;

    use super::*;
    use crate::identity::{KeyPair, PeerAddr};

    #[test]
    fn the_task_of_a_connection_holds_a_pointer_to_its_handlers() {
        assert_eq!(size_of::<THandler<Boxed<Behaviour>>>(), size_of::<usize>());
        assert!(size_of::<THandler<Behaviour>>() > 1024, "what is small need not be boxed");
    }

    #[test]
    fn a_client_knows_every_node_that_it_was_told_of() {
        for told in [1, 2, 10] {
            let address = "192.0.2.1:19961";
            let node = || format!("{}@{address}", KeyPair::generate().public()).parse::<PeerAddr>().expect("a node");
            let bootstrap: Vec<_> = (0..told).map(|_| node()).collect();
            let config = NetworkConfig { bootstrap, ..NetworkConfig::new(NetworkRole::Client) };
            let mut kad = kademlia(PeerId::random(), &config);
            for node in config.nodes() {
                kad.add_address(&node, "/ip4/192.0.2.1/tcp/19961".parse().expect("an address"));
            }
            let known: usize = kad.kbuckets().map(|bucket| bucket.num_entries()).sum();
            assert_eq!(known, told);
        }
    }
}
