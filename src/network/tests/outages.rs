//! Links that died silently, and peers that are waited for.

use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::{
    Node, NodeConfig,
    network::{followers, handle::Network},
    wire::{FOLLOW_PROTOCOL, follow},
};

/// A line to there, which carries nothing any more, and tells nobody, once the sender says `true`.
async fn line(there: SocketAddr) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (at, cut) = (listener.local_addr().expect("bound"), watch::Sender::new(false));
    let is_cut = cut.subscribe();
    tokio::spawn(async move {
        while let Ok((mut here, _)) = listener.accept().await {
            let mut is_cut = is_cut.clone();
            tokio::spawn(async move {
                let mut there = TcpStream::connect(there).await.expect("connects");
                let carried = tokio::io::copy_bidirectional(&mut here, &mut there);
                let cut = async {
                    let _ = is_cut.wait_for(|cut| *cut).await;
                };
                tokio::select! {
                    _ = carried => {}
                    () = cut => std::future::pending().await,
                }
            });
        }
    });
    (at, cut)
}

fn other_ways(network: &Network) {
    network.dialler.host.send_modify(|changes| {
        changes.any += 1;
        changes.ways += 1;
    });
}

/// Before: seen by the missing pull, or by a keep-alive after 35 s.
#[tokio::test]
async fn a_silent_link_is_closed_soon_after_this_host_has_another_way_out() {
    let scraper = Peer::start(NetworkRole::Scraper, Firewall::Anyone, Vec::new()).await;
    let client = Peer::start(NetworkRole::Client, Firewall::Anyone, Vec::new()).await;
    let key = scraper.key.public();
    let (at, cut) = line(scraper.network.listening()[0]).await;
    client.network.connect(&PeerAddr::at(key, "127.0.0.1", at.port())).await.expect("connects");
    let links = client.network.links();
    links.keep(key);
    let first = links.best(&key);
    other_ways(&client.network);
    time::sleep(Duration::from_secs(3)).await;
    assert_eq!(links.best(&key), first, "a link that answers stays");
    cut.send_replace(true);
    other_ways(&client.network);
    within("down", links.down(&key)).await;
}

/// Before: a scraper pulled over TCP, which comes first, until three pulls and a probe were lost.
#[tokio::test]
async fn connections_that_a_peer_has_left_behind_are_closed_when_it_registers_over_another() {
    let scraper = Peer::start(NetworkRole::Scraper, Firewall::Anyone, Vec::new()).await;
    let client = Peer::start(NetworkRole::Client, Firewall::Anyone, Vec::new()).await;
    let (key, peer) = (scraper.key.public(), client.key.public());
    let there = scraper.network.listening()[0];
    let (at, cut) = line(there).await;
    client.network.connect(&PeerAddr::at(key, "127.0.0.1", at.port())).await.expect("connects");
    let links = scraper.network.links();
    within("up", links.up(&peer)).await;
    links.keep(peer);
    client.network.links().keep(key);
    let old = links.best(&peer).expect("TCP");
    let at = PeerAddr::at(key, there.ip().to_string(), there.port());
    client.network.connect_over(&at, LinkTransport::Quic).await.expect("connects");
    within("both", links.wait_until(|| links.transports(&peer) == [LinkTransport::Tcp, LinkTransport::Quic])).await;
    let new = links.direct(&peer)[1];

    scraper.network.test_before(&peer, LinkId(new)).await;
    time::sleep(Duration::from_secs(3)).await;
    assert_eq!(links.best(&peer), Some(old), "a connection that answers stays");
    cut.send_replace(true);
    scraper.network.test_before(&peer, LinkId(new)).await;
    within("closed", links.wait_until(|| links.direct(&peer) == [new])).await;
}

async fn node() -> (Node, Vec<PeerAddr>) {
    let mut config = NodeConfig::new(KeyPair::generate());
    config.listen = vec![HostPort { host: "127.0.0.1".to_owned(), port: 0 }];
    let node = Node::start(config).await.expect("starts");
    let at = node.listening()[0];
    let known = vec![PeerAddr::at(node.public_key(), at.ip().to_string(), at.port())];
    (node, known)
}

/// Nobody dials here but who was told by the node.
#[tokio::test]
async fn who_follows_a_key_is_linked_when_its_owner_comes() {
    let (_node, known) = node().await;
    let (key, client) = (KeyPair::generate(), Peer::start(NetworkRole::Client, Firewall::Anyone, known.clone()).await);
    let peer = key.public();
    let network = client.network.clone();
    let following = tokio::spawn(async move { linked_by_following(&network, &peer).await });
    // The node is linked for longer than an idle link is.
    time::sleep(Duration::from_secs(13)).await;
    assert!(client.network.links().path(&known[0].key).is_some() && !following.is_finished());
    let _scraper = Peer::start_as(key, NetworkRole::Scraper, Firewall::Anyone, known).await;
    within("told", following).await.expect("no panic");
    assert!(client.network.links().path(&peer).is_some());
}

#[tokio::test]
async fn a_peer_follows_few_keys_at_a_node_and_may_follow_others_later() {
    let (_node, known) = node().await;
    let client = Peer::start(NetworkRole::Client, Firewall::Anyone, known.clone()).await;
    client.network.link_node(&known[0]).await.expect("links");
    let follow = async || {
        let mut stream = client.network.open(&known[0].key, FOLLOW_PROTOCOL).await.expect("opens");
        follow::follow(&mut stream, &KeyPair::generate().public()).await.map(|()| stream)
    };
    let mut followed = Vec::new();
    for _ in 0..followers::MOST_OF_PEER {
        followed.push(within("heard", follow()).await.expect("there is a place"));
    }
    for _ in 0..2 * followers::MOST_OF_PEER {
        assert!(within("refused", follow()).await.is_err(), "a refusal makes no room");
    }
    followed.pop();
    within("a place", async {
        while follow().await.is_err() {
            time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_scraper_announces_again_when_its_host_has_another_way_out() {
    let (_node, known) = node().await;
    let scraper = Peer::start(NetworkRole::Scraper, Firewall::Anyone, known).await;
    let key = scraper.key.public();
    within("announced", scraper.network.announced()).await;
    // What comes with the start settles: a link, addresses, a reservation that is refused.
    time::sleep(Duration::from_secs(3)).await;
    let announced_at = async || scraper.network.find(&key).await.expect("asks").expect("is announced").announced_at;
    let before = announced_at().await;
    time::sleep(Duration::from_secs(2)).await;
    assert_eq!(announced_at().await, before, "for no reason");
    other_ways(&scraper.network);
    within("again", async {
        while announced_at().await == before {
            time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}
