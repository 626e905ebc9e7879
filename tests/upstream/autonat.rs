//! AutoNAT v2: both sides.

use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::{AsyncWriteExt, FutureExt};
use libp2p::{
    Multiaddr, StreamProtocol,
    autonat::v2::{client, server},
    multiaddr::Protocol,
    swarm::{DialError, SwarmEvent},
};
use tracing::Level;

use crate::{
    list::mended,
    log::Events,
    peer::{Peer, connect, settle},
    raw::field,
};

const DIAL_BACK: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-back");
const DIAL_REQUEST: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-request");

#[test]
fn a_dial_back_that_ends_too_early_is_read_again_and_again() {
    let mut client = Peer::new(|_| client::Behaviour::default());
    let mut stranger = Peer::raw(&[]);
    connect(&mut stranger, &mut client);
    let mut dial_back = stranger.opened(&mut client, DIAL_BACK);
    dial_back.stream.close().now_or_never().expect("room").expect("an open stream");

    // Each round logs an event; a panic in the log is the only way out before 5 s are over.
    let log = Events::new(Level::DEBUG, "libp2p_autonat").panic_at(1000);
    let rounds = catch_unwind(AssertUnwindSafe(|| log.during(|| settle(&mut [&mut stranger, &mut client]))));
    assert!(rounds.is_err(), "{}", mended());
}

#[test]
fn a_request_that_ends_too_early_is_a_warning_in_the_log() {
    let mut server = Peer::new(|_| server::Behaviour::default());
    let mut stranger = Peer::raw(&[]);
    connect(&mut stranger, &mut server);
    let mut request = stranger.opened(&mut server, DIAL_REQUEST);
    request.stream.close().now_or_never().expect("room").expect("an open stream");

    let log = Events::new(Level::WARN, "libp2p");
    log.during(|| settle(&mut [&mut stranger, &mut server]));
    assert!(log.count() > 0, "{}", mended());
}

#[test]
fn a_server_dials_any_name_that_it_is_given() {
    let named: Multiaddr = "/dns4/intranet.example/tcp/80".parse().expect("an address");
    let mut server = Peer::new(|_| server::Behaviour::default());
    let mut stranger = Peer::raw(&[]);
    connect(&mut stranger, &mut server);
    let mut request = stranger.opened(&mut server, DIAL_REQUEST);
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
