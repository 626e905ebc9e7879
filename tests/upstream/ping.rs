//! Ping: failures.

use std::time::Duration;

use libp2p::{ping, swarm::SwarmEvent};

use crate::{
    list::mended,
    peer::{Peer, connect, until},
};

#[test]
fn the_first_failed_ping_is_not_reported() {
    let every = ping::Config::new().with_interval(Duration::from_millis(1));
    let mut peer = Peer::new(|_| ping::Behaviour::new(every));
    let mut silent = Peer::raw(ping::PROTOCOL_NAME);
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
