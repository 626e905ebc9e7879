//! Which transports a client dials where the peer's host takes TCP connections and is slow, or has no room.

use std::net::{TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};

use tokio::net::{TcpListener, UdpSocket};

use super::*;
use crate::network::upkeep::upgrade;

/// Where TCP would have been given up for QUIC before.
const LONGER_THAN_THE_HEAD_START: Duration = Duration::from_secs(1);

/// A host with both transports at one port, and a client that is told of it.
async fn host() -> (TcpListener, UdpSocket, Peer, PeerAddr) {
    let at = free_port("127.0.0.1".parse().expect("an address")).expect("a port");
    let (tcp, udp) = (StdTcpListener::bind(at).expect("free"), StdUdpSocket::bind(at).expect("free"));
    tcp.set_nonblocking(true).expect("can be set");
    udp.set_nonblocking(true).expect("can be set");
    let client = Peer::start(NetworkRole::Client, Firewall::Anyone, Vec::new()).await;
    let scraper = PeerAddr::at(KeyPair::generate().public(), "127.0.0.1", at.port());
    (TcpListener::from_std(tcp).expect("listens"), UdpSocket::from_std(udp).expect("binds"), client, scraper)
}

/// Before: a link that was made over QUIC, as there was no room over TCP, stayed there for ever.
#[cfg(feature = "cli")]
#[tokio::test]
async fn a_link_over_quic_moves_to_tcp_and_its_streams_end_first() {
    let mut scraper = Peer::start(NetworkRole::Scraper, Firewall::Anyone, Vec::new()).await;
    let client = Peer::start(NetworkRole::Client, Firewall::Anyone, Vec::new()).await;
    let at = scraper.network.listening()[0];
    let there = PeerAddr::at(scraper.key.public(), at.ip().to_string(), at.port());
    client.network.connect_over(&there, LinkTransport::Quic).await.expect("links");
    // As that of a scraper and a client that holds an alias.
    client.network.links().keep(there.key);
    scraper.network.links().keep(client.key.public());
    let mut stream = client.network.open(&there.key, ECHO).await.expect("opens");
    stream.write_all(b"x").await.expect("writes");
    let mut far = within("a stream", scraper.inbox.recv()).await.expect("a stream").stream;

    upgrade::upgrade(&client.network, &there).await;
    let transports = || client.network.links().transports(&there.key);
    assert_eq!(transports(), [LinkTransport::Tcp, LinkTransport::Quic]);
    // Longer than the pause between two sweeps.
    time::sleep(Duration::from_secs(12)).await;
    for _ in 0..3 {
        stream.write_all(b"x").await.expect("the stream goes on");
        within("a byte", far.read_u8()).await.expect("a byte");
    }
    drop((stream, far));
    within("the end of QUIC", client.network.links().wait_until(|| transports() == [LinkTransport::Tcp])).await;
}

/// Before: in a crowd at a busy scraper each client had two handshakes under way.
#[tokio::test]
async fn quic_waits_while_a_handshake_over_tcp_is_under_way() {
    let (tcp, udp, client, scraper) = host().await;
    let network = client.network.clone();
    let dial = tokio::spawn(async move { network.connect(&scraper).await });
    let _silent = within("a connection", tcp.accept()).await.expect("accepts");
    let datagram = time::timeout(LONGER_THAN_THE_HEAD_START, udp.recv_from(&mut [0; 2048])).await;
    assert!(datagram.is_err(), "QUIC is dialled beside");
    within("QUIC, after all", udp.recv_from(&mut [0; 2048])).await.expect("receives");
    dial.abort();
}

/// Before: a scraper without room was dialled by QUIC at once by each client that it had refused.
#[tokio::test]
async fn a_scraper_that_closes_tcp_for_want_of_room_is_dialled_by_quic_in_the_fifth_attempt() {
    is_dialled_by_quic_after(4, false).await;
}

/// Before: of a fleet that a restarted scraper had no room for, every third came by QUIC, and saw the next restart after 25 s.
#[tokio::test]
async fn a_scraper_that_was_reached_over_tcp_is_dialled_by_quic_in_the_eighth_attempt() {
    is_dialled_by_quic_after(7, true).await;
}

async fn is_dialled_by_quic_after(attempts: usize, known: bool) {
    let (tcp, udp, client, scraper) = host().await;
    let at = tcp.local_addr().expect("bound");
    if known {
        let address = format!("/ip4/{}/tcp/{}", at.ip(), at.port()).parse().expect("a multiaddress");
        client.network.dialler.addresses.remember(scraper.key, address);
    }
    let full = tokio::spawn(async move {
        loop {
            drop(tcp.accept().await.expect("accepts"));
        }
    });
    for _ in 0..attempts {
        let refused = within("an end", client.network.connect(&scraper)).await;
        assert!(matches!(refused, Err(ConnectError::Unreachable { .. })), "{refused:?}");
        assert!(udp.try_recv_from(&mut [0; 2048]).is_err(), "QUIC is dialled");
    }
    let network = client.network.clone();
    let last = tokio::spawn(async move { network.connect(&scraper).await });
    within("QUIC", udp.recv_from(&mut [0; 2048])).await.expect("receives");
    last.abort();
    full.abort();
}

/// Before: the count went on from one outage to the next.
#[tokio::test]
async fn refusals_before_a_link_do_not_count() {
    let (tcp, udp, client, scraper) = host().await;
    let full = tokio::spawn(async move {
        loop {
            drop(tcp.accept().await.expect("accepts"));
        }
    });
    let other = Peer::start(NetworkRole::Scraper, Firewall::Anyone, Vec::new()).await;
    let refused = async |times: usize| {
        for _ in 0..times {
            within("an end", client.network.connect(&scraper)).await.expect_err("closed");
        }
    };
    refused(4).await;
    let at = other.network.listening()[0];
    let other_at = PeerAddr::at(other.key.public(), at.ip().to_string(), at.port());
    within("a link", client.network.connect(&other_at)).await.expect("links");
    refused(4).await;
    assert!(udp.try_recv_from(&mut [0; 2048]).is_err(), "QUIC is dialled");
    full.abort();
}
