//! What a relay bears, and what it does not: with peers that keep to none of our own limits.

use std::collections::HashMap;

use futures::{StreamExt, future};
use libp2p::{
    PeerId, Swarm, SwarmBuilder,
    core::transport::ListenerId,
    multiaddr::Protocol,
    noise, ping, relay,
    swarm::{
        ConnectionId, NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp,
};
use tokio::sync::oneshot;

use super::*;
use crate::{
    network::{
        failure::{DialFailure, NoReservation},
        transport::muxing,
    },
    telemetry::Limit,
};

/// Longer than libp2p waits for a stream, 10 s, also on a busy machine.
const LONG: Duration = Duration::from_secs(90);

/// A libp2p peer without any of our limits. Ends on drop.
struct Plain {
    id: PeerId,
    asks: mpsc::UnboundedSender<Ask>,
    /// How many peers are connected to it.
    inbound: watch::Receiver<usize>,
    _task: JoinSet<()>,
}

enum Ask {
    Reserve(Multiaddr, Reply),
    Dial(PeerId, Multiaddr, Reply),
    HangUp(PeerId),
}

type Reply = oneshot::Sender<Result<(), String>>;

#[derive(NetworkBehaviour)]
struct PlainBehaviour {
    relay: relay::client::Behaviour,
    /// As our own peers do with nodes, but more often: libp2p hands on only one inbound circuit each time that something
    /// happens on the connection to the relay, so that the last ones of a storm wait for the next ping.
    ping: ping::Behaviour,
}

impl Plain {
    fn start() -> Self {
        let swarm = SwarmBuilder::with_existing_identity(peer_id::keypair(&KeyPair::generate()))
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, muxing::yamux_config)
            .expect("TCP")
            .with_quic_config(|quic| muxing::quic_config(quic, NetworkRole::Scraper))
            .with_relay_client(noise::Config::new, muxing::yamux_config)
            .expect("circuits")
            .with_behaviour(|_, relay| {
                let often = ping::Config::new().with_interval(Duration::from_secs(1));
                PlainBehaviour { relay, ping: ping::Behaviour::new(often) }
            })
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
            .with_connection_timeout(LONG)
            .build();
        let (asks, inbox) = mpsc::unbounded_channel();
        let (inbound, count) = watch::channel(0);
        let (id, mut task) = (*swarm.local_peer_id(), JoinSet::new());
        task.spawn(run(swarm, inbox, inbound));
        Self { id, asks, inbound: count, _task: task }
    }

    async fn ask<T>(&self, ask: Ask, answer: oneshot::Receiver<T>) -> T {
        self.asks.send(ask).expect("it runs");
        time::timeout(LONG, answer).await.expect("an answer in time").expect("an answer")
    }

    async fn reserve(&self, relay: &Multiaddr) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Reserve(relay.clone().with(Protocol::P2pCircuit), reply), answer).await
    }

    /// Connects to the relay there, once, as many circuits asked for at once would all do.
    async fn connect(&self, relay: &Multiaddr) -> Result<(), String> {
        let Some(Protocol::P2p(id)) = relay.iter().last() else { return Err("no key".to_owned()) };
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Dial(id, relay.clone(), reply), answer).await
    }

    /// Opens a circuit to a peer through the relay there.
    async fn dial(&self, relay: &Multiaddr, peer: PeerId) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Dial(peer, relay.clone().with(Protocol::P2pCircuit), reply), answer).await
    }

    fn hang_up(&self, peer: PeerId) {
        self.asks.send(Ask::HangUp(peer)).expect("it runs");
    }
}

async fn run(mut swarm: Swarm<PlainBehaviour>, mut inbox: mpsc::UnboundedReceiver<Ask>, inbound: watch::Sender<usize>) {
    let mut dials: HashMap<ConnectionId, Reply> = HashMap::new();
    let mut reservations: HashMap<ListenerId, Reply> = HashMap::new();
    loop {
        let event = tokio::select! {
            event = swarm.select_next_some() => event,
            ask = inbox.recv() => {
                match ask {
                    Some(Ask::Reserve(at, reply)) => {
                        reservations.insert(swarm.listen_on(at).expect("a circuit's address"), reply);
                    }
                    Some(Ask::Dial(peer, at, reply)) => {
                        let options = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(vec![at]);
                        let options = options.build();
                        dials.insert(options.connection_id(), reply);
                        swarm.dial(options).expect("nothing denies it");
                    }
                    // Not connected is as good.
                    Some(Ask::HangUp(peer)) => drop(swarm.disconnect_peer_id(peer)),
                    None => return,
                }
                continue;
            }
        };
        let answer = |reply: Option<Reply>, result| drop(reply.map(|reply| reply.send(result)));
        match event {
            SwarmEvent::ConnectionEstablished { connection_id, endpoint, .. } => {
                inbound.send_modify(|count| *count += usize::from(endpoint.is_listener()));
                answer(dials.remove(&connection_id), Ok(()));
            }
            SwarmEvent::ConnectionClosed { endpoint, .. } => {
                inbound.send_modify(|count| *count -= usize::from(endpoint.is_listener()));
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                answer(dials.remove(&connection_id), Err(describe(DialFailure::from(error))));
            }
            SwarmEvent::NewListenAddr { listener_id, .. } => answer(reservations.remove(&listener_id), Ok(())),
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                let why = reason.map_or_else(|error| NoReservation::of(&error).to_string(), |()| "ended".to_owned());
                answer(reservations.remove(&listener_id), Err(why));
            }
            _ => {}
        }
    }
}

/// A relay with these limits, and its QUIC and TCP address.
async fn start(limits: RelayLimits) -> (Peer, Multiaddr, Multiaddr) {
    let at = free_port("127.0.0.1".parse().expect("an address")).expect("a port");
    let relay = Peer::start_relay_with(KeyPair::generate(), at, limits, Vec::new()).await;
    let key = Protocol::P2p(peer_id::peer_id(&relay.key.public()));
    (relay, address::quic(at).with(key.clone()), address::tcp(at).with(key))
}

/// Has many keys ask for circuits to one peer, all at the same time, eight each; gives the answers.
async fn storm(clients: &[Plain], relay: &Multiaddr, peer: PeerId) -> Vec<Result<(), String>> {
    let dial = async |client: &Plain| {
        client.connect(relay).await.expect("the relay");
        future::join_all((0..8).map(|_| client.dial(relay, peer))).await
    };
    future::join_all(clients.iter().map(dial)).await.concat()
}

async fn counted(relay: &Peer, what: &str, holds: impl Fn(&NodeCounts) -> bool) -> NodeCounts {
    let waiting = async {
        while !holds(&relay.network.node_counts()) {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    if time::timeout(LONG, waiting).await.is_err() {
        panic!("not in {LONG:?}: {what}: {:?}", relay.network.node_counts());
    }
    relay.network.node_counts()
}

fn describe(failure: DialFailure) -> String {
    let DialFailure::Unreachable { attempts } = failure else { return "another key".to_owned() };
    attempts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_circuits_to_one_peer_are_built_at_once() {
    let (relay, quic, tcp) = start(RelayLimits::default()).await;
    let scraper = Plain::start();
    scraper.reserve(&quic).await.expect("a reservation");
    let clients: Vec<Plain> = (0..64).map(|_| Plain::start()).collect();
    for answer in storm(&clients, &tcp, scraper.id).await {
        answer.expect("a circuit");
    }
    let counts = counted(&relay, "all are open", |counts| counts.circuits == 512).await;
    assert_eq!((counts.circuits_built, counts.circuits_refused, counts.reservations), (512, Default::default(), 1));
    drop(scraper);
    let counts = counted(&relay, "all have ended", |counts| counts.circuits == 0).await;
    assert_eq!((counts.circuits_ended.closed, counts.reservations), (512, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tcp_connection_full_of_circuits_refuses_more_and_lives() {
    let (relay, _, tcp) = start(RelayLimits::default()).await;
    let scraper = Plain::start();
    scraper.reserve(&tcp).await.expect("a reservation");
    let clients: Vec<Plain> = (0..16).map(|_| Plain::start()).collect();
    let answers = storm(&clients, &tcp, scraper.id).await;
    let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert!(refused.iter().all(|why| why.ends_with("refused: too many circuits")), "{refused:?}");
    let open = 128 - refused.len();
    assert_eq!(open, muxing::max_circuits(true));
    let no_room = CircuitRefusals { no_room: refused.len() as u64, ..CircuitRefusals::default() };
    counted(&relay, "the refusals", |counts| counts.circuits_refused == no_room).await;
    let mut inbound = scraper.inbound.clone();
    let all = time::timeout(LONG, inbound.wait_for(|inbound| *inbound == open));
    all.await.expect("what was open stays open").expect("it runs");

    clients.iter().for_each(|client| client.hang_up(scraper.id));
    let none = counted(&relay, "none is open", |counts| counts.circuits == 0).await;
    assert_eq!(none.reservations, 1, "the connection to the relay lives");
    clients[0].dial(&tcp, scraper.id).await.expect("there is room again");
}

#[tokio::test]
async fn a_limit_that_is_reached_is_named() {
    let limits = RelayLimits { reservations: 1, circuits_per_peer: 2, ..RelayLimits::default() };
    let (relay, quic, tcp) = start(limits).await;
    let (scraper, other, client) = (Plain::start(), Plain::start(), Plain::start());
    scraper.reserve(&quic).await.expect("a reservation");
    counted(&relay, "it is held", |counts| counts.reservations == 1).await;
    assert_eq!(other.reserve(&tcp).await.expect_err("full"), "refused: too many reservations");
    scraper.reserve(&quic).await.expect("who is in may renew");

    for _ in 0..2 {
        client.dial(&tcp, scraper.id).await.expect("a circuit");
    }
    let refused = client.dial(&tcp, scraper.id).await.expect_err("one too many");
    assert!(refused.starts_with("relay at 127.0.0.1:"), "{refused}");
    assert!(refused.ends_with(" tcp: refused: too many circuits"), "{refused}");
    other.dial(&tcp, scraper.id).await.expect("another key has its own share");
    let nowhere = client.dial(&tcp, other.id).await.expect_err("no reservation");
    // The share is used up, which is looked at first.
    assert!(nowhere.ends_with("too many circuits"), "{nowhere}");
    let nowhere = other.dial(&tcp, client.id).await.expect_err("no reservation");
    assert!(nowhere.ends_with("refused: the peer is not reachable through it"), "{nowhere}");
    let refused = CircuitRefusals { limit: 2, no_reservation: 1, ..CircuitRefusals::default() };
    counted(&relay, "the circuits refused", |counts| counts.circuits_refused == refused).await;
    counted(&relay, "the reservation refused", |counts| counts.reservations_refused == 1).await;
    let of = |limit| relay.network.refusals().counted(limit);
    let limits = [Limit::RelayReservations, Limit::RelayCircuitsPerPeer, Limit::RelayCircuits];
    assert_eq!(limits.map(of), [1, 2, 0]);
}

#[tokio::test]
async fn a_relay_that_carries_all_it_may_counts_the_limit_of_all() {
    let (relay, quic, tcp) = start(RelayLimits { circuits: 1, ..RelayLimits::default() }).await;
    let [scraper, client, other] = [(); 3].map(|()| Plain::start());
    scraper.reserve(&quic).await.expect("a reservation");
    client.dial(&tcp, scraper.id).await.expect("a circuit");
    other.dial(&tcp, scraper.id).await.expect_err("one too many");
    counted(&relay, "the refusal", |counts| counts.circuits_refused.limit == 1).await;
    let of = |limit| relay.network.refusals().counted(limit);
    assert_eq!([Limit::RelayCircuits, Limit::RelayCircuitsPerPeer].map(of), [1, 0]);
}

#[tokio::test]
async fn a_relay_for_listed_keys_makes_nobody_else_reachable() {
    let (listed, other) = (Plain::start(), Plain::start());
    let at = free_port("127.0.0.1".parse().expect("an address")).expect("a port");
    let address = vec![HostPort { host: at.ip().to_string(), port: at.port() }];
    let config = NetworkConfig {
        listen: address.clone(),
        external: address.into_iter().map(DialAddress::from).collect(),
        relay: Some(RelayLimits::default()),
        relay_for: vec![peer_id::public_key(&listed.id).expect("an Ed25519 key")],
        ..NetworkConfig::new(NetworkRole::Node)
    };
    let relay = Peer::start_with(KeyPair::generate(), Firewall::Anyone, config).await;
    let tcp = address::tcp(at).with(Protocol::P2p(peer_id::peer_id(&relay.key.public())));
    let refusal = other.reserve(&tcp).await.expect_err("not listed");
    assert!(refusal.contains("not permitted"), "{refusal}");
    listed.reserve(&tcp).await.expect("listed");
    other.dial(&tcp, listed.id).await.expect("a circuit to the one that is listed");
    counted(&relay, "both answers", |counts| (counts.reservations, counts.reservations_refused) == (1, 1)).await;
}

#[tokio::test]
async fn a_stranger_in_a_loop_is_slowed_down_and_its_neighbours_are_not() {
    let (relay, quic, tcp) = start(RelayLimits::default()).await;
    let scraper = Plain::start();
    let (stranger, neighbour) = (Plain::start(), Plain::start());
    // Both kinds of requests, in a row, from an address that others share.
    let mut refused = 0;
    for _ in 0..100 {
        refused += usize::from(stranger.reserve(&tcp).await.is_err());
    }
    assert!(refused > 0, "100 reservations in a row");
    let mut slowed = 0;
    for _ in 0..100 {
        let why = stranger.dial(&tcp, scraper.id).await.expect_err("no reservation");
        slowed += usize::from(why.ends_with("too many circuits"));
    }
    assert!(slowed > 0, "100 circuits in a row");
    scraper.reserve(&quic).await.expect("a reservation");
    neighbour.dial(&tcp, scraper.id).await.expect("a circuit");
    assert!(relay.network.node_counts().reservations <= 2);
}

/// A scraper and a client that are linked through a relay with these limits, and stay so.
async fn linked_through(limits: RelayLimits) -> (Peer, Peer, Peer) {
    let (relay, _, _) = start(limits).await;
    let bootstrap = vec![relay.addr().await];
    let listen = vec![HostPort { host: "127.0.0.1".to_owned(), port: 0 }];
    let peer = |role, listen| NetworkConfig {
        listen,
        bootstrap: bootstrap.clone(),
        hole_punching: false,
        ..NetworkConfig::new(role)
    };
    let config = peer(NetworkRole::Scraper, listen);
    let scraper = Peer::start_with(KeyPair::generate(), Firewall::Anyone, config).await;
    let config = peer(NetworkRole::Client, Vec::new());
    let client = Peer::start_with(KeyPair::generate(), Firewall::Anyone, config).await;
    client.network.links().keep(scraper.key.public());
    scraper.network.links().keep(client.key.public());
    let mut relays = scraper.network.links().relays().subscribe();
    within("a reservation", relays.wait_for(|held| *held == 1)).await.expect("held");
    (relay, scraper, client)
}

async fn link(scraper: &Peer, client: &Peer) {
    let circuits = circuits(scraper).await;
    client.network.dialler.dial_circuits(scraper.key.public(), circuits).await.expect("a circuit");
    within("up", scraper.network.links().up(&client.key.public())).await;
}

/// Pulls this number of bytes from the client.
async fn pull(scraper: &Peer, client: &mut Peer, bytes: usize) -> io::Result<()> {
    let mut pulling = scraper.network.open(&client.key.public(), ECHO).await.map_err(io::Error::other)?;
    pulling.write_all(b"x").await?;
    pulling.flush().await?;
    let mut served = within("a stream", client.inbox.recv()).await.expect("a stream").stream;
    let serving = async move {
        let _ = served.write_all(&vec![0; bytes]).await;
        let _ = served.shutdown().await;
    };
    let mut body = Vec::new();
    let (read, ()) = within("an end", future::join(pulling.read_to_end(&mut body), serving)).await;
    let read = read?;
    if read == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[tokio::test]
async fn a_circuit_that_has_carried_its_share_ends_and_the_next_is_built_at_once() {
    let limits = RelayLimits { circuit_bytes: 256 * 1024, ..RelayLimits::default() };
    let (relay, scraper, mut client) = linked_through(limits).await;
    link(&scraper, &client).await;
    pull(&scraper, &mut client, 64 * 1024).await.expect("small enough");
    assert!(pull(&scraper, &mut client, 1024 * 1024).await.is_err(), "more than its share");
    within("down", client.network.links().down(&scraper.key.public())).await;
    within("down", scraper.network.links().down(&client.key.public())).await;
    counted(&relay, "an end by bytes", |counts| counts.circuits_ended.bytes == 1).await;
    link(&scraper, &client).await;
    pull(&scraper, &mut client, 64 * 1024).await.expect("a new share");
}

#[tokio::test]
async fn a_circuit_that_has_lived_its_time_ends_and_the_next_is_built_at_once() {
    let limits = RelayLimits { circuit_duration: Duration::from_secs(3), ..RelayLimits::default() };
    let (relay, scraper, mut client) = linked_through(limits).await;
    link(&scraper, &client).await;
    within("down", client.network.links().down(&scraper.key.public())).await;
    within("down", scraper.network.links().down(&client.key.public())).await;
    counted(&relay, "an end by time", |counts| counts.circuits_ended.duration == 1).await;
    link(&scraper, &client).await;
    pull(&scraper, &mut client, 64 * 1024).await.expect("linked again");
}

/// A way to a relay that lets TCP through, and UDP once it is told to. Ends on drop.
struct Way {
    at: SocketAddr,
    relay: SocketAddr,
    tasks: JoinSet<()>,
    /// False while nothing passes.
    open: watch::Sender<bool>,
}

impl Way {
    async fn to(relay: SocketAddr) -> Self {
        let at = free_port(relay.ip()).expect("a port");
        let listener = tokio::net::TcpListener::bind(at).await.expect("the port");
        let open = watch::Sender::new(true);
        let (mut tasks, passes) = (JoinSet::new(), open.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let far = tokio::net::TcpStream::connect(relay).await.expect("the relay");
                let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
                connections.spawn(pass(from_near, to_far, passes.clone()));
                connections.spawn(pass(from_far, to_near, passes.clone()));
            }
        });
        Self { at, relay, tasks, open }
    }

    /// Lets UDP through, for one peer.
    async fn let_udp_through(&mut self) {
        let near = tokio::net::UdpSocket::bind(self.at).await.expect("the port");
        let far = tokio::net::UdpSocket::bind((self.at.ip(), 0)).await.expect("a port");
        far.connect(self.relay).await.expect("an address");
        self.tasks.spawn(async move {
            let (mut out, mut back, mut peer) = ([0; 2048], [0; 2048], None);
            loop {
                tokio::select! {
                    Ok((len, from)) = near.recv_from(&mut out) => {
                        peer = Some(from);
                        let _ = far.send(&out[..len]).await;
                    }
                    Ok(len) = far.recv(&mut back) => if let Some(peer) = peer {
                        let _ = near.send_to(&back[..len], peer).await;
                    },
                }
            }
        });
    }

    /// The relay's address, this way.
    fn addr(&self, relay: &Peer) -> PeerAddr {
        PeerAddr::at(relay.key.public(), self.at.ip().to_string(), self.at.port())
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    open: watch::Sender<bool>,
) {
    let (mut buffer, mut open) = (vec![0; 64 * 1024], open.subscribe());
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        let _ = open.wait_for(|open| *open).await;
        if to.write_all(&buffer[..len]).await.is_err() {
            break;
        }
    }
}

/// A scraper that reaches its relay this way alone, and holds a reservation there.
async fn scraper_behind(way: &Way, relay: &Peer) -> Peer {
    let scraper = Peer::start(NetworkRole::Scraper, Firewall::Anyone, vec![way.addr(relay)]).await;
    let mut relays = scraper.network.links().relays().subscribe();
    within("a reservation", relays.wait_for(|held| *held == 1)).await.expect("held");
    scraper
}

fn transports(scraper: &Peer, relay: &Peer) -> Vec<LinkTransport> {
    let opened = scraper.network.links().opened(&relay.key.public());
    opened.iter().map(|(_, at)| LinkTransport::of(at)).collect()
}

/// Asks for a circuit until there is one, as a client does.
async fn persist(client: &Plain, relay: &Multiaddr, scraper: PeerId) {
    while client.dial(relay, scraper).await.is_err() {
        time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scraper_without_udp_opens_further_connections_for_its_circuits() {
    let (relay, _, tcp) = start(RelayLimits::default()).await;
    let way = Way::to(relay.network.listening()[0]).await;
    let scraper = scraper_behind(&way, &relay).await;
    let id = peer_id::peer_id(&scraper.key.public());
    let clients: Vec<Plain> = (0..40).map(|_| Plain::start()).collect();
    for client in &clients {
        scraper.network.links().keep(peer_id::public_key(&client.id).expect("an Ed25519 key"));
        client.connect(&tcp).await.expect("the relay");
    }
    let five = async |client: &Plain| future::join_all((0..5).map(|_| persist(client, &tcp, id))).await;
    let all = future::join_all(clients.iter().map(five));
    time::timeout(LONG, all).await.expect("room for 200 circuits");
    counted(&relay, "all are open", |counts| counts.circuits == 200).await;
    let transports = transports(&scraper, &relay);
    assert!(transports.len() >= 3 && transports.iter().all(|one| *one == LinkTransport::Tcp), "{transports:?}");
    assert_eq!(*scraper.network.links().relays().borrow(), 1, "it is one relay");
    assert_eq!(relay.network.node_counts().reservations, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scraper_whose_udp_comes_late_moves_to_quic() {
    let (relay, _, tcp) = start(RelayLimits::default()).await;
    let mut way = Way::to(relay.network.listening()[0]).await;
    let scraper = scraper_behind(&way, &relay).await;
    // Longer than the first attempt at QUIC lasts.
    time::sleep(Duration::from_secs(4)).await;
    assert_eq!(transports(&scraper, &relay), [LinkTransport::Tcp]);
    way.let_udp_through().await;
    let links = scraper.network.links();
    let over_quic = links.wait_until(|| transports(&scraper, &relay).contains(&LinkTransport::Quic));
    time::timeout(LONG, over_quic).await.expect("QUIC is dialled again");
    counted(&relay, "a reservation there too", |counts| counts.reservations_granted == 2).await;

    let id = peer_id::peer_id(&scraper.key.public());
    let clients: Vec<Plain> = (0..16).map(|_| Plain::start()).collect();
    for client in &clients {
        links.keep(peer_id::public_key(&client.id).expect("an Ed25519 key"));
    }
    for answer in storm(&clients, &tcp, id).await {
        answer.expect("room for 128 circuits");
    }
    assert_eq!(transports(&scraper, &relay).len(), 2, "no further connection is needed");
    assert_eq!(relay.network.node_counts().circuits_refused.no_room, 0);
}

/// Before: a node closed the older connection of a peer that opened another, with all circuits over it.
#[tokio::test]
async fn a_node_closes_an_older_connection_of_a_peer_only_if_it_is_dead() {
    let (relay, _, _) = start(RelayLimits::default()).await;
    let way = Way::to(relay.network.listening()[0]).await;
    let scraper = scraper_behind(&way, &relay).await;
    let (key, at) = (relay.key.public(), address::tcp(way.at));
    let at_relay = |count: usize| {
        let links = relay.network.links();
        let peer = scraper.key.public();
        async move { links.wait_until(|| links.direct(&peer).len() == count).await }
    };
    // Longer than a peer takes that dials in several ways at once.
    time::sleep(Duration::from_secs(6)).await;
    scraper.network.dialler.connect_again(key, at.clone()).await.expect("another connection");
    within("both", at_relay(2)).await;
    time::sleep(Duration::from_secs(6)).await;
    assert_eq!(relay.network.links().direct(&scraper.key.public()).len(), 2, "the older one answers");

    way.open.send_replace(false);
    let other = Way::to(relay.network.listening()[0]).await;
    scraper.network.dialler.connect_again(key, address::tcp(other.at)).await.expect("a connection another way");
    within("the end of the dead ones", at_relay(1)).await;
}
