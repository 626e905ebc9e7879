//! What a network is told at its start.

use std::{ops::Range, path::PathBuf, time::Duration};

use super::swarm::relay::limits::RelayLimits;
use crate::identity::{DialAddress, HostPort, PeerAddr};

/// What a process is on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkRole {
    /// Dials scrapers. Listens only where a hole may have to be punched, and then for its scrapers alone.
    Client,
    /// Is found by its key and keeps many links.
    Scraper,
    /// Public helper: answers the DHT, and relays if it is told to.
    Node,
}

/// Where to listen, whom to know, how much to bear.
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
    /// Whether peers on the same network are found by mDNS, and find us.
    pub(crate) mdns: bool,
    /// Where the last good addresses of peers are kept.
    pub(crate) addresses_file: Option<PathBuf>,
    /// Whether that file is somebody else's: it is read and not written.
    pub(crate) addresses_read_only: bool,
    /// Whether a client asks nodes to dial it back (AutoNAT), as a scraper always does.
    pub(crate) asks_dial_back: bool,
    /// Whether this node carries circuits of others, and how many.
    pub(crate) relay: Option<RelayLimits>,
    /// Whether relayed links are made direct where that works; off in tests of relayed ones.
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
            mdns: false,
            addresses_file: None,
            addresses_read_only: false,
            asks_dial_back: false,
            relay: None,
            hole_punching: true,
            ping_every: ping_every(role),
            limits: NetworkLimits::default(),
        }
    }
}

/// As long as a scraper takes its relay for alive, all who come through it wait in vain; there are few scrapers.
pub(crate) fn nodes_pinged_every(role: NetworkRole) -> Duration {
    Duration::from_secs(if role == NetworkRole::Scraper { 5 } else { 10 })
}

/// A client pings so that a silently dead link is noticed on the side that can dial; so does a node, which sends nobody to
/// another node that is dead. To a scraper the scrape is the ping: it only keeps up with the round trips that it shows.
fn ping_every(role: NetworkRole) -> Range<Duration> {
    let (least, most) = match role {
        NetworkRole::Client | NetworkRole::Node => (30, 60),
        NetworkRole::Scraper => (45, 75),
    };
    Duration::from_secs(least)..Duration::from_secs(most)
}

/// The port where scrapers and nodes listen for peers, TCP and UDP.
pub const DEFAULT_P2P_PORT: u16 = 19_961;

/// Where scrapers and nodes listen by default: every address of both families.
pub(crate) fn default_listen() -> Vec<HostPort> {
    ["0.0.0.0", "::"].map(|host| HostPort { host: host.to_owned(), port: DEFAULT_P2P_PORT }).into()
}

/// Bounds on what peers may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkLimits {
    /// Connections at once. Default 16 384.
    pub connections: u32,
    /// Connections of one peer. Hole punching makes three, and those that it had before it moved take a while to be missed.
    /// Default 8.
    pub connections_per_peer: u32,
    /// Inbound connections from one public address (IPv6: one /64). Default 64.
    pub connections_per_address: usize,
    /// Announcements that a node keeps for others, 4 KiB each at most. Default 65 536.
    pub announcements: usize,
}

impl Default for NetworkLimits {
    fn default() -> Self {
        Self { connections: 16_384, connections_per_peer: 8, connections_per_address: 64, announcements: 65_536 }
    }
}
