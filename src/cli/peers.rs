//! Flags that a scraper and a node share: how peers reach them, and how many connections peers may open.

use super::{defaults, listeners, value};
use crate::{
    identity::{DialAddress, HostPort, PeerAddr},
    network::NetworkLimits,
};

/// How peers reach this process, and which nodes it knows.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Reachable {
    /// Where peers connect: UDP for QUIC and the same TCP port; repeatable
    #[arg(long, value_name = "HOST:PORT", default_values_t = defaults::SCRAPER.listen.clone())]
    pub(super) listen: Vec<HostPort>,
    /// Where peers behind an HTTP-only firewall connect by WebSocket, without TLS: put a reverse proxy with a certificate
    /// before it; repeatable
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) listen_ws: Vec<HostPort>,
    /// A node through which peers find each other by key; repeatable
    #[arg(long, value_name = "PEER", value_parser = value::bootstrap)]
    pub(super) bootstrap: Vec<PeerAddr>,
    /// An address to announce instead of the listen addresses, as behind a forwarded port; repeatable
    #[arg(long, value_name = "ADDRESS")]
    pub(super) external: Vec<DialAddress>,
}

impl Reachable {
    /// Checks that these addresses and the other listeners of the role are not one.
    pub(super) fn check<'a>(&'a self, others: &[(&'static str, Option<&'a HostPort>)]) -> Result<(), String> {
        let others = others.iter().filter_map(|(flag, address)| Some((*flag, (*address)?)));
        let own = self.listen.iter().map(|address| ("--listen", address));
        listeners::check(others.chain(own).chain(self.listen_ws.iter().map(|address| ("--listen-ws", address))))
    }
}

/// How many connections peers may open.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct Connections {
    /// Most peer-to-peer connections; strangers (peers that hold no alias) make room for others
    #[arg(
        long, value_name = "N", value_parser = value::count32, default_value_t = NetworkLimits::default().connections
    )]
    max_connections: u32,
    /// Most connections of strangers (peers that hold no alias) from one public IP address (IPv6: one /56)
    #[arg(
        long, value_name = "N", value_parser = value::count,
        default_value_t = NetworkLimits::default().connections_per_address
    )]
    max_connections_per_ip: usize,
    /// Most connections from one IP address (IPv6: one /56); at a public one, strangers (peers that hold no alias)
    /// have a limit of their own
    #[arg(
        long, value_name = "N", value_parser = value::count,
        default_value_t = NetworkLimits::default().connections_per_private_address
    )]
    max_connections_per_private_ip: usize,
    /// Most connections of one peer; a hole punch needs 3 for a moment, and those from before it moved count until they
    /// are missed
    #[arg(
        long, value_name = "N", value_parser = value::count32,
        default_value_t = NetworkLimits::default().connections_per_peer
    )]
    max_connections_per_peer: u32,
    /// Most connections in their handshake: half over TCP and WebSocket, a quarter over QUIC, a quarter through relays;
    /// others wait for their turn
    #[arg(long, value_name = "N", value_parser = value::count, default_value_t = NetworkLimits::default().half_open)]
    max_half_open: usize,
    /// Most connections in their handshake from one public IP address (IPv6: one /56)
    #[arg(
        long, value_name = "N", value_parser = value::count,
        default_value_t = NetworkLimits::default().half_open_per_address
    )]
    max_half_open_per_ip: usize,
    /// Most connections in their handshake from one private or loopback IP address, or one from which a secret was proved
    /// within a day
    #[arg(
        long, value_name = "N", value_parser = value::count,
        default_value_t = NetworkLimits::default().half_open_per_private_address
    )]
    max_half_open_per_private_ip: usize,
}

impl From<Connections> for NetworkLimits {
    fn from(flags: Connections) -> Self {
        Self {
            connections: flags.max_connections,
            connections_per_peer: flags.max_connections_per_peer,
            connections_per_address: flags.max_connections_per_ip,
            connections_per_private_address: flags.max_connections_per_private_ip,
            half_open: flags.max_half_open,
            half_open_per_address: flags.max_half_open_per_ip,
            half_open_per_private_address: flags.max_half_open_per_private_ip,
            ..Self::default()
        }
    }
}
