//! AutoNAT v2: both sides.

use std::panic::{AssertUnwindSafe, catch_unwind};

use libp2p::{
    Multiaddr, StreamProtocol,
    autonat::v2::{client, server},
    multiaddr::Protocol,
    swarm::{DialError, NetworkBehaviour, SwarmEvent},
};
use tracing::Level;

use crate::{
    list::mended,
    log::Events,
    peer::{Peer, connect, settle},
    raw::{NOTHING, Raw, RawStream, field},
};

const DIAL_BACK: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-back");
const DIAL_REQUEST: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-request");

/// A peer, and a stranger that has opened a stream to it.
fn asked<B: NetworkBehaviour>(behaviour: B, protocol: StreamProtocol) -> (Peer<B>, Peer<Raw>, RawStream) {
    let (mut peer, mut stranger) = (Peer::new(|_| behaviour), Peer::raw(NOTHING));
    connect(&mut stranger, &mut peer);
    let stream = stranger.opened(&mut peer, protocol);
    (peer, stranger, stream)
}

#[test]
fn a_dial_back_that_ends_too_early_is_read_again_and_again() {
    let (mut client, mut stranger, mut dial_back) = asked(client::Behaviour::default(), DIAL_BACK);
    dial_back.end();

    // Each round logs an event; a panic in the log is the only way out before 5 s are over.
    let log = Events::new(Level::DEBUG, "libp2p_autonat").panic_at(1000);
    let rounds = catch_unwind(AssertUnwindSafe(|| log.during(|| settle(&mut [&mut stranger, &mut client]))));
    assert!(rounds.is_err(), "{}", mended());
}

#[test]
fn a_request_that_ends_too_early_is_a_warning_in_the_log() {
    let (mut server, mut stranger, mut request) = asked(server::Behaviour::default(), DIAL_REQUEST);
    request.end();

    let log = Events::new(Level::WARN, "libp2p");
    log.during(|| settle(&mut [&mut stranger, &mut server]));
    assert!(log.count() > 0, "{}", mended());
}

#[test]
fn a_server_dials_any_name_that_it_is_given() {
    let named: Multiaddr = "/dns4/intranet.example/tcp/80".parse().expect("an address");
    let (mut server, mut stranger, mut request) = asked(server::Behaviour::default(), DIAL_REQUEST);
    // `dialRequest` with `addrs` and a `nonce`, then as many `dialDataResponse` as it may ask for.
    let nonce = [&[0x11], [1; 8].as_slice()].concat();
    request.send(&field(1, &[field(1, &named.to_vec()), nonce].concat()));
    for _ in 0..25 {
        settle(&mut [&mut stranger, &mut server]);
        request.send(&field(4, &field(1, &[0; 4000])));
    }
    settle(&mut [&mut stranger, &mut server]);

    // The transport of this test refuses names. That it is asked to dial one is the fault.
    let tried: Vec<_> = server.events.iter().filter_map(tried).collect();
    assert_eq!(tried, [named.with(Protocol::P2p(stranger.id))], "{}", mended());
}

fn tried<T>(event: &SwarmEvent<T>) -> Option<Multiaddr> {
    match event {
        SwarmEvent::OutgoingConnectionError { error: DialError::Transport(tried), .. } => {
            tried.first().map(|(address, _)| address.clone())
        }
        _ => None,
    }
}
