//! Attacks on nodes, and through them.

use std::convert::Infallible;

use futures::future;
use narthex::{
    Client, KeyPair, Node, NodeConfig, PeerAddr, PublicKey, Scraper, ScraperConfig, SharedSecret, client::EventKind,
    identity::HostPort,
};
use tokio::time::timeout;

use crate::support::{SOON, dht_peer::DhtPeer, ports::free_port};

/// As many as a node names in one answer, and as many as a look-up asks.
const SYBILS: usize = 20;
const CLIENTS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_ground_keys_do_not_hide_a_scraper_that_starts_after_them() {
    let (key, secret) = (KeyPair::generate(), SharedSecret::generate());
    let about = key.public();
    let (_nodes, peers) = nodes_that_know_each_other(4).await;
    for key in DhtPeer::ground_keys(&about, SYBILS, 1_000) {
        let nearest = peers.iter().map(|peer| DhtPeer::distance(&peer.key, &about)).min();
        assert!(Some(DhtPeer::distance(&key.public(), &about)) < nearest, "not ground for long enough");
        // The sybil names others, and has no announcement.
        let mut sybil = DhtPeer::join(&key, &peers[0]).await;
        sybil.join_also(&peers[1..]).await;
        sybil.answer(&KeyPair::generate().public(), Vec::new()).await;
    }

    let data = tempfile::tempdir().expect("a temporary directory");
    let mut config = ScraperConfig::new(key, vec![secret.clone()], data.path());
    (config.http, config.listen, config.bootstrap) = (local(0), vec![local(free_port())], vec![peers[0].clone()]);
    let scraper = Scraper::start(config).await.expect("the scraper starts");
    timeout(SOON, scraper.announced()).await.expect("it is announced");

    let clients = (0..CLIENTS).map(|number| finds(about, &secret, &peers[number % peers.len()]));
    let found = future::join_all(clients).await.into_iter().filter(|found| *found).count();
    assert_eq!(found, CLIENTS);
    scraper.shutdown().await.expect("it ends");
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
    let client = Client::builder(scraper, secret.clone())
        .bootstrap([node.clone()])
        .alias("seeker")
        .metrics(|| Ok::<_, Infallible>("m 1\n".to_owned()))
        .start()
        .await
        .expect("the client starts");
    let mut events = client.events();
    let linked =
        async { while !matches!(events.recv().await.expect("events go on").kind, EventKind::LinkUp { .. }) {} };
    timeout(SOON, linked).await.is_ok()
}

fn local(port: u16) -> HostPort {
    HostPort::new("127.0.0.1", port)
}
