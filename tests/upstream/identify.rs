//! Identify: other peers' claims about our addresses.

use libp2p::{
    Multiaddr, StreamProtocol,
    core::transport::ListenerId,
    identify,
    swarm::{FromSwarm, NetworkBehaviour, NewListenAddr, SwarmEvent},
};

use crate::{
    list::mended,
    peer::{Peer, connect, settle, until},
    raw::field,
};

const IDENTIFY: StreamProtocol = StreamProtocol::new("/ipfs/id/1.0.0");

/// A peer's candidates for its own address, after a stranger dialled it and claimed to observe it there.
fn candidates(listens: Option<&Multiaddr>, claimed: &Multiaddr) -> Vec<Multiaddr> {
    let mut peer =
        Peer::new(|keypair| identify::Behaviour::new(identify::Config::new("/test/1".to_owned(), keypair.public())));
    if let Some(addr) = listens {
        let listens = NewListenAddr { listener_id: ListenerId::next(), addr };
        peer.behaviour().on_swarm_event(FromSwarm::NewListenAddr(listens));
    }
    let mut stranger = Peer::raw(IDENTIFY);
    connect(&mut stranger, &mut peer);
    // The peer asks who it is, once its timer has ended.
    let mut asked = until!([stranger, peer], stranger.streams().pop());
    let (key, seen) = (stranger.keypair.public().encode_protobuf(), claimed.to_vec());
    // `publicKey` and `observedAddr`.
    asked.send(&[field(1, &key), field(4, &seen)].concat());
    drop(asked);
    settle(&mut [&mut stranger, &mut peer]);
    let candidate = |event: &SwarmEvent<_>| match event {
        SwarmEvent::NewExternalAddrCandidate { address } => Some(address.clone()),
        _ => None,
    };
    peer.events.iter().filter_map(candidate).collect()
}

fn address(text: &str) -> Multiaddr {
    text.parse().expect("an address")
}

#[test]
fn any_claim_about_our_address_is_accepted() {
    let claimed = address("/ip4/203.0.113.7/tcp/555");
    assert_eq!(candidates(None, &claimed), [claimed], "{}", mended());
}

#[test]
fn the_observed_port_is_replaced_by_the_listening_port() {
    let (listens, claimed) = (address("/ip4/192.168.0.2/tcp/4001"), address("/ip4/203.0.113.7/tcp/555"));
    assert_eq!(candidates(Some(&listens), &claimed), [address("/ip4/203.0.113.7/tcp/4001")], "{}", mended());
}
