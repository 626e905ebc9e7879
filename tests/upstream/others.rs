//! Kademlia, ping and TCP.

use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};

use libp2p::{
    Multiaddr, PeerId, Transport,
    core::transport::{ListenerId, TransportEvent},
    kad::{
        self,
        store::{MemoryStore, RecordStore},
    },
    multiaddr::Protocol,
    ping,
    swarm::SwarmEvent,
    tcp,
};

use crate::{
    list::mended,
    peer::{Peer, connect, nowhere, settle, until},
};

fn kademlia(inserts: kad::StoreInserts) -> Peer<kad::Behaviour<MemoryStore>> {
    Peer::new(|keypair| {
        let local = keypair.public().to_peer_id();
        let mut config = kad::Config::new(libp2p::StreamProtocol::new("/test/kad/1"));
        config.set_record_filtering(inserts).set_periodic_bootstrap_interval(None);
        let mut kad = kad::Behaviour::with_config(local, MemoryStore::new(local), config);
        kad.set_mode(Some(kad::Mode::Server));
        kad
    })
}

#[test]
fn a_record_that_is_not_stored_is_acknowledged() {
    let mut node = kademlia(kad::StoreInserts::FilterBoth);
    let mut owner = kademlia(kad::StoreInserts::Unfiltered);
    connect(&mut owner, &mut node);
    let record = kad::Record::new(b"key".to_vec(), b"value".to_vec());
    owner.behaviour().put_record_to(record, [node.id].into_iter(), kad::Quorum::One);
    settle(&mut [&mut owner, &mut node]);
    let acknowledged = owner.events.iter().any(|event| {
        let SwarmEvent::Behaviour(kad::Event::OutboundQueryProgressed { result, .. }) = event else { return false };
        matches!(result, kad::QueryResult::PutRecord(Ok(_)))
    });
    assert_eq!(node.behaviour().store_mut().records().count(), 0, "nobody has accepted it");
    assert!(acknowledged, "{}", mended());
}

#[test]
fn a_dead_peer_stays_in_the_routing_table() {
    let mut node = kademlia(kad::StoreInserts::Unfiltered);
    let dead = PeerId::random();
    node.behaviour().add_address(&dead, nowhere());
    node.dial(dead, nowhere());
    settle(&mut [&mut node]);
    let failed = |event: &SwarmEvent<_>| matches!(event, SwarmEvent::OutgoingConnectionError { .. });
    assert!(node.events.iter().any(failed), "nobody is there");
    let known = node.behaviour().kbuckets().map(|bucket| bucket.iter().count()).sum::<usize>();
    assert_eq!(known, 1, "{}", mended());
}

#[test]
fn the_first_ping_that_fails_is_not_told() {
    let every = ping::Config::new().with_interval(Duration::from_millis(1));
    let mut peer = Peer::new(|_| ping::Behaviour::new(every));
    let mut silent = Peer::raw(&[ping::PROTOCOL_NAME]);
    connect(&mut peer, &mut silent);
    let mut pings = 0;
    until!([peer, silent], {
        // Dropped, each of them.
        pings += silent.streams().len();
        let failed = |event: &&SwarmEvent<ping::Event>| {
            matches!(event, SwarmEvent::Behaviour(ping::Event { result: Err(_), .. }))
        };
        peer.events.iter().find(failed).map(drop)
    });
    assert!(pings > 1, "{}", mended());
}

#[tokio::test]
async fn two_listeners_share_a_port() {
    let mut first = tcp::tokio::Transport::default();
    let at = listening(&mut first, "/ip4/127.0.0.1/tcp/0".parse().expect("an address")).await;
    let mut second = tcp::tokio::Transport::default();
    let shared = listening(&mut second, at.clone()).await;
    assert_eq!(shared, at, "{}", mended());
    let port = at.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None });
    let plain = std::net::TcpListener::bind(("127.0.0.1", port.expect("a port")));
    assert!(plain.is_err(), "everybody else is told that the port is taken");
}

async fn listening(transport: &mut tcp::tokio::Transport, at: Multiaddr) -> Multiaddr {
    transport.listen_on(ListenerId::next(), at).unwrap_or_else(|_| panic!("{}", mended()));
    poll_fn(|cx| match Pin::new(&mut *transport).poll(cx) {
        Poll::Ready(TransportEvent::NewAddress { listen_addr, .. }) => Poll::Ready(listen_addr),
        Poll::Ready(other) => panic!("not an address: {other:?}"),
        Poll::Pending => Poll::Pending,
    })
    .await
}
