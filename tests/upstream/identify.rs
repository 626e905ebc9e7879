//! Identify: what others say of our addresses.

use libp2p::{
    Multiaddr, StreamProtocol,
    core::transport::ListenerId,
    identify,
    swarm::{FromSwarm, NetworkBehaviour, NewListenAddr, SwarmEvent},
};

use crate::{
    list::mended,
    peer::{Peer, connect, field, settle, until},
};

const IDENTIFY: StreamProtocol = StreamProtocol::new("/ipfs/id/1.0.0");

/// The candidates for its address that a peer makes of what a stranger says, who has dialled it.
fn candidates(listens: Option<&Multiaddr>, said: &Multiaddr) -> Vec<Multiaddr> {
    let mut peer =
        Peer::new(|keypair| identify::Behaviour::new(identify::Config::new("/test/1".to_owned(), keypair.public())));
    if let Some(addr) = listens {
        let listens = NewListenAddr { listener_id: ListenerId::next(), addr };
        peer.behaviour().on_swarm_event(FromSwarm::NewListenAddr(listens));
    }
    let mut stranger = Peer::raw(&[IDENTIFY]);
    connect(&mut stranger, &mut peer);
    // The peer asks who it is, once its timer has ended.
    let mut asked = until!([stranger, peer], stranger.streams().pop());
    let (key, seen) = (stranger.keypair.public().encode_protobuf(), said.to_vec());
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
fn anybody_is_believed_where_we_are_seen() {
    let said = address("/ip4/203.0.113.7/tcp/555");
    assert_eq!(candidates(None, &said), [said], "{}", mended());
}

#[test]
fn the_port_that_is_seen_gives_way_to_the_one_that_we_listen_on() {
    let (listens, said) = (address("/ip4/192.168.0.2/tcp/4001"), address("/ip4/203.0.113.7/tcp/555"));
    assert_eq!(candidates(Some(&listens), &said), [address("/ip4/203.0.113.7/tcp/4001")], "{}", mended());
}
