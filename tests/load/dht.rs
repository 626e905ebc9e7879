//! A network of twenty nodes, each told of its neighbours: a scraper is found by its key alone, and forged announcements are
//! refused.
#![expect(clippy::print_stdout, reason = "how long it took is printed on demand")]

use std::{
    net::{TcpListener, UdpSocket},
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use libp2p::Multiaddr;
use narthex::{
    KeyPair, Node, NodeConfig, PeerAddr, PublicKey, Scraper, ScraperConfig, SharedSecret, client::EventKind,
    identity::HostPort, wire::Announcement,
};
use tokio::time::{sleep, timeout};

use crate::{
    MACHINE,
    support::{SOON, dht_peer::DhtPeer, http, linked::seeker, ports::free_port},
};

const NODES: usize = 20;
/// Twenty nodes in a debug build keep two cores busy for some 20 s until their routing tables are full.
const AT_LAST: Duration = Duration::from_secs(90);
/// A sequence as good as any other.
const NOW: u64 = 1_000;
const DAY: i64 = 24 * 60 * 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_scraper_is_found_by_its_key_from_every_node_of_twenty() {
    let _alone = MACHINE.lock().await;
    let mut network = Network::chained(NODES).await;
    let fleet = Fleet::new();
    let everywhere: Vec<PeerAddr> = network.peers.clone();

    let scraper = fleet.scraper(&everywhere[10]).await;
    fleet.find_from("while the nodes get to know each other", &everywhere[..4]).await;
    fleet.find_from("from every node", &everywhere).await;

    scraper.shutdown().await.expect("it ends");
    let scraper = fleet.scraper(&everywhere[3]).await;
    fleet.find_from("after it has moved", &everywhere[10..]).await;

    // Their ports swallow everything, as if the hosts were gone.
    let dead = [5, 11, 17];
    let mut silent = Vec::new();
    for number in dead {
        silent.push(network.replace_by_dead_node(number).await);
    }
    let alive: Vec<PeerAddr> = everywhere
        .iter()
        .enumerate()
        .filter(|(number, _)| !dead.contains(number))
        .map(|(_, peer)| peer.clone())
        .collect();
    fleet.find_from("with three dead nodes", &alive).await;

    scraper.shutdown().await.expect("it ends");
    let scraper = fleet.scraper(&everywhere[8]).await;
    fleet.find_from("moved again, with three dead nodes", &alive).await;
    scraper.shutdown().await.expect("it ends");
}

/// One honest node among those that a client was told of is enough. A client whose only node lies depends on it: the client
/// finds the scraper if the node names others, as nodes do that merely give a false announcement.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_lie_about_a_scraper_do_not_keep_clients_from_it() {
    const HONEST: usize = 6;
    let _alone = MACHINE.lock().await;
    let network = Network::chained(HONEST).await;
    let fleet = Fleet::new();
    // Where nobody answers, or somebody else: nobody must be sent there.
    let (silent, elsewhere) = (TcpListener::bind("127.0.0.1:0").expect("a port"), free_port());
    let silent_port = silent.local_addr().expect("its address").port();
    let key = &fleet.key;
    let lies = [
        ("forged", announcement(&KeyPair::generate(), elsewhere, NOW + 10, minutes(10))),
        ("resigned", resigned(key, &KeyPair::generate(), elsewhere)),
        ("old, of an address that refuses", announcement(key, elsewhere, 1, minutes(10))),
        ("old, of an address that is silent", announcement(key, silent_port, 2, minutes(10))),
        ("expired", announcement(key, elsewhere, u64::MAX, -DAY)),
        ("of the far future", announcement(key, elsewhere, u64::MAX, 60 * 60 * 24 * 365)),
        ("too long", [announcement(key, elsewhere, u64::MAX, minutes(10)), vec![0; 5_000]].concat()),
        ("longer than any packet", vec![0; 500_000]),
        ("empty", Vec::new()),
    ];
    let mut liars = Vec::new();
    for (what, lie) in lies {
        let liar = DhtPeer::join(&KeyPair::generate(), &network.peers[liars.len() % HONEST]).await;
        liars.push((what, liar.answer(&key.public(), lie).await));
    }
    let scraper = fleet.scraper(&network.peers[0]).await;
    // Each gives no true answer about the scraper. All but one name other nodes: an answer that nobody can read names none.
    for (what, liar) in liars.iter().filter(|(what, _)| *what != "longer than any packet") {
        fleet.find_from(&format!("through a node whose answer is {what}"), std::slice::from_ref(liar)).await;
    }
    let honest = &network.peers[HONEST - 1];
    for (what, liar) in &liars {
        let took = fleet.time_to_find(&[liar.clone(), honest.clone()]).await;
        println!("found through an honest node and one whose answer is {what}: {took:?}");
    }
    let told: Vec<PeerAddr> = liars.iter().map(|(_, liar)| liar.clone()).chain([honest.clone()]).collect();
    println!("found through one honest node and all that lie: {:?}", fleet.time_to_find(&told).await);
    fleet.find_from("through honest nodes, among nine that lie", &network.peers).await;
    scraper.shutdown().await.expect("it ends");
}

#[tokio::test]
async fn nodes_keep_only_what_its_owner_puts_signed_in_time_and_newer() {
    let _alone = MACHINE.lock().await;
    let network = Network::chained(3).await;
    let [owner, stranger] = [KeyPair::generate(), KeyPair::generate()];
    let about = owner.public();
    let good = |sequence| announcement(&owner, 1, sequence, minutes(10));
    let mut as_owner = DhtPeer::join(&owner, &network.peers[0]).await;
    let mut as_stranger = DhtPeer::join(&stranger, &network.peers[1]).await;
    let mut reader = DhtPeer::join(&KeyPair::generate(), &network.peers[2]).await;

    let later_by_a_stranger = good(NOW + 2);
    as_stranger.put(&about, &later_by_a_stranger).await;
    assert!(reader.answers(&about).await.is_empty(), "kept although its owner did not put it");

    let held = good(NOW);
    as_owner.publish(&held, &mut reader).await;
    let bad = [
        ("its own older one", good(NOW - 1)),
        ("another one of the same sequence", announcement(&owner, 2, NOW, minutes(10))),
        ("one of another key", announcement(&stranger, 1, NOW + 1, minutes(10))),
        ("one signed by another key", resigned(&owner, &stranger, 1)),
        ("one that expired a day ago", announcement(&owner, 1, NOW + 1, -DAY)),
        ("one of the far future", announcement(&owner, 1, NOW + 1, 3 * DAY)),
        ("one that is too long", [good(NOW + 1), vec![0; 5_000]].concat()),
        ("one that is longer than a packet", vec![0; 60_000]),
        ("one that is cut", good(NOW + 1).split_last().expect("not empty").1.to_vec()),
        ("nothing", Vec::new()),
    ];
    for (what, bytes) in bad {
        as_owner.put(&about, &bytes).await;
        as_stranger.put(&about, &bytes).await;
        assert_eq!(reader.answers(&about).await, [held.clone()].into(), "a node took {what}");
    }
    as_stranger.put(&about, &later_by_a_stranger).await;
    assert_eq!(reader.answers(&about).await, [held.clone()].into(), "a node took a later one from a stranger");
    as_owner.publish(&good(NOW + 1), &mut reader).await;
}

#[tokio::test]
async fn a_full_node_forgets_the_first_to_expire() {
    const ROOM: usize = 6;
    let _alone = MACHINE.lock().await;
    let (node, peer) = start_node(|config| config.limits.announcements = ROOM).await;
    let mut reader = DhtPeer::join(&KeyPair::generate(), &peer).await;
    let mut owners: Vec<PublicKey> = Vec::new();
    // Each expires before the ones that were there already, but for the last two.
    for life in [50, 40, 30, 20, 10, 5, 55, 54] {
        let owner = KeyPair::generate();
        let bytes = announcement(&owner, 1, unix_now().as_micros() as u64, minutes(life));
        DhtPeer::join(&owner, &peer).await.publish(&bytes, &mut reader).await;
        owners.push(owner.public());
    }
    let mut kept = Vec::new();
    for owner in &owners {
        kept.push(!reader.answers(owner).await.is_empty());
    }
    assert_eq!(kept, [true, true, true, true, false, false, true, true]);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scraper_that_no_node_keeps_knows_that_it_is_not_announced() {
    let _alone = MACHINE.lock().await;
    // The node accepts a put all the same.
    let (node, peer) = start_node(|config| config.limits.announcements = 0).await;
    let fleet = Fleet::new();
    let scraper = fleet.unannounced(&peer).await;
    assert!(timeout(Duration::from_secs(2), scraper.announced()).await.is_err());
    assert_eq!(announced_nodes(&scraper), 0.0);
    scraper.shutdown().await.expect("it ends");
    node.shutdown().await;

    let network = Network::chained(2).await;
    let scraper = fleet.scraper(&network.peers[0]).await;
    assert!(announced_nodes(&scraper) >= 1.0);
    scraper.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scraper_whose_clock_was_set_back_is_announced_all_the_same() {
    let _alone = MACHINE.lock().await;
    let network = Network::chained(2).await;
    let fleet = Fleet::new();
    let tomorrow = unix_now().as_micros() as u64 + 24 * 60 * 60 * 1_000_000;
    let left_behind = announcement(&fleet.key, free_port(), tomorrow, minutes(10));
    let mut reader = DhtPeer::join(&KeyPair::generate(), &network.peers[1]).await;
    DhtPeer::join(&fleet.key, &network.peers[0]).await.publish(&left_behind, &mut reader).await;
    let scraper = fleet.scraper(&network.peers[0]).await;
    fleet.find_from("after its clock was set back", &network.peers).await;
    scraper.shutdown().await.expect("it ends");
}

/// Before: nodes and clients took an announcement made an hour ago, by their clocks, as expired.
#[tokio::test(flavor = "multi_thread")]
async fn a_scraper_whose_clock_is_a_day_behind_is_found() {
    let _alone = MACHINE.lock().await;
    let network = Network::chained(2).await;
    let fleet = Fleet::new();
    let mut reader = DhtPeer::join(&KeyPair::generate(), &network.peers[1]).await;
    for behind in [DAY, 60 * 60] {
        let made = unix_now().as_micros() as u64 - behind as u64 * 1_000_000;
        let port = free_port();
        let by_its_clock = announcement(&fleet.key, port, made, minutes(60) - behind);
        DhtPeer::join(&fleet.key, &network.peers[0]).await.publish(&by_its_clock, &mut reader).await;
        let scraper = fleet.at(port, Vec::new()).await;
        fleet.find_from("by its announcement", &network.peers).await;
        scraper.shutdown().await.expect("it ends");
    }
}

/// The scraper's own gauge.
fn announced_nodes(scraper: &Scraper) -> f64 {
    let metrics = http::get(scraper.http_addr().expect("of TCP"), "/metrics", &[]).expect("the scraper answers").text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("narthex_announced_nodes ")).expect("a gauge");
    line.parse().expect("a number")
}

/// Announces that `key` is at this port of 127.0.0.1, from now for this number of seconds.
fn announcement(key: &KeyPair, port: u16, sequence: u64, lasts_s: i64) -> Vec<u8> {
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("an address");
    let expires_at = unix_now().as_secs().saturating_add_signed(lasts_s);
    Announcement::sign(key, &[address.to_vec()], sequence, expires_at).expect("fit to be announced")
}

/// An announcement of `key` with the signature of `other`.
fn resigned(key: &KeyPair, other: &KeyPair, port: u16) -> Vec<u8> {
    let mut bytes = announcement(key, port, u64::MAX, minutes(10));
    let theirs = announcement(other, port, u64::MAX, minutes(10));
    let signature = bytes.len() - 64;
    bytes.truncate(signature);
    [bytes, theirs[signature..].to_vec()].concat()
}

fn minutes(count: i64) -> i64 {
    count * 60
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970")
}

/// A node on a free port, with other settings than the default ones, and its address.
async fn start_node(set: impl FnOnce(&mut NodeConfig)) -> (Node, PeerAddr) {
    let (mut config, port) = (NodeConfig::new(KeyPair::generate()), free_port());
    config.listen = vec![local(port)];
    set(&mut config);
    let peer = PeerAddr::at(config.key.public(), "127.0.0.1", port);
    (Node::start(config).await.expect("a node starts"), peer)
}

/// Nodes that know each other.
struct Network {
    nodes: Vec<Option<Node>>,
    peers: Vec<PeerAddr>,
}

impl Network {
    /// Each was told of the two before it and the two after it.
    async fn chained(count: usize) -> Self {
        let new = || (KeyPair::generate(), free_port());
        let places: Vec<(KeyPair, u16)> = (0..count).map(|_| new()).collect();
        let peer = |(key, port): &(KeyPair, u16)| PeerAddr::at(key.public(), "127.0.0.1", *port);
        let peers: Vec<PeerAddr> = places.iter().map(peer).collect();
        let mut nodes = Vec::new();
        for (number, (key, port)) in places.into_iter().enumerate() {
            let mut config = NodeConfig::new(key);
            config.listen = vec![local(port)];
            let neighbours = peers[number.saturating_sub(2)..].iter().take(2 + number.min(2) + 1);
            config.bootstrap = neighbours.filter(|peer| **peer != peers[number]).cloned().collect();
            nodes.push(Some(Node::start(config).await.expect("a node starts")));
        }
        Self { nodes, peers }
    }

    /// The node ends, and what is sent to it is lost from then on, as if its host were gone.
    async fn replace_by_dead_node(&mut self, number: usize) -> (TcpListener, UdpSocket) {
        self.nodes[number].take().expect("still runs").shutdown().await;
        let at = ("127.0.0.1", self.peers[number].hint.as_ref().expect("an address").host_port().port);
        let bound = async {
            loop {
                match (TcpListener::bind(at), UdpSocket::bind(at)) {
                    (Ok(tcp), Ok(udp)) => return (tcp, udp),
                    _ => sleep(Duration::from_millis(20)).await, // its connections are still being closed
                }
            }
        };
        timeout(SOON, bound).await.expect("its port becomes free")
    }
}

/// A scraper's key, and those that look for it.
struct Fleet {
    key: KeyPair,
    secret: SharedSecret,
    data: tempfile::TempDir,
}

impl Fleet {
    fn new() -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        Self { key: KeyPair::generate(), secret: SharedSecret::generate(), data }
    }

    /// The scraper, at a port where it never was before, announced through one node.
    async fn scraper(&self, node: &PeerAddr) -> Scraper {
        let began = Instant::now();
        let scraper = self.unannounced(node).await;
        timeout(AT_LAST, scraper.announced()).await.expect("it is announced");
        println!("announced {:?} after its start", began.elapsed());
        scraper
    }

    /// As [`scraper`](Self::scraper), not announced yet.
    async fn unannounced(&self, node: &PeerAddr) -> Scraper {
        self.at(free_port(), vec![node.clone()]).await
    }

    async fn at(&self, port: u16, bootstrap: Vec<PeerAddr>) -> Scraper {
        let data: &Path = self.data.path();
        let mut config = ScraperConfig::new(self.key.clone(), vec![self.secret.clone()], data);
        config.http = local(0).into();
        config.listen = vec![local(port)];
        config.bootstrap = bootstrap;
        Scraper::start(config).await.expect("the scraper starts")
    }

    /// Looks for it from each of these nodes, one after the other, and prints how long that took.
    async fn find_from(&self, when: &str, nodes: &[PeerAddr]) {
        let mut times = Vec::new();
        for node in nodes {
            times.push(self.time_to_find(std::slice::from_ref(node)).await);
        }
        times.sort();
        println!("found {when}: median {:?}, worst {:?}", times[times.len() / 2], times[times.len() - 1]);
    }

    /// From nothing but its key and these nodes to a link.
    async fn time_to_find(&self, nodes: &[PeerAddr]) -> Duration {
        let began = Instant::now();
        let client = seeker(self.key.public(), &self.secret, nodes).await;
        let mut events = client.events();
        let linked = async {
            loop {
                match events.recv().await.expect("events go on").kind {
                    EventKind::LinkUp { .. } => return began.elapsed(),
                    EventKind::LinkFailed { error, .. } => println!("through {nodes:?}: {error}"),
                    _ => {}
                }
            }
        };
        timeout(AT_LAST, linked).await.expect("the scraper is found")
    }
}

fn local(port: u16) -> HostPort {
    HostPort::new("127.0.0.1", port)
}
