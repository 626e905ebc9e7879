//! Multiaddresses of strangers, for the fuzz target of that name.

use libp2p::{Multiaddr, multiaddr::Protocol};

use super::{
    address::{self, Circuit, Direct},
    peer_id::{peer_id, public_key},
};
#[cfg(test)]
use crate::identity::KeyPair;

/// As a DHT record has them, or as text. What would be dialled is what is printed and what is made anew.
pub fn multiaddress(bytes: &[u8]) {
    if let Ok(binary) = Multiaddr::try_from(bytes.to_vec()) {
        check(&binary);
    }
    if let Some(text) = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()) {
        check(&text);
    }
}

/// One of each kind: its name, its bytes and its text.
#[cfg(test)]
pub(crate) fn addresses() -> Vec<(&'static str, Vec<u8>, String)> {
    let relay = peer_id(&KeyPair::from_seed(&[4; 32]).public());
    let texts = [
        ("tcp", "/ip4/203.0.113.7/tcp/19961".to_owned()),
        ("tcp-v6", "/ip6/2001:db8::1/tcp/19961".to_owned()),
        ("tcp-name", "/dns/scraper.example.org/tcp/19961".to_owned()),
        ("quic", "/ip4/203.0.113.7/udp/19961/quic-v1".to_owned()),
        ("websocket", "/dns/scraper.example.org/tcp/80/ws".to_owned()),
        ("websocket-tls", "/dns/scraper.example.org/tcp/443/tls/x-parity-ws/%2Fnarthex".to_owned()),
        ("circuit", format!("/ip4/203.0.113.7/udp/19961/quic-v1/p2p/{relay}/p2p-circuit")),
        ("circuit-of-a-peer", format!("/ip4/203.0.113.7/tcp/19961/p2p/{relay}/p2p-circuit/p2p/{relay}")),
        ("peer", format!("/ip4/203.0.113.7/tcp/19961/p2p/{relay}")),
    ];
    let read = |text: String| text.parse::<Multiaddr>().expect("a multiaddress");
    texts.map(|(name, text)| (name, read(text.clone()).to_vec(), text)).into()
}

fn check(addr: &Multiaddr) {
    let _ = (address::network(addr), address::is_private(addr), address::by_transport([addr.clone()]));
    let shown = address::display(addr);
    if let Some(direct) = address::direct(addr)
        && address::is_dialable(addr)
    {
        let made = match &direct {
            Direct::Tcp(at) => address::named_tcp(at),
            Direct::Quic(at) => address::quic(*at),
            Direct::WebSocket(url) => address::websocket(url),
        };
        assert_eq!(host_port(&made), host_port(addr));
        assert!(!shown.contains(|c: char| c.is_control() || !c.is_ascii()), "{shown:?} goes into logs");
    }
    if address::is_plain(addr) {
        assert!(address::is_dialable(addr) && address::socket_addr(addr).is_some());
    }
    if let Some(circuit) = Circuit::parse(addr) {
        assert!(address::is_dialable(&circuit.at) && address::is_relayed(addr) && !address::is_dialable(addr));
        assert_eq!(Circuit::parse(&circuit.address()), Some(circuit));
    }
    for part in addr.iter() {
        if let Protocol::P2p(peer) = part
            && let Some(key) = public_key(&peer)
        {
            assert_eq!(public_key(&peer_id(&key)), Some(key));
        }
    }
}

/// What is dialled: an address in its one form, or a name.
fn host_port(addr: &Multiaddr) -> Option<(String, u16)> {
    let at = address::dial_address(addr)?;
    let at = at.host_port();
    Some((at.ip().map_or_else(|| at.host.clone(), |ip| ip.to_string()), at.port))
}
