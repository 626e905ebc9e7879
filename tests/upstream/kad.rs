//! Kademlia: records and the routing table.

use libp2p::{
    PeerId, StreamProtocol,
    kad::{
        self,
        store::{MemoryStore, RecordStore},
    },
    swarm::SwarmEvent,
};

use crate::{
    list::mended,
    peer::{Peer, connect, nowhere, settle},
};

fn kademlia(inserts: kad::StoreInserts) -> Peer<kad::Behaviour<MemoryStore>> {
    Peer::new(|keypair| {
        let local = keypair.public().to_peer_id();
        let mut config = kad::Config::new(StreamProtocol::new("/test/kad/1"));
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
