//! Dial addresses and libp2p's multiaddresses: made, taken apart, and judged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libp2p::{Multiaddr, multiaddr::Protocol};

use crate::{
    identity::{DialAddress, HostPort, PublicKey, WebSocketUrl},
    ip_network,
    network::{
        links::status::LinkTransport,
        peer_id::{peer_id, public_key},
    },
};

impl LinkTransport {
    /// What is dialled at an address; of a circuit, what is dialled at the relay.
    pub(crate) fn of(address: &Multiaddr) -> Self {
        if is_websocket(address) {
            Self::WebSocket
        } else if is_tcp(address) {
            Self::Tcp
        } else {
            Self::Quic
        }
    }
}

pub(crate) fn tcp(addr: SocketAddr) -> Multiaddr {
    Multiaddr::from(addr.ip()).with(Protocol::Tcp(addr.port()))
}

pub(crate) fn quic(addr: SocketAddr) -> Multiaddr {
    Multiaddr::from(addr.ip()).with(Protocol::Udp(addr.port())).with(Protocol::QuicV1)
}

/// A TCP address whose name is looked up when it is dialled, by us or by a proxy.
pub(crate) fn named_tcp(to: &HostPort) -> Multiaddr {
    let host = match to.ip() {
        Some(ip) => Multiaddr::from(ip),
        None => Multiaddr::empty().with(Protocol::Dns(to.host.as_str().into())),
    };
    host.with(Protocol::Tcp(to.port))
}

/// With its name: TLS and whatever passes requests on want to know it.
pub(crate) fn websocket(url: &WebSocketUrl) -> Multiaddr {
    let mut addr = named_tcp(&url.host_port);
    if url.tls {
        addr.push(Protocol::Tls);
    }
    addr.with(Protocol::Ws(url.path.as_str().into()))
}

/// The address alone: a swarm that dials adds who is expected there.
pub(crate) fn without_peer(addr: &Multiaddr) -> Multiaddr {
    let mut addr = addr.clone();
    if matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
        addr.pop();
    }
    addr
}

pub(crate) fn is_tcp(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| matches!(part, Protocol::Tcp(_)))
}

pub(crate) fn is_websocket(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| matches!(part, Protocol::Ws(_)))
}

/// Those that are dialled by TCP, by QUIC and by WebSocket.
pub(crate) fn by_transport(addresses: impl IntoIterator<Item = Multiaddr>) -> [Vec<Multiaddr>; 3] {
    let [mut tcp, mut quic, mut websocket] = [const { Vec::new() }; 3];
    for address in addresses {
        match LinkTransport::of(&address) {
            LinkTransport::Tcp => tcp.push(address),
            LinkTransport::Quic => quic.push(address),
            LinkTransport::WebSocket => websocket.push(address),
        }
    }
    [tcp, quic, websocket]
}

pub(crate) fn is_relayed(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| matches!(part, Protocol::P2pCircuit))
}

pub(crate) fn ip(addr: &Multiaddr) -> Option<IpAddr> {
    addr.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}

/// The network that a peer comes from: the owner of an IPv6 address usually has its whole /56.
pub(crate) fn network(remote: &Multiaddr) -> Option<IpAddr> {
    ip(remote).map(ip_network::of_line)
}

/// True for addresses that mean something in one network only.
pub(crate) fn is_private(addr: &Multiaddr) -> bool {
    match direct(addr).map(Direct::dial_address) {
        Some(own) => is_private_host(own.host_port()),
        None => ip(addr).is_none_or(is_private_ip),
    }
}

/// As [`is_private`]. A name is taken for a public one, but for this host's own.
pub(crate) fn is_private_host(host: &HostPort) -> bool {
    host.ip().map_or_else(|| host.host.eq_ignore_ascii_case("localhost"), is_private_ip)
}

fn is_private_ip(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            // RFC 6598 and RFC 2544.
            let shared = matches!(v4.octets(), [100, 64..128, ..] | [198, 18..20, ..]);
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || shared
        }
        IpAddr::V6(v6) => {
            let is_site_local = matches!(v6.segments(), [0xfec0..0xff00, ..]); // RFC 3879
            let translated = translated(v6).is_some_and(|v4| is_private_ip(v4.into()));
            v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || is_site_local || translated
        }
    }
}

/// The IPv4 address to which a translator or a tunnel takes packets for this one: NAT64 (RFC 6052) and 6to4 (RFC 3056).
fn translated(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

/// The address and port of an address that names no host.
pub(crate) fn socket_addr(addr: &Multiaddr) -> Option<SocketAddr> {
    let port = addr.iter().find_map(|part| match part {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
        _ => None,
    })?;
    Some(SocketAddr::new(ip(addr)?, port))
}

/// A direct address, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Direct {
    Tcp(HostPort),
    Quic(SocketAddr),
    WebSocket(WebSocketUrl),
}

impl Direct {
    fn dial_address(self) -> DialAddress {
        match self {
            Self::Tcp(at) => at.into(),
            Self::Quic(at) => HostPort { host: at.ip().to_string(), port: at.port() }.into(),
            Self::WebSocket(url) => DialAddress::WebSocket(url),
        }
    }
}

/// None for circuits, and for what narthex never makes: names that are none, for instance, or paths that would not
/// survive a request line.
pub(crate) fn direct(addr: &Multiaddr) -> Option<Direct> {
    let mut parts = addr.iter();
    let host = match parts.next()? {
        Protocol::Ip4(ip) => ip.to_string(),
        Protocol::Ip6(ip) => ip.to_string(),
        Protocol::Dns(name) => name.into_owned(),
        _ => return None,
    };
    let url = |host_port, tls, path: &str| Direct::WebSocket(WebSocketUrl { tls, host_port, path: path.to_owned() });
    let direct = match (parts.next()?, parts.next(), parts.next()) {
        (Protocol::Tcp(port), None, _) => Direct::Tcp(HostPort { host, port }),
        (Protocol::Tcp(port), Some(Protocol::Ws(path)), None) => url(HostPort { host, port }, false, &path),
        (Protocol::Tcp(port), Some(Protocol::Tls), Some(Protocol::Ws(path))) => {
            url(HostPort { host, port }, true, &path)
        }
        (Protocol::Udp(port), Some(Protocol::QuicV1), None) => Direct::Quic(SocketAddr::new(host.parse().ok()?, port)),
        _ => return None,
    };
    (parts.next().is_none()).then_some(direct)
}

/// An address as people write it, with the transport behind it; of a circuit, the relay's.
pub(crate) fn display(addr: &Multiaddr) -> String {
    match dial_address(addr) {
        Some(DialAddress::HostPort(at)) => format!("{at} {}", LinkTransport::of(addr).as_str()),
        Some(DialAddress::WebSocket(url)) => url.to_string(),
        None => addr.to_string(),
    }
}

/// Where the other end of a connection is; of a circuit, the relay.
pub(crate) fn dial_address(addr: &Multiaddr) -> Option<DialAddress> {
    let own = Circuit::parse(addr).map_or_else(|| without_peer(addr), |circuit| circuit.at);
    direct(&own).map(Direct::dial_address)
}

/// An address that we may dial although a stranger names it: a direct one, and as narthex writes it.
pub(crate) fn is_dialable(addr: &Multiaddr) -> bool {
    let Some(own) = direct(addr).map(Direct::dial_address) else { return false };
    own.to_string().parse() == Ok(own)
}

/// A host's own TCP or QUIC address: with an IP address and no more.
pub(crate) fn is_plain(addr: &Multiaddr) -> bool {
    socket_addr(addr).is_some_and(|at| *addr == tcp(at) || *addr == quic(at)) && is_dialable(addr)
}

/// A way to a peer through a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Circuit {
    pub(crate) relay: PublicKey,
    /// Where the relay is.
    pub(crate) at: Multiaddr,
}

impl Circuit {
    /// Reads `<address of the relay>/p2p/<relay>/p2p-circuit`, perhaps with the peer behind it. None for anything else,
    /// and if the relay's address is not [dialable](is_dialable).
    pub(crate) fn parse(addr: &Multiaddr) -> Option<Self> {
        let mut at = Multiaddr::empty();
        let mut parts = addr.iter();
        let relay = loop {
            match parts.next()? {
                Protocol::P2p(relay) => break public_key(&relay)?,
                part => at.push(part),
            }
        };
        let ends = matches!(parts.next(), Some(Protocol::P2pCircuit))
            && matches!(parts.next(), None | Some(Protocol::P2p(_)))
            && parts.next().is_none();
        (ends && is_dialable(&at)).then_some(Self { relay, at })
    }

    /// What to dial, and what to listen on.
    pub(crate) fn address(&self) -> Multiaddr {
        self.at.clone().with(Protocol::P2p(peer_id(&self.relay))).with(Protocol::P2pCircuit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyPair;

    #[test]
    fn a_circuit_is_a_relay_at_a_dialable_address() {
        let (relay, peer) = (KeyPair::from_seed(&[4; 32]).public(), KeyPair::from_seed(&[5; 32]).public());
        let circuit = Circuit { relay, at: "/ip4/192.0.2.1/udp/7/quic-v1".parse().expect("multiaddr") };
        assert_eq!(Circuit::parse(&circuit.address()), Some(circuit.clone()));
        let listening = circuit.address().with(Protocol::P2p(peer_id(&peer)));
        assert_eq!(Circuit::parse(&listening), Some(circuit.clone()));
        let twice = circuit.address().with(Protocol::P2p(peer_id(&peer))).with(Protocol::P2pCircuit);
        let nowhere = Circuit { relay, at: "/ip4/0.0.0.0/tcp/7".parse().expect("multiaddr") }.address();
        let direct = circuit.at;
        for odd in [twice, nowhere, direct, "/p2p-circuit".parse().expect("multiaddr")] {
            assert_eq!(Circuit::parse(&odd), None, "{odd}");
        }
    }

    #[test]
    fn only_addresses_as_narthex_writes_them_are_dialled() {
        for fine in ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/udp/1/quic-v1", "/dns/h/tcp/1", "/dns/h/tcp/443/tls/ws"] {
            assert!(is_dialable(&fine.parse().expect("multiaddr")), "{fine}");
        }
        for odd in [
            "/ip4/1.2.3.4/tcp/0",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/224.0.0.251/udp/5353/quic-v1",
            "/ip6/fe80::1/tcp/1",
            "/dns4/x/tcp/1",
            "/dns/a b/tcp/1",
            "/dns/h/udp/1/quic-v1",
            "/memory/1",
            "/ip4/1.2.3.4/udp/1",
            "/ip4/1.2.3.4/tcp/1/ws/ws",
            "/ip4/0.0.0.0/tcp/1/ws",
        ] {
            assert!(!is_dialable(&odd.parse().expect("multiaddr")), "{odd}");
        }
        let injected = Multiaddr::from(IpAddr::from([1, 2, 3, 4]));
        let injected = injected.with(Protocol::Tcp(1)).with(Protocol::Ws("/ HTTP/1.1\r\nA: b".into()));
        assert!(!is_dialable(&injected));
    }

    #[test]
    fn a_url_and_its_address_are_equivalent() {
        for (text, addr) in [
            ("ws://127.0.0.1:1", "/ip4/127.0.0.1/tcp/1/ws"),
            ("wss://[::1]:443/a", "/ip6/::1/tcp/443/tls/x-parity-ws/%2Fa"),
            ("wss://example.org:443", "/dns/example.org/tcp/443/tls/ws"),
        ] {
            let addr: Multiaddr = addr.parse().expect("multiaddr");
            let Ok(DialAddress::WebSocket(url)) = text.parse() else { panic!("{text}") };
            assert_eq!(websocket(&url), addr);
            assert_eq!(display(&addr.clone().with(Protocol::P2p(libp2p::PeerId::random()))), text);
            assert_eq!(direct(&addr), Some(Direct::WebSocket(url)));
        }
    }
}
