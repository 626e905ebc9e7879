//! Real swarms on loopback.

mod dial;
mod outages;
mod relay;

use std::{
    collections::HashSet,
    io,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use libp2p::Multiaddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, watch},
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;

use super::{
    address::{self, Circuit},
    command::Command,
    peer_id,
    transport::listen::free_port,
    upkeep::announcer,
    *,
};
use crate::identity::{DialAddress, HostPort, KeyPair, PeerAddr};

const ECHO: &str = "/test/echo/1";

/// A network whose task runs; ends on drop.
struct Peer {
    key: KeyPair,
    network: Network,
    inbox: mpsc::Receiver<InboundStream>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Peer {
    async fn start(role: NetworkRole, firewall: Firewall, bootstrap: Vec<PeerAddr>) -> Self {
        Self::start_as(KeyPair::generate(), role, firewall, bootstrap).await
    }

    async fn start_as(key: KeyPair, role: NetworkRole, firewall: Firewall, bootstrap: Vec<PeerAddr>) -> Self {
        let listen = match role {
            NetworkRole::Client => Vec::new(),
            _ => vec![HostPort { host: "127.0.0.1".to_owned(), port: 0 }],
        };
        Self::start_with(key, firewall, NetworkConfig { listen, bootstrap, ..NetworkConfig::new(role) }).await
    }

    /// A node that relays, at a fixed address: the port is free now.
    async fn start_relay(key: KeyPair, at: SocketAddr) -> Self {
        Self::start_relay_with(key, at, RelayLimits::default(), Vec::new()).await
    }

    async fn start_relay_with(key: KeyPair, at: SocketAddr, limits: RelayLimits, bootstrap: Vec<PeerAddr>) -> Self {
        let address = vec![HostPort { host: at.ip().to_string(), port: at.port() }];
        let (listen, relay) = (address.clone(), Some(limits));
        let external = address.into_iter().map(DialAddress::from).collect();
        let config = NetworkConfig { listen, external, relay, bootstrap, ..NetworkConfig::new(NetworkRole::Node) };
        // A QUIC socket outlives its owner for a moment.
        within("the port", async {
            while UdpSocket::bind(at).is_err() {
                time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        Self::start_with(key, Firewall::Anyone, config).await
    }

    async fn start_with(key: KeyPair, firewall: Firewall, config: NetworkConfig) -> Self {
        let role = config.role;
        let (sender, inbox) = mpsc::channel(64);
        let acceptor = Acceptor { protocol: ECHO, firewall, inbox: sender };
        let (network, task) = Network::start(&key, config, vec![acceptor]).await.expect("starts");
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run(stop.clone()));
        if role != NetworkRole::Client {
            tasks.spawn(keep_nodes(network.clone(), stop.clone()));
        }
        if role == NetworkRole::Scraper {
            tasks.spawn(keep_reservations(network.clone(), true, stop.clone()));
            tasks.spawn(announce(network.clone(), key.clone(), stop.clone()));
        }
        Self { key, network, inbox, stop, tasks }
    }

    async fn addr(&self) -> PeerAddr {
        let at = self.network.listening()[0];
        PeerAddr::at(self.key.public(), at.ip().to_string(), at.port())
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match time::timeout(Duration::from_secs(20), future).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within 20 s"),
    }
}

/// A client that is linked to a scraper.
async fn linked() -> (Peer, Peer) {
    let scraper = Peer::start(NetworkRole::Scraper, Firewall::Anyone, Vec::new()).await;
    let client = Peer::start(NetworkRole::Client, Firewall::Anyone, Vec::new()).await;
    client.network.connect(&scraper.addr().await).await.expect("connects");
    (scraper, client)
}

async fn send(stream: &mut LinkStream, bytes: &[u8]) {
    stream.write_all(bytes).await.expect("writes");
    stream.flush().await.expect("flushes");
}

/// Connects again and again: an announcement takes a moment to get around.
async fn connect(from: &Peer, to: &PeerAddr) {
    within("connect", async {
        while from.network.connect(to).await.is_err() {
            time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_link_carries_streams_in_both_directions() {
    let (mut scraper, mut client) = linked().await;
    within("up", scraper.network.links().up(&client.key.public())).await;
    for (from, to) in [(&client.network, &mut scraper.inbox), (&scraper.network, &mut client.inbox)] {
        let peer = if std::ptr::eq(from, &client.network) { scraper.key.public() } else { client.key.public() };
        let mut out = from.open(&peer, ECHO).await.expect("opens");
        send(&mut out, b"hello").await;
        let mut inbound = within("inbound", to.recv()).await.expect("a stream");
        let mut received = [0; 5];
        inbound.stream.read_exact(&mut received).await.expect("reads");
        assert_eq!(&received, b"hello");
    }
    assert_eq!(scraper.network.links().counts(), LinkCounts { direct: 1, ..LinkCounts::default() });
}

#[tokio::test]
async fn a_link_is_measured_again_and_again() {
    let listen = vec![HostPort { host: "127.0.0.1".to_owned(), port: 0 }];
    let config = NetworkConfig { listen, ..NetworkConfig::new(NetworkRole::Scraper) };
    assert!(config.ping_every.end <= Duration::from_secs(360), "{:?}", config.ping_every);
    let config = NetworkConfig { ping_every: Duration::from_millis(1)..Duration::from_millis(2), ..config };
    let scraper = Peer::start_with(KeyPair::generate(), Firewall::Anyone, config).await;
    let client = Peer::start(NetworkRole::Client, Firewall::Anyone, Vec::new()).await;
    client.network.connect(&scraper.addr().await).await.expect("connects");
    let mut seen = HashSet::new();
    within("three round trips that differ", async {
        while seen.len() < 3 {
            seen.extend(scraper.network.links().status(&client.key.public()).rtt);
            time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_burst_of_streams_arrives_whole() {
    let (mut scraper, client) = linked().await;
    let mut opening = JoinSet::new();
    for _ in 0..50 {
        let (network, peer) = (client.network.clone(), scraper.key.public());
        opening.spawn(async move {
            let mut stream = network.open(&peer, ECHO).await.expect("opens");
            send(&mut stream, b"x").await;
            stream
        });
    }
    for _ in 0..50 {
        within("inbound", scraper.inbox.recv()).await.expect("a stream");
    }
}

#[tokio::test]
async fn a_strangers_stream_is_refused_unread_and_reported() {
    let (friend, admitted) = (KeyPair::generate(), Admitted::default());
    let mut scraper = Peer::start(NetworkRole::Scraper, Firewall::Only(admitted.clone()), Vec::new()).await;
    let mut blocks = scraper.network.blocks();
    let stranger = Peer::start(NetworkRole::Client, Firewall::Anyone, Vec::new()).await;
    stranger.network.connect(&scraper.addr().await).await.expect("connects");
    let mut stream = stranger.network.open(&scraper.key.public(), ECHO).await.expect("opens");
    let _ = stream.write_all(b"let me in").await;
    let _ = stream.flush().await;
    let mut answer = Vec::new();
    let read = within("refusal", stream.read_to_end(&mut answer)).await;
    assert!(read.is_err() || answer.is_empty());
    assert_eq!(within("block", blocks.recv()).await.expect("a block").peer, stranger.key.public());
    assert!(scraper.inbox.try_recv().is_err());

    let friend = Peer::start_as(friend, NetworkRole::Client, Firewall::Anyone, Vec::new()).await;
    friend.network.connect(&scraper.addr().await).await.expect("connects");
    admitted.replace([friend.key.public()]);
    let mut stream = friend.network.open(&scraper.key.public(), ECHO).await.expect("opens");
    send(&mut stream, b"x").await;
    assert_eq!(within("inbound", scraper.inbox.recv()).await.expect("a stream").peer, friend.key.public());

    admitted.replace([]);
    let mut stream = friend.network.open(&scraper.key.public(), ECHO).await.expect("opens");
    send(&mut stream, b"x").await;
    assert_eq!(within("block", blocks.recv()).await.expect("a block").peer, friend.key.public());
}

#[tokio::test]
async fn a_peer_is_found_by_its_key_and_again_after_it_has_moved() {
    let node = Peer::start(NetworkRole::Node, Firewall::Anyone, Vec::new()).await;
    let bootstrap = vec![node.addr().await];
    let key = KeyPair::generate();
    let by_key = PeerAddr::from(key.public());
    let scraper = Peer::start_as(key.clone(), NetworkRole::Scraper, Firewall::Anyone, bootstrap.clone()).await;
    let client = Peer::start(NetworkRole::Client, Firewall::Anyone, bootstrap.clone()).await;
    connect(&client, &by_key).await;
    assert!(node.network.links().is_kept(&by_key.key), "or the node would close the announcer's idle link");

    scraper.stop().await;
    within("down", client.network.links().down(&by_key.key)).await;
    let _moved = Peer::start_as(key, NetworkRole::Scraper, Firewall::Anyone, bootstrap).await;
    connect(&client, &by_key).await;
}

#[tokio::test]
async fn another_key_at_the_hint_is_named() {
    let scraper = Peer::start(NetworkRole::Scraper, Firewall::Anyone, Vec::new()).await;
    let client = Peer::start(NetworkRole::Client, Firewall::Anyone, Vec::new()).await;
    let mut wrong = scraper.addr().await;
    wrong.key = KeyPair::generate().public();
    let error = client.network.connect(&wrong).await.expect_err("another key");
    assert!(matches!(&error, ConnectError::WrongKey { found, .. } if *found == scraper.key.public().to_string()));
}

#[tokio::test]
async fn the_error_names_a_dead_address_or_what_is_missing() {
    let client = Peer::start(NetworkRole::Client, Firewall::Anyone, Vec::new()).await;
    let nobody = KeyPair::generate().public();
    let closed = free_port("127.0.0.1".parse().expect("an address")).expect("a port");
    let refused = client.network.connect(&PeerAddr::at(nobody, "127.0.0.1", closed.port())).await;
    assert!(refused.expect_err("refused").to_string().contains("refused"));
    let unknown = client.network.connect(&nobody.into()).await;
    assert!(matches!(unknown, Err(ConnectError::NoAddress { .. })));
}

#[tokio::test]
async fn a_bootstrap_node_without_its_address_is_refused_at_once() {
    let nowhere = vec![PeerAddr::from(KeyPair::generate().public())];
    let config = NetworkConfig { bootstrap: nowhere, ..NetworkConfig::new(NetworkRole::Client) };
    let started = Network::start(&KeyPair::generate(), config, Vec::new()).await;
    assert!(matches!(started, Err(NetworkError::BootstrapAddress(_))));
}

#[tokio::test]
async fn closing_reaches_the_peer_at_once() {
    let (scraper, client) = linked().await;
    let (key, links) = (client.key.public(), scraper.network.links().clone());
    within("up", links.up(&key)).await;
    links.keep(key);
    client.stop().await;
    within("down", links.down(&key)).await;
    assert!(links.lost_for(&key).is_some());
}

#[tokio::test]
async fn a_newer_connection_goes_before_an_older_one_of_the_same_kind() {
    let scraper = Peer::start(NetworkRole::Scraper, Firewall::Anyone, Vec::new()).await;
    let key = KeyPair::generate();
    let old = Peer::start_as(key.clone(), NetworkRole::Client, Firewall::Anyone, Vec::new()).await;
    old.network.connect(&scraper.addr().await).await.expect("connects");
    within("up", scraper.network.links().up(&key.public())).await;
    let first = scraper.network.links().best(&key.public()).expect("a connection");
    // The same peer once more, as after a crash of its host: the old connection's death is not known yet.
    let new = Peer::start_as(key.clone(), NetworkRole::Client, Firewall::Anyone, Vec::new()).await;
    new.network.connect(&scraper.addr().await).await.expect("connects");
    let links = scraper.network.links();
    let changed = links.wait_until(|| links.best(&key.public()).is_some_and(|best| best != first));
    within("the newer one first", changed).await;
}

#[tokio::test]
async fn streams_end_as_soon_as_their_connection_is_given_up() {
    let (scraper, client) = linked().await;
    let peer = client.key.public();
    within("up", scraper.network.links().up(&peer)).await;
    let mut stream = scraper.network.open(&peer, ECHO).await.expect("opens");
    let link = stream.link();
    let waiting = tokio::spawn(async move { stream.read_u8().await });
    scraper.network.disconnect(peer, link).await;
    let ended = within("the end of the stream", waiting).await.expect("no panic");
    assert!(ended.is_err());
    assert_eq!(scraper.network.links().path(&peer), None);
}

#[tokio::test]
async fn a_scraper_that_would_listen_nowhere_is_refused() {
    let config = NetworkConfig::new(NetworkRole::Scraper);
    assert!(matches!(Network::start(&KeyPair::generate(), config, Vec::new()).await, Err(NetworkError::NoListen)));
}

#[test]
fn two_peers_wait_for_different_times() {
    let pauses = || redial_backoff(Duration::from_secs(15)).take(4).collect::<Vec<_>>();
    assert_ne!(pauses(), pauses());
}

/// A relay, a scraper that holds a reservation there, and a client that knows the relay.
async fn relayed() -> (Peer, Peer, Peer) {
    let at = free_port("127.0.0.1".parse().expect("an address")).expect("a port");
    let relay = Peer::start_relay(KeyPair::generate(), at).await;
    let bootstrap = vec![relay.addr().await];
    let scraper = Peer::start(NetworkRole::Scraper, Firewall::Anyone, bootstrap.clone()).await;
    let client = Peer::start(NetworkRole::Client, Firewall::Anyone, bootstrap).await;
    client.network.links().keep(scraper.key.public());
    scraper.network.links().keep(client.key.public());
    within("a reservation", scraper.network.links().relays().subscribe().wait_for(|held| *held == 1))
        .await
        .expect("held");
    (relay, scraper, client)
}

async fn circuits(scraper: &Peer) -> Vec<Circuit> {
    let announced = announcer::announced(&scraper.network).await;
    announced.iter().filter_map(Circuit::parse).collect()
}

#[tokio::test]
async fn a_relayed_link_is_upgraded_and_streams_over_it_end_by_themselves() {
    let (relay, mut scraper, client) = relayed().await;
    let peer = scraper.key.public();
    let circuits = circuits(&scraper).await;
    assert!(circuits.iter().all(|circuit| circuit.relay == relay.key.public()) && !circuits.is_empty());
    client.network.dialler.dial_circuits(peer, circuits).await.expect("a circuit");
    let mut stream = client.network.open(&peer, ECHO).await.expect("opens");
    send(&mut stream, b"x").await;
    let mut inbound = within("inbound", scraper.inbox.recv()).await.expect("a stream");

    let (here, there) = (client.network.links(), scraper.network.links());
    let direct = |links: &Links, peer| links.path(&peer) == Some(LinkPath::Direct);
    within("direct", here.wait_until(|| direct(here, peer))).await;
    within("direct", there.wait_until(|| direct(there, client.key.public()))).await;
    let status = there.status(&client.key.public());
    assert!(status.punches_succeeded > 0 && status.punches_failed == 0, "{status:?}");
    assert!(status.change.is_some_and(|change| change.reason.starts_with("connected to ")));

    // The stream over the circuit goes on; with it ends the circuit.
    assert_eq!(inbound.stream.read_u8().await.expect("reads"), b'x');
    time::sleep(Duration::from_secs(16)).await;
    assert!(here.is_relayed_too(&peer), "a circuit with a stream is not closed");
    send(&mut inbound.stream, b"y").await;
    assert_eq!(stream.read_u8().await.expect("reads"), b'y');
    drop((stream, inbound));
    within("the end of the circuit", here.wait_until(|| !here.is_relayed_too(&peer))).await;
    assert_eq!(here.path(&peer), Some(LinkPath::Direct));
}

#[tokio::test]
async fn a_reservation_is_made_again_after_its_relay_was_restarted() {
    let (relay, scraper, _client) = relayed().await;
    let (key, at) = (relay.key.clone(), relay.network.listening()[0]);
    let mut held = scraper.network.links().relays().subscribe();
    relay.stop().await;
    within("the loss", held.wait_for(|held| *held == 0)).await.expect("held");
    assert!(circuits(&scraper).await.is_empty());
    let _again = Peer::start_relay(key, at).await;
    within("a reservation", held.wait_for(|held| *held == 1)).await.expect("held");
    assert!(!circuits(&scraper).await.is_empty());
}

#[tokio::test]
async fn a_scraper_that_was_given_one_relay_meets_another_and_does_without_the_first() {
    let at = || free_port("127.0.0.1".parse().expect("an address")).expect("a port");
    let met = Peer::start_relay(KeyPair::generate(), at()).await;
    let limits = RelayLimits::default();
    let given = Peer::start_relay_with(KeyPair::generate(), at(), limits, vec![met.addr().await]).await;
    // Whom it does not know it cannot name, and the scraper does not ask often.
    within("the other relay", given.network.links().up(&met.key.public())).await;
    within("what it is", given.network.links().identified(&met.key.public())).await;
    let scraper = Peer::start(NetworkRole::Scraper, Firewall::Anyone, vec![given.addr().await]).await;
    let mut held = scraper.network.links().relays().subscribe();
    within("two reservations", held.wait_for(|held| *held == 2)).await.expect("held");
    given.stop().await;
    within("the loss", held.wait_for(|held| *held == 1)).await.expect("held");
    let left = circuits(&scraper).await;
    assert!(!left.is_empty() && left.iter().all(|circuit| circuit.relay == met.key.public()), "{left:?}");
}

#[tokio::test]
async fn a_relay_whose_name_moves_reports_its_new_address_alone() {
    let at = free_port("127.0.0.1".parse().expect("an address")).expect("a port");
    let relay = Peer::start_relay(KeyPair::generate(), at).await;
    let moved = address::tcp("192.0.2.7:19961".parse().expect("an address"));
    relay.network.dialler.command(Command::External { addresses: vec![moved.clone()] }).await.expect("runs");
    within("the new address", relay.network.reach().wait_for(|reach| reach.given == [moved.clone()]))
        .await
        .expect("it runs");
    let scraper = Peer::start(NetworkRole::Scraper, Firewall::Anyone, vec![relay.addr().await]).await;
    let mut held = scraper.network.links().relays().subscribe();
    within("a reservation", held.wait_for(|held| *held == 1)).await.expect("held");
    assert_eq!(circuits(&scraper).await, [Circuit { relay: relay.key.public(), at: moved }]);
}

#[tokio::test]
async fn a_scraper_whose_node_has_no_room_for_it_does_not_hurry() {
    let limits = NetworkLimits { connections_per_peer: 0, ..NetworkLimits::default() };
    let listen = vec![HostPort { host: "127.0.0.1".to_owned(), port: 0 }];
    let config = NetworkConfig { listen, limits, ..NetworkConfig::new(NetworkRole::Node) };
    let node = Peer::start_with(KeyPair::generate(), Firewall::Anyone, config).await;
    let scraper = Peer::start(NetworkRole::Scraper, Firewall::Anyone, vec![node.addr().await]).await;
    let mut events = scraper.network.links().events();
    let mut linked = 0;
    let counted = async {
        while let Ok(event) = events.recv().await {
            linked += usize::from(matches!(event, LinkEvent::Up(_)));
        }
    };
    time::timeout(Duration::from_secs(5), counted).await.expect_err("events go on");
    assert!((1..20).contains(&linked), "linked {linked} times in 5 s, and refused each time");
}

#[tokio::test]
async fn nobody_but_its_scrapers_connects_to_a_client_that_listens() {
    let node = Peer::start(NetworkRole::Node, Firewall::Anyone, Vec::new()).await;
    let client = Peer::start(NetworkRole::Client, Firewall::Anyone, vec![node.addr().await]).await;
    let mut listening = client.network.listening().iter();
    let at = listening.find(|at| at.is_ipv4()).expect("an IPv4 listener").port();
    let address = PeerAddr::at(client.key.public(), "127.0.0.1", at);
    let friend = Peer::start(NetworkRole::Scraper, Firewall::Anyone, Vec::new()).await;
    let stranger = Peer::start(NetworkRole::Scraper, Firewall::Anyone, Vec::new()).await;
    client.network.links().keep(friend.key.public());
    stranger.network.connect(&address).await.ok();
    friend.network.connect(&address).await.expect("connects");
    within("the friend", client.network.links().up(&friend.key.public())).await;
    within("the stranger's end", stranger.network.links().down(&address.key)).await;
    assert_eq!(client.network.links().path(&stranger.key.public()), None);
}

#[tokio::test]
async fn a_refused_connection_and_a_cut_one_have_different_kinds() {
    let client = Peer::start(NetworkRole::Client, Firewall::Anyone, Vec::new()).await;
    let kinds = async |at: SocketAddr| {
        let hint = HostPort { host: at.ip().to_string(), port: at.port() }.into();
        let peer = PeerAddr { key: KeyPair::generate().public(), hint: Some(hint) };
        let error = client.network.connect_over(&peer, LinkTransport::Tcp).await.expect_err("nobody is there");
        let ConnectError::Unreachable { attempts, .. } = &error else { panic!("{error}") };
        (attempts.iter().map(|attempt| attempt.kind).collect::<Vec<_>>(), error.was_cut())
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let cut = async { listener.accept().await.map(drop).expect("somebody comes") };
    let (found, ()) = futures::future::join(kinds(at), cut).await;
    assert_eq!(found, (vec![AttemptKind::Cut], true));
    drop(listener);
    assert_eq!(kinds(at).await, (vec![AttemptKind::Refused], false));
}

#[tokio::test]
async fn a_full_node_says_which_limit_refuses() {
    let limits = NetworkLimits { connections_per_private_address: 1, ..NetworkLimits::default() };
    let listen = vec![HostPort { host: "127.0.0.1".to_owned(), port: 0 }];
    let config = NetworkConfig { listen, limits, ..NetworkConfig::new(NetworkRole::Node) };
    let node = Peer::start_with(KeyPair::generate(), Firewall::Anyone, config).await;
    let client = async || Peer::start(NetworkRole::Client, Firewall::Anyone, Vec::new()).await;
    let first = client().await;
    first.network.connect_over(&node.addr().await, LinkTransport::Tcp).await.expect("the one place");
    let links = node.network.links();
    within("up", links.wait_until(|| links.path(&first.key.public()).is_some())).await;
    // The line and the close are on the way at the same moment as what the client begins with.
    for _ in 0..20 {
        let refused = client().await.network.connect_over(&node.addr().await, LinkTransport::Tcp).await;
        let error = refused.expect_err("no place");
        let ConnectError::Unreachable { attempts, .. } = &error else { panic!("{error}") };
        assert!(attempts.iter().all(|attempt| attempt.kind == AttemptKind::NoRoom), "{error}");
        assert!(error.to_string().contains("limit is max-connections-per-private-ip"), "{error}");
    }
    assert_eq!(node.network.inbound().refused_address, 20);
    assert_eq!(node.network.refusals().counted(crate::telemetry::Limit::ConnectionsPerPrivateIp), 20);
}

/// Whoever comes with many others at once, as an office does when its line is back.
#[tokio::test]
async fn a_host_without_a_place_for_a_handshake_says_so() {
    let limits = NetworkLimits { half_open_per_private_address: 1, ..NetworkLimits::default() };
    let listen = vec![HostPort { host: "127.0.0.1".to_owned(), port: 0 }];
    let config = NetworkConfig { listen, limits, ..NetworkConfig::new(NetworkRole::Scraper) };
    let scraper = Peer::start_with(KeyPair::generate(), Firewall::Anyone, config).await;
    let at = scraper.network.listening()[0].to_string();
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(tokio::net::TcpStream::connect(&at).await.expect("connects"));
    }
    let mut told = 0;
    for mut stream in silent {
        let mut said = String::new();
        // The few that have a place or wait for one are not answered.
        let read = time::timeout(Duration::from_millis(200), stream.read_to_string(&mut said)).await;
        if matches!(read, Ok(Ok(1..))) && said.starts_with("narthex: refused: ") {
            assert_eq!(said, "narthex: refused: max_half_open_per_private_ip\n");
            told += 1;
        }
    }
    assert!(told >= 8, "{told} of 16");
}
