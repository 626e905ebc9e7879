//! Attacks on nodes, and through them.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use futures::{StreamExt, future};
use libp2p::{
    Multiaddr, SwarmBuilder,
    autonat::v2::client,
    identify,
    multiaddr::Protocol,
    noise,
    swarm::{FromSwarm, NetworkBehaviour, NewExternalAddrCandidate, SwarmEvent},
    tcp, yamux,
};
use narthex::{
    KeyPair, Node, NodeConfig, PeerAddr, PublicKey, Scraper, ScraperConfig, SharedSecret, client::EventKind,
    identity::HostPort,
};
use tokio::time::timeout;

use crate::support::{
    SOON,
    dht_peer::DhtPeer,
    fleet::Fleet,
    http,
    linked::seeker,
    ports::{free_port, loopback},
};

/// As many as a node names in one answer, and as many as a look-up asks.
const SYBILS: usize = 20;
const CLIENTS: usize = 12;
/// How long a client may look for a scraper. After 20 s a hidden one is found too.
const FOUND: Duration = Duration::from_secs(4);

/// With tables that take whoever claims to be a node, none of the 12 found it in this time.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_ground_keys_do_not_hide_a_scraper_that_starts_after_them() {
    let (key, secret) = (KeyPair::generate(), SharedSecret::generate());
    let about = key.public();
    let (_nodes, peers) = nodes_that_know_each_other(4).await;
    for key in DhtPeer::ground_keys(&about, SYBILS, 10_000) {
        let nearest = peers.iter().map(|peer| DhtPeer::distance(&peer.key, &about)).min();
        assert!(Some(DhtPeer::distance(&key.public(), &about)) < nearest, "not ground for long enough");
        // The sybil names others, and has no announcement.
        let mut sybil = DhtPeer::join(&key, &peers[0]).await;
        sybil.join_also(&peers[1..]).await;
        sybil.answer(&KeyPair::generate().public(), Vec::new()).await;
    }

    let data = tempfile::tempdir().expect("a temporary directory");
    let mut config = ScraperConfig::new(key, vec![secret.clone()], data.path());
    (config.http, config.listen, config.bootstrap) =
        (local(0).into(), vec![local(free_port())], vec![peers[0].clone()]);
    let scraper = Scraper::start(config).await.expect("the scraper starts");
    timeout(SOON, scraper.announced()).await.expect("it is announced");

    let clients = (0..CLIENTS).map(|number| finds(about, &secret, &peers[number % peers.len()]));
    let found = future::join_all(clients).await.into_iter().filter(|found| *found).count();
    assert_eq!(found, CLIENTS);
    scraper.shutdown().await.expect("it ends");
}

/// A stranger, which asks nodes whether addresses can be reached, its own or others.
#[derive(NetworkBehaviour)]
struct Stranger {
    asks: client::Behaviour,
    identify: identify::Behaviour,
}

/// Has a node asked to dial these addresses back; gives how many it reached as its asker demands, once all are answered.
/// The stranger's identify asks about one more, from which the node sees the stranger come.
async fn ask_to_dial(node: &PeerAddr, addresses: &[SocketAddr], own: Option<SocketAddr>) -> usize {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .expect("a transport")
        .with_behaviour(|key| Stranger {
            asks: client::Behaviour::default(),
            identify: identify::Behaviour::new(identify::Config::new("/narthex/1".into(), key.public())),
        })
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(SOON))
        .build();
    let multiaddr = |at: SocketAddr| Multiaddr::from(at.ip()).with(Protocol::Tcp(at.port()));
    if let Some(own) = own {
        swarm.listen_on(multiaddr(own)).expect("a free port");
    }
    let node = node.hint.as_ref().expect("an address").host_port();
    swarm.dial(multiaddr((node.ip().expect("an IP address"), node.port).into())).expect("dials");
    for addr in addresses.iter().copied().map(multiaddr) {
        let candidate = NewExternalAddrCandidate { addr: &addr };
        swarm.behaviour_mut().asks.on_swarm_event(FromSwarm::NewExternalAddrCandidate(candidate));
    }
    let (mut answers, mut reached) = (0, 0);
    let all = async {
        while answers < addresses.len() {
            if let SwarmEvent::Behaviour(StrangerEvent::Asks(answer)) = swarm.select_next_some().await
                && addresses.iter().any(|asked| multiaddr(*asked) == answer.tested_addr)
            {
                answers += 1;
                reached += usize::from(answer.result.is_ok());
            }
        }
    };
    timeout(SOON, all).await.expect("every question is answered");
    reached
}

/// Listeners on this address, and how many of them somebody has connected to.
fn victims(ip: &str, count: usize) -> (Vec<TcpListener>, Vec<SocketAddr>) {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind((ip, 0)).expect("a port")).collect();
    let addresses = listeners.iter().map(|one| one.local_addr().expect("an address")).collect();
    listeners.iter().for_each(|one| one.set_nonblocking(true).expect("non-blocking"));
    (listeners, addresses)
}

fn connected(victims: &[TcpListener]) -> usize {
    victims.iter().filter(|one| one.accept().is_ok()).count()
}

/// A counter of the node's metrics.
fn count(http: SocketAddr, series: &str) -> u64 {
    let metrics = http::get(http, "/metrics", &[]).expect("an answer").text();
    let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {series} in {metrics}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_dials_no_private_address_for_a_stranger() {
    let fleet = Fleet::new();
    let http = loopback(free_port());
    let node = fleet.node_with(&["--http", &http.to_string()]);
    let (listeners, addresses) = victims("127.0.0.1", 3);
    assert_eq!((ask_to_dial(&node.peer, &addresses, None).await, connected(&listeners)), (0, 0));
    assert!(count(http, "narthex_dial_backs_total{outcome=\"refused\"}") >= 3);
    assert_eq!(count(http, "narthex_dial_backs_total{outcome=\"answered\"}"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_dials_its_askers_own_address_alone() {
    let fleet = Fleet::new();
    let node = fleet.node_with(&["--allow-private-dial-back"]);
    let (listeners, addresses) = victims("127.0.0.2", 1);
    assert_eq!((ask_to_dial(&node.peer, &addresses, None).await, connected(&listeners)), (0, 0));
    let own = loopback(free_port());
    assert_eq!(ask_to_dial(&node.peer, &[own], Some(own)).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_dials_one_peer_back_as_often_as_its_limit_says() {
    for flag in ["--max-dial-backs-per-peer", "--max-dial-backs"] {
        let (fleet, http) = (Fleet::new(), loopback(free_port()));
        let node = fleet.node_with(&["--http", &http.to_string(), "--allow-private-dial-back", flag, "1"]);
        let (listeners, addresses) = victims("127.0.0.1", 4);
        assert_eq!(ask_to_dial(&node.peer, &addresses, None).await, 0);
        assert!(connected(&listeners) <= 1);
        let limit = flag.trim_start_matches('-').replace('-', "_");
        assert!(count(http, &format!("narthex_limit_refusals_total{{limit=\"{limit}\"}}")) >= 3);
    }
}

/// Nodes each of which was told of all others.
async fn nodes_that_know_each_other(count: usize) -> (Vec<Node>, Vec<PeerAddr>) {
    let keys: Vec<KeyPair> = (0..count).map(|_| KeyPair::generate()).collect();
    let peers: Vec<PeerAddr> = keys.iter().map(|key| PeerAddr::at(key.public(), "127.0.0.1", free_port())).collect();
    let mut nodes = Vec::new();
    for (key, own) in keys.into_iter().zip(&peers) {
        let mut config = NodeConfig::new(key);
        config.listen = vec![own.hint.as_ref().expect("an address").host_port().clone()];
        config.bootstrap = peers.iter().filter(|peer| peer.key != own.key).cloned().collect();
        nodes.push(Node::start(config).await.expect("the node starts"));
    }
    (nodes, peers)
}

/// Whether a client that knows one node finds a scraper by its key.
async fn finds(scraper: PublicKey, secret: &SharedSecret, node: &PeerAddr) -> bool {
    let client = seeker(scraper, secret, std::slice::from_ref(node)).await;
    let mut events = client.events();
    let linked =
        async { while !matches!(events.recv().await.expect("events go on").kind, EventKind::LinkUp { .. }) {} };
    timeout(FOUND, linked).await.is_ok()
}

fn local(port: u16) -> HostPort {
    HostPort::new("127.0.0.1", port)
}
