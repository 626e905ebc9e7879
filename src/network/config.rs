//! What a network is told at its start.

use std::path::PathBuf;

use crate::identity::{HostPort, PeerAddr};

/// What a process is on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkRole {
    /// Dials scrapers, listens nowhere.
    Client,
    /// Is found by its key and keeps many links.
    Scraper,
    /// Public helper: answers the DHT.
    Node,
}

/// Where to listen, whom to know, how much to bear.
#[derive(Clone, Debug)]
pub(crate) struct NetworkConfig {
    pub(crate) role: NetworkRole,
    /// Each means that TCP port and the same UDP port; port 0 takes a free one.
    pub(crate) listen: Vec<HostPort>,
    /// Addresses to announce instead of the ones we listen on.
    pub(crate) external: Vec<HostPort>,
    /// Nodes through which others are found.
    pub(crate) bootstrap: Vec<PeerAddr>,
    /// Where the last good addresses of peers are kept.
    pub(crate) addresses_file: Option<PathBuf>,
    pub(crate) limits: NetworkLimits,
}

/// Bounds on what peers may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkLimits {
    /// Connections at once. Default 16 384.
    pub connections: u32,
    /// Connections of one peer; hole punching makes three. Default 4.
    pub connections_per_peer: u32,
    /// Inbound connections from one public address (IPv6: one /64). Default 64.
    pub connections_per_address: usize,
}

impl Default for NetworkLimits {
    fn default() -> Self {
        Self { connections: 16_384, connections_per_peer: 4, connections_per_address: 64 }
    }
}
