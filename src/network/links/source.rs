//! Where the other end of a connection is, for limits per source.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use libp2p::Multiaddr;

use crate::{ip_network, network::address};

/// The source of a connection that a peer opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// A public IPv4 /24 or IPv6 /48, which often has one owner.
    Network(IpAddr),
    /// A private address: often a whole office behind one router, or a reverse proxy.
    Private(IpAddr),
    /// A relay, by its address. All peers that come through the relay share the source.
    Relay(Option<IpAddr>),
}

impl Source {
    /// The source behind an address; for a circuit, the address is the relay's.
    pub(crate) fn of(remote: &Multiaddr) -> Self {
        let ip = address::ip(remote);
        match ip {
            _ if address::is_relayed(remote) => Self::Relay(ip),
            Some(ip) if !address::is_private(remote) => Self::Network(ip_network::of_owner(ip)),
            ip => Self::Private(ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into())),
        }
    }

    /// True if many peers that have nothing to do with each other may share the source.
    pub(crate) fn is_shared(self) -> bool {
        !matches!(self, Self::Network(_))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(IpAddr::V4(v4)) => write!(f, "{v4}/24"),
            Self::Network(IpAddr::V6(v6)) => write!(f, "{v6}/48"),
            Self::Private(ip) => write!(f, "{ip}"),
            Self::Relay(Some(ip)) => write!(f, "the relay at {ip}"),
            Self::Relay(None) => f.write_str("a relay"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_source_and_private_addresses_are_one_each() {
        let source = |text: &str| Source::of(&text.parse().expect("an address")).to_string();
        assert_eq!(source("/ip4/203.0.113.7/tcp/1"), source("/ip4/203.0.113.8/udp/1/quic-v1"));
        assert_eq!(source("/ip6/2001:db8::1/tcp/1"), source("/ip6/2001:db8::2/tcp/1"));
        assert_eq!(source("/ip4/127.0.0.1/tcp/1"), "127.0.0.1");
        let peer = crate::network::peer_id::peer_id(&crate::identity::KeyPair::generate().public());
        let circuit = format!("/ip4/203.0.113.7/tcp/1/p2p/{peer}/p2p-circuit");
        assert_eq!(source(&circuit), "the relay at 203.0.113.7");
    }
}
