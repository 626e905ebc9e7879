//! The lab itself, with plain sockets: its routers do as they are named.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use crate::support::{
    SOON, eventually_true,
    lab::{Kind, Lab, Site},
};

/// The first site of a lab, which is the open one here.
const OBSERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(45, 32, 1, 2));
/// Long enough for a packet, which takes microseconds; what must not arrive is waited for this long.
const BRIEFLY: Duration = Duration::from_millis(300);

#[test]
fn a_cone_has_one_mapping_and_lets_in_only_answers() {
    let Some(mut lab) = Lab::new() else { return };
    let (server, client) = (lab.site(Kind::Open), lab.site(Kind::Cone));
    let (first, second) = (udp(&server), udp(&server));
    let socket = udp(&client);
    let mapping = seen_from(&socket, &first);
    assert_eq!(mapping.ip(), client.public());
    assert_eq!(seen_from(&socket, &second), mapping, "one mapping for all destinations");
    assert!(arrives(&first, mapping, &socket, SOON), "an answer is let in");

    let stranger = udp(&server);
    assert!(!arrives(&stranger, mapping, &socket, BRIEFLY), "another port of a known address is not");
    seen_from(&socket, &stranger);
    assert!(arrives(&stranger, mapping, &socket, SOON), "until something was sent to it");
}

#[test]
fn a_symmetric_nat_has_a_port_for_every_destination() {
    let Some(mut lab) = Lab::new() else { return };
    let (server, client) = (lab.site(Kind::Open), lab.site(Kind::Symmetric));
    let servers: Vec<UdpSocket> = (0..5).map(|_| udp(&server)).collect();
    let socket = udp(&client);
    let mut mappings: Vec<SocketAddr> = servers.iter().map(|server| seen_from(&socket, server)).collect();
    assert!(mappings.iter().all(|mapping| mapping.ip() == client.public()), "{mappings:?}");
    mappings.sort();
    mappings.dedup();
    assert_eq!(mappings.len(), 5, "{mappings:?}");
}

#[test]
fn hosts_behind_routers_do_not_reach_each_other() {
    let Some(mut lab) = Lab::new() else { return };
    let server = lab.site(Kind::Open);
    let hidden = [Kind::Cone, Kind::Symmetric, Kind::UdpBlocked].map(|kind| lab.site(kind));
    let listeners: Vec<TcpListener> = hidden.iter().map(tcp).collect();
    let sockets: Vec<UdpSocket> = hidden.iter().map(udp).collect();
    for (from, sender) in hidden.iter().zip(&sockets) {
        for (to, (receiver, listener)) in hidden.iter().zip(sockets.iter().zip(&listeners)) {
            if from.public() == to.public() {
                continue;
            }
            let names = (from.kind(), to.kind());
            for ip in [to.public(), to.private().into()] {
                let port = receiver.local_addr().expect("bound").port();
                assert!(!arrives(sender, (ip, port).into(), receiver, BRIEFLY), "UDP {names:?} {ip}");
                let port = listener.local_addr().expect("bound").port();
                assert!(!connects(from, (ip, port).into(), BRIEFLY), "TCP {names:?} {ip}");
            }
        }
    }
    assert!(connects(&hidden[0], at(&server, &tcp(&server)), SOON), "while TCP to an open host works");
}

#[test]
fn what_is_blocked_is_blocked_and_nothing_else() {
    let Some(mut lab) = Lab::new() else { return };
    let server = lab.site(Kind::Open);
    for (kind, udp_works, tcp_works) in [(Kind::UdpBlocked, false, true), (Kind::TcpBlocked, true, false)] {
        let (client, listener, receiver) = (lab.site(kind), tcp(&server), udp(&server));
        let within = |works| if works { SOON } else { BRIEFLY };
        let connected = connects(&client, at(&server, &listener), within(tcp_works));
        assert_eq!(connected, tcp_works, "TCP from {kind:?}");
        let address = (server.public(), receiver.local_addr().expect("bound").port()).into();
        let arrived = arrives(&udp(&client), address, &receiver, within(udp_works));
        assert_eq!(arrived, udp_works, "UDP from {kind:?}");
    }
}

#[test]
fn ipv6_alone_reaches_out_and_is_not_reached() {
    let Some(mut lab) = Lab::new() else { return };
    let (server, client, other) = (lab.site(Kind::Open), lab.site(Kind::SixOnly), lab.site(Kind::SixOnly));
    let listener = tcp(&server);
    let port = listener.local_addr().expect("bound").port();
    assert!(connects(&client, (server.public_v6(), port).into(), SOON));
    let listener = tcp(&other);
    let port = listener.local_addr().expect("bound").port();
    assert!(!connects(&client, (other.public(), port).into(), BRIEFLY));
}

#[test]
fn a_restarted_router_maps_anew_and_a_relocated_host_has_other_addresses() {
    let Some(mut lab) = Lab::new() else { return };
    let (server, mut client) = (lab.site(Kind::Open), lab.site(Kind::Cone));
    let (first, second) = (udp(&server), udp(&server));
    let socket = udp(&client);
    let mapping = seen_from(&socket, &first);
    client.forget_mappings();
    // The kernel does that later, when it has nothing else to do.
    eventually_true("the old mapping is gone", SOON, || !arrives(&first, mapping, &socket, BRIEFLY));
    let anew = seen_from(&socket, &first);
    assert!(anew.ip() == mapping.ip() && anew.port() != mapping.port(), "{mapping} {anew}");
    assert_eq!(seen_from(&socket, &second), anew, "still one for all destinations");

    let before = (client.public(), client.private());
    lab.relocate(&mut client);
    assert_ne!((client.public(), client.private()), before);
    assert_eq!(seen_from(&udp(&client), &first).ip(), client.public());
}

#[test]
fn packets_are_lost_and_delayed() {
    let Some(mut lab) = Lab::new() else { return };
    let (server, client) = (lab.site(Kind::Open), lab.site(Kind::Cone));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some(_delay) = lab.delay(100, directory.path()) else { return };
    let listener = tcp(&server);
    // The first one may find the delaying process still starting.
    assert!(connects(&client, at(&server, &listener), SOON));
    let began = Instant::now();
    assert!(connects(&client, at(&server, &listener), SOON));
    assert!(began.elapsed() >= Duration::from_millis(200), "a round trip in {:?}", began.elapsed());

    lab.lose(50);
    let (receiver, sender) = (udp(&server), udp(&client));
    let address = SocketAddr::new(server.public(), receiver.local_addr().expect("bound").port());
    for _ in 0..200 {
        sender.send_to(b"?", address).expect("sends");
    }
    receiver.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    let arrived = (0..200).take_while(|_| receiver.recv(&mut [0; 8]).is_ok()).count();
    assert!((20..180).contains(&arrived), "{arrived} of 200");
}

fn udp(site: &Site) -> UdpSocket {
    site.enter(|| UdpSocket::bind(unspecified(site))).expect("a free port")
}

fn tcp(site: &Site) -> TcpListener {
    // `[::]` takes IPv4, too.
    site.enter(|| TcpListener::bind("[::]:0")).expect("a free port")
}

fn at(site: &Site, listener: &TcpListener) -> SocketAddr {
    (site.public(), listener.local_addr().expect("bound").port()).into()
}

fn unspecified(site: &Site) -> &'static str {
    if site.kind() == Kind::SixOnly { "[::]:0" } else { "0.0.0.0:0" }
}

/// The address that a socket's datagram comes from, as an open host's socket sees it.
#[track_caller]
fn seen_from(socket: &UdpSocket, observer: &UdpSocket) -> SocketAddr {
    observer.set_read_timeout(Some(SOON)).expect("a timeout");
    let port = observer.local_addr().expect("bound").port();
    socket.send_to(b"?", (OBSERVER, port)).expect("sends");
    observer.recv_from(&mut [0; 8]).expect("it arrives").1
}

/// Whether a datagram gets from here to there, to this very socket.
fn arrives(from: &UdpSocket, to: SocketAddr, receiver: &UdpSocket, within: Duration) -> bool {
    receiver.set_read_timeout(Some(within)).expect("a timeout");
    // An ICMP "unreachable" from a router becomes an error of the socket.
    let _ = from.send_to(b"!", to);
    match receiver.recv_from(&mut [0; 8]) {
        Ok(_) => true,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
        Err(error) => panic!("{error}"),
    }
}

fn connects(from: &Site, to: SocketAddr, within: Duration) -> bool {
    from.enter(|| TcpStream::connect_timeout(&to, within)).is_ok()
}
