//! Between our names and libp2p's: public keys and peer ids, `host:port` and multiaddresses.

use std::net::{IpAddr, SocketAddr};

use libp2p::{
    Multiaddr, PeerId,
    identity::{Keypair, PublicKey as Libp2pKey, ed25519},
    multiaddr::Protocol,
    multihash::Multihash,
};

use crate::identity::{KeyPair, PublicKey};

/// The multihash code of peer ids that carry the key itself.
const IDENTITY_HASH: u64 = 0;

pub(super) fn peer_id(key: &PublicKey) -> PeerId {
    let key = ed25519::PublicKey::try_from_bytes(key.as_bytes()).expect("a PublicKey is a valid Ed25519 key");
    Libp2pKey::from(key).to_peer_id()
}

/// None for peers whose id is not an Ed25519 key: no narthex peer has one.
pub(super) fn public_key(peer: &PeerId) -> Option<PublicKey> {
    let hash = Multihash::<64>::from_bytes(&peer.to_bytes()).ok()?;
    if hash.code() != IDENTITY_HASH {
        return None;
    }
    let key = Libp2pKey::try_decode_protobuf(hash.digest()).ok()?.try_into_ed25519().ok()?;
    PublicKey::from_bytes(&key.to_bytes()).ok()
}

pub(super) fn keypair(key: &KeyPair) -> Keypair {
    Keypair::ed25519_from_bytes(*key.seed()).expect("any 32 bytes are an Ed25519 seed")
}

pub(super) fn tcp(addr: SocketAddr) -> Multiaddr {
    Multiaddr::from(addr.ip()).with(Protocol::Tcp(addr.port()))
}

pub(super) fn quic(addr: SocketAddr) -> Multiaddr {
    Multiaddr::from(addr.ip()).with(Protocol::Udp(addr.port())).with(Protocol::QuicV1)
}

/// The address alone: a swarm that dials adds who is expected there.
pub(super) fn without_peer(addr: &Multiaddr) -> Multiaddr {
    let mut addr = addr.clone();
    if matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
        addr.pop();
    }
    addr
}

pub(super) fn is_tcp(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| matches!(part, Protocol::Tcp(_)))
}

pub(super) fn is_relayed(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| matches!(part, Protocol::P2pCircuit))
}

pub(super) fn ip(addr: &Multiaddr) -> Option<IpAddr> {
    addr.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}

/// True for addresses that mean something in one network only.
pub(super) fn is_private(addr: &Multiaddr) -> bool {
    ip(addr).is_none_or(|ip| match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let carrier = matches!(v4.octets(), [100, 64..128, ..]); // RFC 6598
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || carrier
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    })
}

/// The address and port of a direct TCP or QUIC address.
pub(super) fn socket_addr(addr: &Multiaddr) -> Option<SocketAddr> {
    let port = addr.iter().find_map(|part| match part {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
        _ => None,
    })?;
    Some(SocketAddr::new(ip(addr)?, port))
}

/// An address as people write it, with the transport behind it; of a circuit, the relay's.
pub(super) fn shown(addr: &Multiaddr) -> String {
    match socket_addr(addr) {
        Some(at) => format!("{at} {}", if is_tcp(addr) { "tcp" } else { "quic" }),
        None => addr.to_string(),
    }
}

/// An address that we may dial at a stranger's word: a direct TCP or QUIC one, with an IP address and no more.
pub(super) fn is_dialable(addr: &Multiaddr) -> bool {
    match socket_addr(addr) {
        Some(at) => at.port() != 0 && !at.ip().is_unspecified() && (*addr == tcp(at) || *addr == quic(at)),
        None => false,
    }
}

/// A way to a peer through a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Circuit {
    pub(super) relay: PublicKey,
    /// Where the relay is.
    pub(super) at: Multiaddr,
}

impl Circuit {
    /// Reads `<address of the relay>/p2p/<relay>/p2p-circuit`, perhaps with the peer behind it. None for anything else,
    /// and if the relay's address is not [dialable](is_dialable).
    pub(super) fn parse(addr: &Multiaddr) -> Option<Self> {
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
    pub(super) fn address(&self) -> Multiaddr {
        self.at.clone().with(Protocol::P2p(peer_id(&self.relay))).with(Protocol::P2pCircuit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_ids_and_public_keys_map_both_ways() {
        let pair = KeyPair::from_seed(&[4; 32]);
        let id = peer_id(&pair.public());
        assert_eq!(id, keypair(&pair).public().to_peer_id());
        assert_eq!(public_key(&id), Some(pair.public()));
    }

    #[test]
    fn a_peer_id_that_is_a_hash_is_no_public_key() {
        assert_eq!(public_key(&PeerId::random()), None);
    }

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
    fn addresses_with_more_than_a_host_and_a_port_are_not_dialled() {
        for fine in ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/udp/1/quic-v1"] {
            assert!(is_dialable(&fine.parse().expect("multiaddr")), "{fine}");
        }
        for odd in ["/ip4/1.2.3.4/tcp/0", "/ip4/0.0.0.0/tcp/1", "/dns4/x/tcp/1", "/memory/1", "/ip4/1.2.3.4/udp/1"] {
            assert!(!is_dialable(&odd.parse().expect("multiaddr")), "{odd}");
        }
    }
}
