//! Clients and real scrapers on loopback.

use std::{collections::BTreeMap, convert::Infallible, fs, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{broadcast, mpsc, watch},
    time::timeout,
};

use super::*;
use crate::{
    Client, ClientBuilder, KeyPair, PeerAddr, Scraper, ScraperConfig, SharedSecret,
    client::Event,
    identity::HostPort,
    network::{Acceptor, Firewall, InboundStream, Network, NetworkConfig, NetworkRole},
    scraper::{self, Member},
    wire::{AliasOutcome, REGISTER_PROTOCOL, RegisterReply, RegisterRequest, Registered, channel},
};

/// Longest wait for what must come.
const SOON: Duration = Duration::from_secs(60);
/// As the client's own, in seconds instead of minutes.
const FAST: Pace = Pace {
    spread: Duration::from_millis(100),
    ask_every: Duration::from_millis(500),
    patience: Duration::from_secs(1),
    alone: Duration::from_millis(300),
    unnamed: Duration::from_secs(2),
    retry: Duration::from_secs(5),
};

/// Scrapers of one secret, each with a table of its own: what they share is none of a client's business.
struct Scrapers {
    secret: SharedSecret,
    /// What each of them names to clients.
    members: watch::Sender<Arc<[Member]>>,
    running: BTreeMap<PublicKey, (Scraper, tempfile::TempDir)>,
    at: Vec<PeerAddr>,
}

impl Scrapers {
    async fn start(count: usize) -> Self {
        let mut scrapers = Self {
            secret: SharedSecret::generate(),
            members: watch::Sender::default(),
            running: BTreeMap::new(),
            at: Vec::new(),
        };
        for _ in 0..count {
            let dir = tempfile::tempdir().expect("temporary directory");
            let mut config = ScraperConfig::new(KeyPair::generate(), vec![scrapers.secret.clone()], dir.path());
            let local = || HostPort::new("127.0.0.1", 0);
            (config.http, config.listen) = (local().into(), vec![local()]);
            config.members = Some(scrapers.members.subscribe());
            let scraper = Scraper::start(config).await.expect("starts");
            let at = scraper.listening()[0];
            scrapers.at.push(PeerAddr::at(scraper.public_key(), at.ip().to_string(), at.port()));
            scrapers.running.insert(scraper.public_key(), (scraper, dir));
        }
        scrapers
    }

    fn keys(&self) -> Vec<PublicKey> {
        self.at.iter().map(|at| at.key).collect()
    }

    fn member(&self, number: usize) -> Member {
        let at = &self.at[number];
        Member { key: at.key, addresses: at.hint.iter().cloned().collect() }
    }

    /// Has each scraper name all of these.
    fn name(&self, members: Vec<Member>) {
        self.members.send_replace(members.into());
    }

    /// A group of all scrapers.
    async fn group(count: usize) -> Self {
        let scrapers = Self::start(count).await;
        scrapers.name((0..count).map(|number| scrapers.member(number)).collect());
        scrapers
    }

    async fn kill(&mut self, key: PublicKey) {
        let (scraper, _dir) = self.running.remove(&key).expect("runs");
        scraper.shutdown().await.expect("ends");
    }

    /// A client of the first scraper.
    fn client(&self) -> ClientBuilder {
        let metrics = || Ok::<_, Infallible>("m 1\n".to_owned());
        Client::builder(self.at[0].clone(), self.secret.clone())
            .release_timeout(Duration::from_secs(1))
            .alias("web-1")
            .metrics(metrics)
            .learn_at(FAST)
    }
}

/// Waits for an event; returns what `wanted` makes of it.
async fn until<T>(events: &mut broadcast::Receiver<Event>, wanted: impl Fn(EventKind) -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = wanted(events.recv().await.expect("events go on").kind) {
                return found;
            }
        }
    };
    timeout(SOON, found).await.expect("the event comes")
}

fn registered_elsewhere(than: PublicKey) -> impl Fn(EventKind) -> Option<PublicKey> {
    move |kind| match kind {
        EventKind::Registered { scraper, .. } if scraper != than => Some(scraper),
        _ => None,
    }
}

fn let_go(kind: EventKind) -> Option<PublicKey> {
    match kind {
        EventKind::ScraperLetGo { scraper } => Some(scraper),
        _ => None,
    }
}

/// Pulls once over the scraper's HTTP side.
async fn scrape(scraper: &Scraper) -> String {
    let mut http = TcpStream::connect(scraper.http_addr().expect("of TCP")).await.expect("connects");
    http.write_all(b"GET /scrape/web-1/metrics HTTP/1.0\r\n\r\n").await.expect("asks");
    let mut answer = String::new();
    timeout(SOON, http.read_to_string(&mut answer)).await.expect("in time").expect("an answer");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_one_scraper_learns_another_and_stays_scraped_when_one_dies() {
    let mut scrapers = Scrapers::group(3).await;
    let [given, ..] = scrapers.keys()[..] else { unreachable!() };
    let client = scrapers.client().start().await.expect("starts");
    let mut events = client.events();
    let second = until(&mut events, registered_elsewhere(given)).await;
    assert!(client.is_linked(&given) && client.is_linked(&second));
    let answer = scrape(&scrapers.running[&second].0).await;
    assert!(answer.ends_with("m 1\n"), "the firewall lets the learned scraper in: {answer}");

    scrapers.kill(given).await;
    let third = until(&mut events, |kind| registered_elsewhere(given)(kind).filter(|key| *key != second)).await;
    assert!(client.is_linked(&second) && client.is_linked(&third), "two again, both learned");

    scrapers.kill(second).await;
    let answer = scrape(&scrapers.running[&third].0).await;
    assert!(answer.ends_with("m 1\n"), "{answer}");
    client.shutdown().await;
    let left = scrapers.running[&third].0.public_key();
    assert!(
        until(&mut events, |kind| Some(matches!(kind, EventKind::Released { scraper } if scraper == left))
            .filter(|&is| is))
        .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_remembers_the_group_while_the_given_scraper_is_dead() {
    let mut scrapers = Scrapers::group(2).await;
    let [given, other] = scrapers.keys()[..] else { unreachable!() };
    let dir = tempfile::tempdir().expect("temporary directory");
    let client = scrapers.client().data_dir(dir.path()).start().await.expect("starts");
    until(&mut client.events(), registered_elsewhere(given)).await;
    client.shutdown().await;

    scrapers.kill(given).await;
    let _ = fs::remove_file(dir.path().join("addresses"));
    let client = scrapers.client().data_dir(dir.path()).start().await.expect("starts");
    assert_eq!(until(&mut client.events(), registered_elsewhere(given)).await, other);
    client.shutdown().await;

    fs::write(dir.path().join("group"), "damaged").expect("writes");
    let client = scrapers.client().data_dir(dir.path()).start().await.expect("starts all the same");
    let mut events = client.events();
    until(&mut events, |kind| matches!(kind, EventKind::LinkFailed { scraper, .. } if scraper == given).then_some(()))
        .await;
    assert_eq!(client.scrapers(), [given]);
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_to_keep_to_the_given_scrapers_learns_none() {
    let scrapers = Scrapers::group(2).await;
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::write(dir.path().join("group"), format!("given {}\nmember {}\n", scrapers.at[0].key, scrapers.at[1].key))
        .expect("writes");
    let client = scrapers.client().learn_group(false).data_dir(dir.path()).start().await.expect("starts");
    let mut events = client.events();
    until(&mut events, |kind| matches!(kind, EventKind::Registered { .. }).then_some(())).await;
    assert_eq!(client.scrapers(), [scrapers.at[0].key]);
    client.shutdown().await;
}

/// Answers registrations as a scraper that cannot read a request for its group; counts registrations, and such requests.
async fn earlier_scraper(
    mut streams: mpsc::Receiver<InboundStream>,
    key: KeyPair,
    secret: SharedSecret,
    counts: watch::Sender<(u32, u32)>,
) {
    while let Some(InboundStream { peer, stream }) = streams.recv().await {
        let pending = channel::accept(stream, &key, &peer, REGISTER_PROTOCOL).await.expect("a first message");
        let mut channel = pending.confirm(&secret).await.expect("confirms");
        match channel.receive().await.expect("a request") {
            RegisterRequest::RegisterFrom(_) => {
                let outcomes = vec![AliasOutcome::Granted { updated: false }];
                let registered = RegisterReply::Registered(Registered { lease_ms: 300, outcomes });
                channel.send(&registered).await.expect("sends");
                counts.send_modify(|(registrations, _)| *registrations += 1);
            }
            RegisterRequest::Group => counts.send_modify(|(_, groups)| *groups += 1),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_scraper_of_an_earlier_version_is_asked_once_over_a_link_and_registers_as_before() {
    let (key, secret) = (KeyPair::generate(), SharedSecret::generate());
    let (inbox, streams) = mpsc::channel(8);
    let acceptor = Acceptor { protocol: REGISTER_PROTOCOL, firewall: Firewall::Anyone, inbox };
    let config =
        NetworkConfig { listen: vec![HostPort::new("127.0.0.1", 0)], ..NetworkConfig::new(NetworkRole::Scraper) };
    let (network, task) = Network::start(&key, config, vec![acceptor]).await.expect("starts");
    network.links().know([]);
    let (counts, mut counted) = watch::channel((0, 0));
    let mut tasks = JoinSet::new();
    tasks.spawn(task.run(CancellationToken::new()));
    tasks.spawn(earlier_scraper(streams, key.clone(), secret.clone(), counts));
    let at = network.listening()[0];
    let scraper = PeerAddr::at(key.public(), at.ip().to_string(), at.port());

    let metrics = || Ok::<_, Infallible>(String::new());
    let builder = Client::builder(scraper, secret).alias("web-1").metrics(metrics).learn_at(FAST);
    let client = builder.release_timeout(Duration::ZERO).start().await.expect("starts");
    let mut events = client.events();
    // Several times as long as it takes to ask again.
    let asked = timeout(SOON, counted.wait_for(|(registrations, _)| *registrations > 25)).await.expect("registers on");
    assert_eq!(asked.expect("counts on").1, 1);
    client.shutdown().await;
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event.kind, EventKind::RegisterFailed { .. } | EventKind::LinkDown { .. }), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_words_cost_a_client_two_dials_and_nothing_else() {
    let scrapers = Scrapers::start(1).await;
    let own = KeyPair::generate();
    let nobody_at = |key| Member { key, addresses: vec!["127.0.0.1:1".parse().expect("an address")] };
    let mut members = vec![nobody_at(own.public()), nobody_at(scrapers.at[0].key)];
    members.extend((0..15).map(|_| nobody_at(KeyPair::generate().public())));
    scrapers.name(members);
    let client = scrapers.client().key(own.clone()).start().await.expect("starts");
    let mut events = client.events();
    let mut learned = BTreeSet::new();
    for _ in 0..3 {
        learned.insert(
            until(&mut events, |kind| match kind {
                EventKind::ScraperLearned { scraper } => Some(scraper),
                _ => None,
            })
            .await,
        );
        assert!(client.scrapers().len() <= 3, "the given one, one that is tried, and one that is being let go");
    }
    assert!(!learned.contains(&own.public()) && !learned.contains(&scrapers.at[0].key));
    assert!(client.is_linked(&scrapers.at[0].key));
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learned_scraper_that_nobody_names_any_more_releases_the_aliases_and_is_let_go() {
    let scrapers = Scrapers::group(2).await;
    let [given, other] = scrapers.keys()[..] else { unreachable!() };
    let client = scrapers.client().start().await.expect("starts");
    let mut events = client.events();
    until(&mut events, registered_elsewhere(given)).await;
    let mut removed = scrapers.running[&other].0.events();
    scrapers.name(vec![]);
    assert_eq!(until(&mut events, let_go).await, other);
    assert_eq!(client.scrapers(), [given]);
    assert!(!client.is_linked(&other) && client.is_linked(&given));
    let released = async { while removed.recv().await.expect("an event").kind != scraper::EventKind::Released {} };
    timeout(SOON, released).await.expect("its table has released the alias");
    client.shutdown().await;
}
