//! What a network is configured with.

#[cfg(feature = "node")]
use std::num::NonZeroU32;
use std::{collections::HashSet, ops::Range, path::PathBuf, time::Duration};

use libp2p::PeerId;

use crate::{
    identity::{DialAddress, HostPort, PeerAddr, PublicKey},
    network::{error::NetworkError, peer_id::peer_id},
};

/// How long a relay's reservation holds; its owner renews it at three quarters of that.
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) const RESERVATION: Duration = Duration::from_secs(15 * 60);

/// The port where scrapers and nodes listen for peers, TCP and UDP.
#[cfg(any(feature = "scraper", feature = "node"))]
pub const DEFAULT_P2P_PORT: u16 = 19_961;

/// What a process is on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkRole {
    /// Dials scrapers. Listens only where a hole may have to be punched, and then for its scrapers alone.
    Client,
    /// Is found by its key and keeps many links.
    #[cfg(feature = "scraper")]
    Scraper,
    /// Public helper: answers the DHT, and relays if so configured.
    #[cfg(feature = "node")]
    Node,
}

impl NetworkRole {
    pub(crate) fn is_scraper(self) -> bool {
        !matches!(self, Self::Client) && !self.is_node()
    }

    pub(crate) fn is_node(self) -> bool {
        #[cfg(feature = "node")]
        return self == Self::Node;
        #[cfg(not(feature = "node"))]
        false
    }
}

/// Where to listen, which nodes to know, what peers may cost.
#[derive(Clone, Debug)]
pub(crate) struct NetworkConfig {
    pub(crate) role: NetworkRole,
    /// Each means that TCP port and the same UDP port; port 0 takes a free one.
    pub(crate) listen: Vec<HostPort>,
    /// Where to take WebSocket links, without TLS.
    pub(crate) listen_ws: Vec<HostPort>,
    /// Addresses to announce instead of the ones we listen on.
    pub(crate) external: Vec<DialAddress>,
    /// Nodes through which others are found.
    pub(crate) bootstrap: Vec<PeerAddr>,
    /// True if peers in the local network are found by mDNS, and find us.
    #[cfg(feature = "mdns")]
    pub(crate) mdns: bool,
    /// Where the last good addresses of peers are kept.
    pub(crate) addresses_file: Option<PathBuf>,
    /// True if that file belongs to another process: it is read and not written.
    pub(crate) addresses_read_only: bool,
    /// Where the networks are kept from which a secret was proved lately.
    pub(crate) proved_file: Option<PathBuf>,
    /// True if a client asks nodes to dial it back (AutoNAT), as a scraper always does.
    #[cfg(feature = "scraper")]
    pub(crate) asks_dial_back: bool,
    /// The bounds on what this node relays; none if it relays nothing.
    #[cfg(feature = "node")]
    pub(crate) relay: Option<RelayLimits>,
    /// The only peers that may reserve at this relay; all if empty.
    #[cfg(feature = "node")]
    pub(crate) relay_for: Vec<PublicKey>,
    /// How a node dials peers back.
    #[cfg(feature = "node")]
    pub(crate) dial_back: DialBackLimits,
    /// True if relayed links are made direct where that works; off in tests of relayed ones.
    pub(crate) hole_punching: bool,
    /// How often a connection to a peer that is no node of ours is pinged: at a random interval of this range.
    pub(crate) ping_every: Range<Duration>,
    pub(crate) limits: NetworkLimits,
}

impl NetworkConfig {
    /// A peer in this role that listens nowhere and knows nobody.
    pub(crate) fn new(role: NetworkRole) -> Self {
        Self {
            role,
            listen: Vec::new(),
            listen_ws: Vec::new(),
            external: Vec::new(),
            bootstrap: Vec::new(),
            #[cfg(feature = "mdns")]
            mdns: false,
            addresses_file: None,
            addresses_read_only: false,
            proved_file: None,
            #[cfg(feature = "scraper")]
            asks_dial_back: false,
            #[cfg(feature = "node")]
            relay: None,
            #[cfg(feature = "node")]
            relay_for: Vec::new(),
            #[cfg(feature = "node")]
            dial_back: DialBackLimits::default(),
            hole_punching: true,
            ping_every: ping_every(role),
            limits: NetworkLimits::default(),
        }
    }

    /// The nodes through which others are found.
    pub(crate) fn nodes(&self) -> HashSet<PeerId> {
        self.bootstrap.iter().map(|node| peer_id(&node.key)).collect()
    }
}

/// Checks the nodes that a peer of this key was given, which [`Network::start`](super::Network::start) does first.
pub(crate) fn check_bootstrap(key: PublicKey, nodes: &[PeerAddr]) -> Result<(), NetworkError> {
    if let Some(node) = nodes.iter().find(|node| node.hint.is_none()) {
        return Err(NetworkError::BootstrapAddress(node.key));
    }
    match nodes.iter().any(|node| node.key == key) {
        true => Err(NetworkError::BootstrapSelf(key)),
        false => Ok(()),
    }
}

/// While a scraper does not notice that its relay is dead, all clients that come through the relay wait in vain. There are
/// few scrapers, so each can afford to ping often.
pub(crate) fn nodes_pinged_every(role: NetworkRole) -> Duration {
    Duration::from_secs(if role.is_scraper() { 5 } else { 10 })
}

/// Dead TCP connections are found by their keep-alives, dead QUIC ones by their idle timeout, and dead links that are
/// scraped by the missing scrape. A client pings for what is left, circuits and proxies whose other side is silent, since
/// it is the side that can dial; a node, which sends nobody to another node that is dead, more often. A scraper only
/// keeps up with the round trips that it shows.
fn ping_every(role: NetworkRole) -> Range<Duration> {
    let (least, most) = match role {
        NetworkRole::Client => (120, 180),
        #[cfg(feature = "node")]
        NetworkRole::Node => (30, 60),
        #[cfg(feature = "scraper")]
        NetworkRole::Scraper => (240, 360),
    };
    Duration::from_secs(least)..Duration::from_secs(most)
}

/// Where scrapers and nodes listen by default: every address of both families.
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) fn default_listen() -> Vec<HostPort> {
    ["0.0.0.0", "::"].map(|host| HostPort { host: host.to_owned(), port: DEFAULT_P2P_PORT }).into()
}

/// Bounds on what peers may cost a scraper or a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetworkLimits {
    /// Connections at once. Beyond, strangers make room for newcomers: peers that hold no alias, of the address that has
    /// most of them. Without strangers, the address with most connections does for a peer that is known and comes from
    /// one with fewer. Default 16 384.
    pub connections: u32,
    /// Connections of one peer. Hole punching makes three, and those that it had before it moved take a while to be missed.
    /// Default 8.
    pub connections_per_peer: u32,
    /// Inbound connections of strangers from one public address (IPv6: one /56). To a node, nearly everybody is a stranger.
    /// Default 512: an office of 200 clients, each of which has two for a moment.
    pub connections_per_address: usize,
    /// Inbound connections of all peers from one address, and of strangers from one private or loopback address (often a
    /// whole office behind a router of ours) or from one where a secret was proved within a day. Default 4096.
    pub connections_per_private_address: usize,
    /// Connections that others open and that are still in their handshake: half of them over TCP and WebSocket, a quarter
    /// over QUIC, a quarter through relays. A quarter of each is for addresses from which a secret was proved within a day.
    /// Three more may wait for each place, but not over QUIC. Default 512; more at once take longer than each of them has, and are
    /// all begun again.
    pub half_open: usize,
    /// Those from one public address. Default 16.
    pub half_open_per_address: usize,
    /// Those from one private or loopback address, or one from which a secret was proved within a day. Default 128.
    pub half_open_per_private_address: usize,
    /// Announcements that a node keeps for others, 4 KiB each at most. Default 65 536.
    pub announcements: usize,
    /// Announcements that a node keeps from one network (IPv4: /24, IPv6: /48). Default 64.
    pub announcements_per_network: usize,
}

impl NetworkLimits {
    pub(crate) const DEFAULT: Self = Self {
        connections: 16_384,
        connections_per_peer: 8,
        connections_per_address: 512,
        connections_per_private_address: 4096,
        half_open: 512,
        half_open_per_address: 16,
        half_open_per_private_address: 128,
        announcements: 65_536,
        announcements_per_network: 64,
    };
}

impl Default for NetworkLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How a node dials peers back that ask whether they can be reached (AutoNAT): at their own address alone. The rates are
/// those of go-libp2p.
#[cfg(feature = "node")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DialBackLimits {
    /// Dial-backs a minute, of all peers. Default 60.
    pub per_minute: NonZeroU32,
    /// Dial-backs a minute of one peer. Default 12.
    pub per_minute_of_peer: NonZeroU32,
    /// Whether peers at private addresses are dialled back, as in a lab. Default not: behind a router that hides where
    /// peers come from, they would all have the router's address, and could scan its ports.
    pub private: bool,
}

#[cfg(feature = "node")]
impl Default for DialBackLimits {
    fn default() -> Self {
        let [per_minute, per_minute_of_peer] = [60, 12].map(|rate| NonZeroU32::new(rate).expect("not zero"));
        Self { per_minute, per_minute_of_peer, private: false }
    }
}

/// Bounds on what a node relays.
#[cfg(feature = "node")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayLimits {
    /// Peers that may be reached through this node at once. Default 4096.
    pub reservations: usize,
    /// Circuits at once, of all peers. Default 4096.
    pub circuits: usize,
    /// Circuits at once that one peer may open. Default 16.
    pub circuits_per_peer: usize,
    /// Longest life of a circuit; its ends then build another. Default 24 h.
    pub circuit_duration: Duration,
    /// Most bytes of a circuit, both directions together; its ends then build another. Default 16 GiB.
    pub circuit_bytes: u64,
}

#[cfg(feature = "node")]
impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            reservations: 4096,
            circuits: 4096,
            circuits_per_peer: 16,
            circuit_duration: Duration::from_secs(24 * 60 * 60),
            circuit_bytes: 16 * 1024 * 1024 * 1024,
        }
    }
}
