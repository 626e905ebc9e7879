//! DCUtR, the hole punching.

use std::task::{Context, Poll, Waker};

use libp2p::{
    Multiaddr, PeerId, dcutr,
    multiaddr::Protocol,
    relay,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour, NewExternalAddrCandidate,
        NewExternalAddrOfPeer, SwarmEvent,
    },
};

use crate::{
    list::mended,
    peer::{Peer, Settings, memory, settle, until},
};

#[derive(NetworkBehaviour)]
struct Punching {
    circuits: relay::client::Behaviour,
    dcutr: dcutr::Behaviour,
}

/// A peer that closes what nobody keeps alive, and knows where it can be reached.
fn punching() -> Peer<Punching> {
    let settings = Settings { close_idle: true, ..Settings::default() };
    let mut peer = Peer::with(settings, |keypair, circuits| Punching {
        circuits,
        dcutr: dcutr::Behaviour::new(keypair.public().to_peer_id()),
    });
    let address = peer.address.clone();
    let candidate = FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr: &address });
    peer.behaviour().dcutr.on_swarm_event(candidate);
    peer
}

#[test]
fn a_circuit_stays_open_after_its_hole_is_punched() {
    let mut relay = Peer::new(|keypair| {
        let mut relay = relay::Behaviour::new(keypair.public().to_peer_id(), relay::Config::default());
        relay.set_status(Some(relay::Status::Enable));
        relay
    });
    let (mut target, mut source) = (punching(), punching());
    let at_relay = relay.address.clone().with(Protocol::P2p(relay.id)).with(Protocol::P2pCircuit);
    let address = relay.address.clone();
    relay.swarm().add_external_address(address);
    target.swarm().listen_on(at_relay.clone()).expect("a circuit");
    settle(&mut [&mut target, &mut relay]);
    source.dial(target.id, at_relay.with(Protocol::P2p(target.id)));

    until!([source, relay, target], {
        let punched = |event: &&SwarmEvent<PunchingEvent>| {
            matches!(event, SwarmEvent::Behaviour(PunchingEvent::Dcutr(dcutr::Event { result: Ok(_), .. })))
        };
        source.events.iter().find(punched).map(drop)
    });
    // The direct connection is as idle as the circuit, and closed for it.
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    for event in &source.events {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } if *peer_id == target.id => {
                opened.push(endpoint.is_relayed());
            }
            SwarmEvent::ConnectionClosed { peer_id, endpoint, .. } if *peer_id == target.id => {
                closed.push(endpoint.is_relayed());
            }
            _ => {}
        }
    }
    assert_eq!((opened, closed), (vec![true, false], vec![false]), "{}", mended());
}

#[test]
fn no_peer_is_dialled_directly_before_a_hole_is_punched() {
    let (me, peer, relay) = (PeerId::random(), PeerId::random(), PeerId::random());
    let mut dcutr = dcutr::Behaviour::new(me);
    let public: Multiaddr = "/ip4/203.0.113.7/tcp/1".parse().expect("an address");
    let known = NewExternalAddrOfPeer { peer_id: peer, addr: &public };
    dcutr.on_swarm_event(FromSwarm::NewExternalAddrOfPeer(known));
    let circuit = memory(1).with(Protocol::P2p(relay)).with(Protocol::P2pCircuit);
    let from = Multiaddr::empty().with(Protocol::P2p(peer));
    let id = ConnectionId::new_unchecked(1);
    let mut handler =
        dcutr.handle_established_inbound_connection(id, peer, &circuit, &from).expect("nothing denies it");

    let cx = &mut Context::from_waker(Waker::noop());
    assert!(dcutr.poll(cx).is_pending(), "{}", mended());
    let asks = matches!(handler.poll(cx), Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { .. }));
    assert!(asks, "{}", mended());
}
