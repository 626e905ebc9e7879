//! Several scrapers over real links on loopback. Each has a table of its own, into which a test puts what all would share.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
    time::SystemTime,
};

use bytes::Bytes;
use futures::{StreamExt, future, stream};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    access::Scope,
    client::{BoxError, Client, EventKind, Exposition, ExpositionBody, Source, from_async},
    identity::{DialAddress, HostPort, KeyPair, PeerAddr, SharedSecret},
    network::{Acceptor, Firewall, InboundStream, NetworkConfig, NetworkRole},
    registry::{Presence, Registrant, RegistryConfig},
    scraper::{Scraper, ScraperConfig},
    wire::{Claim, Register, group::GROUP_PROTOCOL},
};

/// Longest wait for what must come.
const SOON: Duration = Duration::from_secs(20);

/// Scrapers of one group, and the secret of their clients.
struct Lab {
    secret: SharedSecret,
    scrapers: Vec<Scraper>,
    members: Vec<watch::Sender<Arc<[Member]>>>,
    _dirs: Vec<TempDir>,
}

impl Lab {
    /// So many scrapers, each linked to all others.
    async fn start(count: usize) -> Self {
        let lab = Self::apart(count, RegistryConfig::default()).await;
        let all: Vec<usize> = (0..count).collect();
        for of in 0..count {
            lab.tell(of, &all);
        }
        lab.linked(&all).await;
        lab
    }

    /// So many scrapers that know of no others.
    async fn apart(count: usize, registry: RegistryConfig) -> Self {
        let secret = SharedSecret::generate();
        let (mut scrapers, mut members, mut dirs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let (sender, told) = watch::channel(Arc::default());
            let dir = tempfile::tempdir().expect("a temporary directory");
            let mut config = ScraperConfig::new(KeyPair::generate(), vec![secret.clone()], dir.path());
            config.http = HostPort::new("127.0.0.1", 0).into();
            config.listen = vec![HostPort::new("127.0.0.1", 0)];
            config.registry = registry.clone();
            config.members = Some(told);
            let scraper = Scraper::start(config).await.expect("starts");
            within("the table", scraper.ready()).await;
            scrapers.push(scraper);
            members.push(sender);
            dirs.push(dir);
        }
        Self { secret, scrapers, members, _dirs: dirs }
    }

    /// Tells one scraper who is in its group.
    fn tell(&self, of: usize, who: &[usize]) {
        self.tell_all(of, who.iter().map(|&at| member(&self.addr(at))));
    }

    fn tell_all(&self, of: usize, members: impl IntoIterator<Item = Member>) {
        self.members[of].send_replace(members.into_iter().collect());
    }

    /// Waits until all of these are linked to each other.
    async fn linked(&self, all: &[usize]) {
        for &of in all {
            for &to in all.iter().filter(|&&to| to != of) {
                within("a link", self.scrapers[of].network.links().up(&self.scrapers[to].public_key())).await;
            }
        }
    }

    fn addr(&self, at: usize) -> PeerAddr {
        let scraper = &self.scrapers[at];
        let listening = scraper.listening()[0];
        PeerAddr::at(scraper.public_key(), listening.ip().to_string(), listening.port())
    }

    /// A client of one scraper, under the alias `web-1`, which is in all tables.
    async fn client<F>(&self, of: usize, source: F) -> Client
    where
        F: Fn() -> Result<Exposition, BoxError> + Send + Sync + 'static,
    {
        self.client_as("web-1", of, from_async(move |_| future::ready(source()))).await
    }

    async fn client_as(&self, alias: &str, of: usize, source: Arc<dyn Source>) -> Client {
        let builder = Client::builder(self.addr(of), self.secret.clone()).alias(alias).metrics(source);
        let client = builder.start().await.expect("starts");
        let (links, key) = (self.scrapers[of].network.links(), client.public_key());
        within("the client", links.up(&key)).await;
        for scraper in &self.scrapers {
            hold(scraper, key, alias).await;
        }
        client
    }

    /// Scrapes `web-1` through one of them.
    async fn scrape(&self, through: usize) -> Answer {
        Answer::read(self.begin(through, "10").await).await
    }

    async fn begin(&self, through: usize, timeout: &str) -> Response<Incoming> {
        self.begin_as("web-1", through, timeout).await
    }

    async fn begin_as(&self, alias: &str, through: usize, timeout: &str) -> Response<Incoming> {
        let stream = TcpStream::connect(self.scrapers[through].http_addr().expect("of TCP")).await.expect("connects");
        let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await.expect("speaks HTTP");
        tokio::spawn(connection);
        let request = Request::get(format!("/scrape/{alias}/metrics"))
            .header(header::HOST, "localhost")
            .header("x-prometheus-scrape-timeout-seconds", timeout)
            .body(Empty::<Bytes>::new())
            .expect("a request");
        let answer = within("an answer", requests.send_request(request)).await.expect("an answer");
        // The connection lives as long as somebody may send.
        tokio::spawn(async move {
            time::sleep(SOON).await;
            drop(requests);
        });
        answer
    }
}

/// A scraper's answer to Prometheus.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Self {
        let (mut head, body) = response.into_parts();
        head.headers.remove(header::DATE);
        let body = within("a body", body.collect()).await.expect("whole").to_bytes();
        Self { status: head.status, headers: head.headers, body }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A member at two addresses, the first of which leads nowhere.
fn member(addr: &PeerAddr) -> Member {
    let nowhere = DialAddress::from(HostPort::new("127.0.0.1", 1));
    Member { key: addr.key, addresses: [nowhere].into_iter().chain(addr.hint.clone()).collect() }
}

fn text() -> Result<Exposition, BoxError> {
    Ok("up 1\n".to_owned().into())
}

/// Has a peer hold an alias in a scraper's table.
async fn hold(scraper: &Scraper, peer: PublicKey, alias: &str) {
    let claim = Claim { alias: alias.to_owned(), service: String::new(), labels: Vec::new(), unlisted: false };
    let register = Register { hostname: String::new(), claims: vec![claim] };
    let by = Registrant { peer, secret: SharedSecret::generate().id(), kept: None };
    let registered =
        scraper.registry.register(&by, &register, &Scope::default(), |_| Presence::Unseen, SystemTime::now()).await;
    registered.expect("acknowledged");
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match time::timeout(SOON, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {SOON:?}"),
    }
}

/// A peer that is linked to a scraper, and takes what members are asked.
struct Stalled {
    key: KeyPair,
    network: Network,
    inbox: mpsc::Receiver<InboundStream>,
    _tasks: JoinSet<()>,
}

impl Stalled {
    async fn start() -> Self {
        let (key, (sender, inbox)) = (KeyPair::generate(), mpsc::channel(64));
        let acceptor = Acceptor { protocol: GROUP_PROTOCOL, firewall: Firewall::Anyone, inbox: sender };
        let config =
            NetworkConfig { listen: vec![HostPort::new("127.0.0.1", 0)], ..NetworkConfig::new(NetworkRole::Scraper) };
        let (network, task) = Network::start(&key, config, vec![acceptor]).await.expect("starts");
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run(CancellationToken::new()));
        Self { key, network, inbox, _tasks: tasks }
    }

    fn member(&self) -> Member {
        let listening = self.network.listening()[0];
        let address = DialAddress::from(HostPort::new(listening.ip().to_string(), listening.port()));
        Member { key: self.key.public(), addresses: vec![address] }
    }
}

#[tokio::test]
async fn a_scrape_through_another_member_has_the_same_bytes() {
    let lab = Lab::start(3).await;
    let source = || {
        let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, Exposition::OPEN_METRICS.parse()?)]);
        headers.insert(header::VARY, "accept".parse()?);
        let body = stream::iter([Bytes::from_static(b"\x00\xff"), Bytes::from_static(b"# EOF\n")]);
        Ok(Exposition::with_headers(headers, streamed(body)))
    };
    let _client = lab.client(0, source).await;
    let own = lab.scrape(0).await;
    assert_eq!((own.status, &own.body[..]), (StatusCode::OK, &b"\x00\xff# EOF\n"[..]));
    for through in [1, 2] {
        assert_eq!(lab.scrape(through).await, own, "through member {through}");
    }
}

#[tokio::test]
async fn the_failure_of_a_holder_is_told_as_it_is() {
    let lab = Lab::start(2).await;
    let _client = lab.client(0, || Err("no database".into())).await;
    let told = |answer: Answer| (answer.status, answer.text().replace(|c: char| c.is_ascii_digit(), ""));
    let own = told(lab.scrape(0).await);
    assert!(own.1.contains("the source failed (other): pull ") && own.1.contains("failed at its source"), "{own:?}");
    assert_eq!(told(lab.scrape(1).await), own);
}

#[tokio::test]
async fn a_forward_is_never_forwarded_again() {
    let lab = Lab::apart(3, RegistryConfig::default()).await;
    lab.tell(0, &[0, 1]);
    lab.tell(1, &[0, 1, 2]);
    lab.tell(2, &[1, 2]);
    lab.linked(&[0, 1]).await;
    lab.linked(&[1, 2]).await;
    let _client = lab.client(2, text).await;
    assert_eq!(lab.scrape(1).await.status, StatusCode::OK);
    let answer = lab.scrape(0).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.text().contains("is not connected"), "{answer:?}");
}

#[tokio::test]
async fn an_alias_that_nobody_is_linked_to_is_asked_for_in_no_circle() {
    let lab = Lab::start(3).await;
    let holder = KeyPair::generate().public();
    for scraper in &lab.scrapers {
        hold(scraper, holder, "web-1").await;
    }
    let answer = lab.scrape(0).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.text().contains("is not connected"), "{answer:?}");
}

/// What a stream of the protocol gets to read for a request.
async fn asked(network: &Network, scraper: &PublicKey, path: &str) -> Vec<u8> {
    let mut stream = network.open(scraper, GROUP_PROTOCOL).await.expect("opens");
    let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n");
    // A refused stream is reset, at any of these.
    let _ = stream.write_all(request.as_bytes()).await;
    let _ = stream.flush().await;
    let mut answer = Vec::new();
    let _ = within("the end", stream.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn members_alone_are_answered() {
    let lab = Lab::apart(1, RegistryConfig::default()).await;
    let (scraper, peer) = (lab.addr(0), Stalled::start().await);
    lab.tell(0, &[0]);
    peer.network.connect(&scraper).await.expect("connects");
    let path = format!("/presence/{}", scraper.key);
    assert_eq!(asked(&peer.network, &scraper.key, &path).await, b"", "a stranger");

    lab.tell_all(0, [peer.member()]);
    within("the members", async {
        while asked(&peer.network, &scraper.key, &path).await.is_empty() {
            time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    for (path, status) in [
        (&*path, "200 OK"),
        ("/presence/nobody", "400 Bad Request"),
        ("/pull/web-1", "400 Bad Request"),
        ("/pull/%20", "400 Bad Request"),
        ("/", "404 Not Found"),
    ] {
        let answer = asked(&peer.network, &scraper.key, path).await;
        assert!(answer.starts_with(format!("HTTP/1.1 {status}\r\n").as_bytes()), "{path}: {answer:?}");
    }

    lab.tell_all(0, []);
    within("the members", async {
        while !asked(&peer.network, &scraper.key, &path).await.is_empty() {
            time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_member_that_stalls_does_not_keep_others_from_being_asked() {
    let lab = Lab::apart(2, RegistryConfig::default()).await;
    let mut stalled = Stalled::start().await;
    lab.tell(1, &[0, 1]);
    // Asked in the order of the list.
    lab.tell_all(0, [stalled.member(), member(&lab.addr(1))]);
    lab.linked(&[0, 1]).await;
    within("a link", lab.scrapers[0].network.links().up(&stalled.key.public())).await;
    let _client = lab.client(1, text).await;
    assert_eq!(lab.scrape(0).await.text(), "up 1\n");
    assert!(stalled.inbox.try_recv().is_ok(), "it was asked first");

    lab.tell_all(0, [stalled.member()]);
    let mut last = StatusCode::OK;
    while last == StatusCode::OK {
        last = lab.begin(0, "1").await.status();
    }
    assert_eq!(last, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn a_slow_holder_is_asked_once_though_several_members_are_linked_to_it() {
    let lab = Lab::start(3).await;
    let pulls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&pulls);
    let source = from_async(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            time::sleep(Duration::from_millis(1500)).await;
            Ok::<_, Infallible>("up 1\n".to_owned())
        }
    });
    let builder = Client::builder(lab.addr(1), lab.secret.clone()).scraper(lab.addr(2));
    let client = builder.alias("web-1").metrics(source).start().await.expect("starts");
    for linked in [1, 2] {
        within("the client", lab.scrapers[linked].network.links().up(&client.public_key())).await;
    }
    hold(&lab.scrapers[0], client.public_key(), "web-1").await;
    assert_eq!(lab.scrape(0).await.text(), "up 1\n");
    assert_eq!(pulls.load(Ordering::SeqCst), 1);
}

fn streamed(parts: impl futures::Stream<Item = Bytes> + Send + 'static) -> ExpositionBody {
    StreamBody::new(parts.map(|part| Ok(Frame::data(part)))).boxed_unsync()
}

#[tokio::test]
async fn a_long_exposition_streams_through_a_member() {
    const PART: usize = 1 << 20;
    let lab = Lab::start(2).await;
    let (parts, sent) = mpsc::unbounded_channel();
    let sent = std::sync::Mutex::new(Some(sent));
    let source = move || {
        let sent = sent.lock().expect("no panic").take().ok_or("it was asked twice")?;
        let body =
            stream::unfold(sent, |mut sent: mpsc::UnboundedReceiver<Bytes>| async { Some((sent.recv().await?, sent)) });
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, Exposition::TEXT.parse()?)]);
        Ok(Exposition::with_headers(headers, streamed(body)))
    };
    let _client = lab.client(0, source).await;
    parts.send(Bytes::from(vec![b'#'; PART])).expect("is read");
    let mut body = lab.begin(1, "10").await.into_body();
    let mut read = 0;
    // The whole of the first part arrives while the source holds the rest back.
    while read < PART {
        let frame = within("a frame", body.frame()).await.expect("more").expect("no error");
        read += frame.data_ref().map_or(0, Bytes::len);
    }
    for _ in 0..7 {
        parts.send(Bytes::from(vec![b'#'; PART])).expect("is read");
    }
    drop(parts);
    let rest = within("the rest", body.collect()).await.expect("whole").to_bytes();
    assert_eq!(read + rest.len(), 8 * PART);
}

#[tokio::test]
async fn an_exposition_that_breaks_off_is_not_ended_cleanly_by_a_member() {
    let lab = Lab::start(2).await;
    let begun = Arc::new(Notify::new());
    let fails = Arc::clone(&begun);
    let source = move || {
        let fails = Arc::clone(&fails);
        let failure = stream::once(async move {
            fails.notified().await;
            Err(BoxError::from("lost"))
        });
        let parts = stream::iter([Ok(Frame::data(Bytes::from_static(b"up 1\n")))]).chain(failure);
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, Exposition::TEXT.parse()?)]);
        Ok(Exposition::with_headers(headers, StreamBody::new(parts).boxed_unsync()))
    };
    let _client = lab.client(0, source).await;
    let answer = lab.begin(1, "10").await;
    assert_eq!(answer.status(), StatusCode::OK);
    begun.notify_one();
    assert!(within("the end", answer.into_body().collect()).await.is_err());
}

/// Before: each of two members had as many streams as a connection may have in all, which ended the connection.
#[tokio::test]
async fn more_scrapes_than_streams_both_ways_at_once_are_all_answered() {
    let lab = Lab::start(2).await;
    let slow = || {
        from_async(|_| async {
            time::sleep(Duration::from_millis(200)).await;
            Ok::<_, Infallible>("up 1\n".to_owned())
        })
    };
    let _clients = [lab.client_as("web-0", 0, slow()).await, lab.client_as("web-1", 1, slow()).await];
    let begun = (0..6 * MAX_FORWARDS).map(|at| match at % 2 {
        0 => lab.begin_as("web-0", 1, "10"),
        _ => lab.begin_as("web-1", 0, "10"),
    });
    for answer in future::join_all(begun).await {
        assert_eq!(Answer::read(answer).await.text(), "up 1\n");
    }
}

/// Before: a scraper knew of its own links alone, and took the holder for one that is away.
#[tokio::test]
async fn a_holder_linked_to_another_member_keeps_its_alias_until_that_is_gone_too() {
    let no_grace = Duration::ZERO;
    let registry = RegistryConfig { start_grace: no_grace, takeover_grace: no_grace, ..RegistryConfig::default() };
    let mut lab = Lab::apart(2, registry).await;
    lab.tell(0, &[0, 1]);
    lab.tell(1, &[0, 1]);
    lab.linked(&[0, 1]).await;
    let _holder = lab.client(0, text).await;
    let taker =
        Client::builder(lab.addr(1), lab.secret.clone()).alias("web-1").metrics(|| Ok::<_, Infallible>(String::new()));
    let taker = taker.start().await.expect("starts");
    let mut events = taker.events();
    let mut next = async || loop {
        match within("an event", events.recv()).await.expect("goes on").kind {
            EventKind::Registered { .. } => break true,
            EventKind::RegisterFailed { .. } => break false,
            _ => {}
        }
    };
    assert!(!next().await, "the holder is linked");
    lab.scrapers.remove(0).shutdown().await.expect("ends");
    while !next().await {}
}
