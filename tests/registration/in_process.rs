//! Clients and a scraper in one process: what a registration leaves behind, and what one link bears.

use std::{convert::Infallible, time::Duration};

use narthex::{Client, KeyPair, PeerAddr, Scraper, ScraperConfig, SharedSecret, client::EventKind, identity::HostPort};

use crate::support::http;

fn local() -> HostPort {
    HostPort::new("127.0.0.1", 0)
}

async fn scraper(dir: &tempfile::TempDir, secret: &SharedSecret) -> (Scraper, PeerAddr) {
    let mut config = ScraperConfig::new(KeyPair::generate(), vec![secret.clone()], dir.path());
    config.http = local().into();
    config.listen = vec![local()];
    let scraper = Scraper::start(config).await.expect("starts");
    let at = scraper.listening()[0];
    let peer = PeerAddr::at(scraper.public_key(), at.ip().to_string(), at.port());
    (scraper, peer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_ends_at_any_moment_leaves_no_alias_behind() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let secret = SharedSecret::generate();
    let (scraper, peer) = scraper(&dir, &secret).await;
    let registered = scraper.events();
    // Ever longer lives, until some of them come as far as registering: how long that takes depends on the machine.
    let mut moments = (0..16).map(|round| Duration::from_millis(1 << round));
    while registered.is_empty() {
        let step = moments.next().expect("a minute is enough to register");
        let mut ending = tokio::task::JoinSet::new();
        for n in 0..60 {
            let builder = Client::builder(peer.clone(), secret.clone())
                .alias(format!("brief-{n}"))
                .metrics(|| Ok::<_, Infallible>("m 1\n".to_owned()));
            ending.spawn(async move {
                let client = builder.start().await.expect("starts");
                tokio::time::sleep(step * n).await; // the moment that is tried
                client.shutdown().await;
            });
        }
        while let Some(ended) = ending.join_next().await {
            ended.expect("no panic");
        }
    }
    assert_eq!(get(scraper.http_addr().expect("of TCP"), "/sd").await, (200, "[]".to_owned()), "left behind");
    scraper.shutdown().await.expect("ends");
}

async fn get(address: std::net::SocketAddr, path: &'static str) -> (u16, String) {
    let asked = tokio::task::spawn_blocking(move || http::get(address, path, &[]).expect("an answer"));
    let answer = asked.await.expect("no panic");
    (answer.status, answer.text())
}

#[tokio::test(flavor = "multi_thread")]
async fn more_scrapes_of_one_peer_than_it_has_streams_all_succeed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let secret = SharedSecret::generate();
    let (scraper, peer) = scraper(&dir, &secret).await;
    let client = Client::builder(peer, secret)
        .alias("busy")
        .metrics(|| {
            std::thread::sleep(Duration::from_millis(10)); // long enough for the others to pile up
            Ok::<_, Infallible>("m 1\n".to_owned())
        })
        .start()
        .await
        .expect("starts");
    let mut events = client.events();
    while !matches!(events.recv().await.expect("an event").kind, EventKind::Registered { .. }) {}
    let mut scrapes = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let address = scraper.http_addr().expect("of TCP");
        scrapes.spawn(async move { get(address, "/scrape/busy/metrics").await });
    }
    while let Some(answer) = scrapes.join_next().await {
        assert_eq!(answer.expect("no panic"), (200, "m 1\n".to_owned()));
    }
    assert!(client.is_linked(&scraper.public_key()));
    client.shutdown().await;
    scraper.shutdown().await.expect("ends");
}
