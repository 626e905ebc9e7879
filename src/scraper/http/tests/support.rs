//! A scraper without peers, and a client that keeps every byte.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture, stream};
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    access::{Scope, Secrets},
    hook::Ending,
    http::{Gate, PullRequest, bind},
    identity::{KeyPair, PublicKey, SecretId},
    network::{LinkPath, Links, Network, NetworkConfig, NetworkRole},
    registry::{Change, Damage, Foreign, Loaded, Presence, Registrant, Registry, RegistryConfig, Store, StoreError},
    scraper::{
        config::HttpConfig,
        http::{FileSd, OnChange, Shared, serve},
        metrics::ScraperMetrics,
        pull::{Pull, PullBody, PullError},
    },
    telemetry::Refusals,
    wire::{Alias, Claim, Register},
};

/// What every peer here has proved.
pub(super) const SECRET: SecretId = SecretId([0xab; 8]);

pub(super) type Pulled = Result<Response<PullBody>, PullError>;
type Puller = dyn Fn(Alias, PullRequest) -> BoxFuture<'static, Pulled> + Send + Sync;

/// A running HTTP side. Ends with the test's runtime.
pub(super) struct Scraper {
    pub(super) addr: SocketAddr,
    pub(super) registry: Registry,
    network: Network,
    pub(super) stop: CancellationToken,
    pub(super) serving: JoinHandle<()>,
    pub(super) store_fails: Arc<AtomicBool>,
    load: mpsc::Sender<Option<Damage>>,
    pub(super) secrets: Secrets,
    _tickets: TempDir,
}

impl Scraper {
    /// With an empty table, loaded.
    pub(super) async fn start<F, A>(config: HttpConfig, pull: F) -> Self
    where
        F: Fn(Alias, PullRequest) -> A + Send + Sync + 'static,
        A: Future<Output = Pulled> + Send + 'static,
    {
        let scraper = Self::loading(config, pull).await;
        scraper.load().await;
        scraper
    }

    /// Its store has not answered yet.
    pub(super) async fn loading<F, A>(config: HttpConfig, pull: F) -> Self
    where
        F: Fn(Alias, PullRequest) -> A + Send + Sync + 'static,
        A: Future<Output = Pulled> + Send + 'static,
    {
        let registry = Registry::new(RegistryConfig::default(), Arc::new(Refusals::new()));
        let (load, may_load) = mpsc::channel();
        let store_fails = Arc::new(AtomicBool::new(false));
        let store = Box::new(FakeStore { may_load, fails: Arc::clone(&store_fails) });
        let running = registry.clone();
        tokio::spawn(async move { running.run(store, CancellationToken::new()).await });

        // Its task does not run: links are what the test makes of the table.
        let client = NetworkConfig::new(NetworkRole::Client);
        let (network, _) = Network::start(&KeyPair::generate(), client, Vec::new()).await.expect("starts");
        let puller: Box<Puller> = Box::new(move |alias, request| pull(alias, request).boxed());
        let (pull, metrics) = (Arc::new(FakePull(puller)), Arc::new(ScraperMetrics::new(network.refusals())));
        let (listener, addr) = bind(&"127.0.0.1:0".parse().expect("an address")).await.expect("binds");
        let stop = CancellationToken::new();
        let file_sd = FileSd::new(&config, Some(addr)).expect("an address to scrape");
        let on_change = OnChange::new(&config, Some(addr)).expect("an address to scrape");
        let gate = Gate::open(config.security.clone()).expect("the files are fine");
        let tickets = tempfile::tempdir().expect("a directory");
        let secrets = Secrets::open(Vec::new(), tickets.path()).expect("no tickets");
        let names = secrets.clone();
        registry.name_secrets_by(move |secret| names.name_of(secret));
        let shared = Arc::new(Shared::new(config, gate, registry.clone(), pull, network.clone(), metrics));
        if let Some(on_change) = on_change {
            let end = Ending { stop: stop.clone(), grace: Duration::ZERO };
            tokio::spawn(on_change.keep(Arc::clone(&shared), end));
        }
        let serving = tokio::spawn(serve(listener, shared, None, file_sd, stop.clone()));
        Self { addr, registry, network, stop, serving, store_fails, load, secrets, _tickets: tickets }
    }

    pub(super) async fn load(&self) {
        self.load_with(None).await;
    }

    /// As [`load`](Self::load), from a store that has lost leases.
    pub(super) async fn load_with(&self, damage: Option<Damage>) {
        let mut changes = self.registry.changes();
        self.load.send(damage).expect("the store waits");
        changes.wait_for(|generation| *generation > 0).await.expect("loads");
    }

    pub(super) async fn register(&self, alias: &str) {
        self.register_as(1, "", vec![claim(alias, "", &[])]).await;
    }

    pub(super) async fn register_as(&self, seed: u8, hostname: &str, claims: Vec<Claim>) {
        self.register_by(seed, SECRET, hostname, claims).await;
    }

    /// As [`register_as`](Self::register_as), of a peer that has proved this secret.
    pub(super) async fn register_by(&self, seed: u8, secret: SecretId, hostname: &str, claims: Vec<Claim>) {
        let register = Register { hostname: hostname.into(), claims };
        let by = Registrant { peer: peer(seed), secret, kept: None };
        let registered =
            self.registry.register(&by, &register, &Scope::default(), |_| Presence::Linked, SystemTime::now()).await;
        registered.expect("acknowledged");
    }

    pub(super) fn links(&self) -> &Links {
        self.network.links()
    }

    /// Links a peer.
    pub(super) fn link(&self, seed: u8, path: LinkPath) {
        let connection = self.links().add_test_link(peer(seed), path);
        self.links().measured(connection, Duration::from_millis(25));
    }

    /// GET on a connection of its own.
    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.addr)).await
    }

    /// Sends `request` as it is, and reads until the connection ends.
    pub(super) async fn ask(&self, request: &str) -> Answer {
        let mut stream = self.send(request).await;
        let mut bytes = Vec::new();
        // A reset is one way for a connection to be broken off.
        let _ = within(stream.read_to_end(&mut bytes)).await;
        Answer::read(&bytes)
    }

    pub(super) async fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("sends");
        stream
    }

    /// Waits until the scraper's own metrics have this line.
    pub(super) async fn counted(&self, line: &str) {
        let exported = async { while !self.get("/metrics").await.text().lines().any(|found| found == line) {} };
        within(exported).await;
    }
}

/// What came back, taken apart no further than needed.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Lower-case names, in their order.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// True if the body ended as its framing demands.
    pub(super) complete: bool,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Self { status: 0, headers: Vec::new(), body: Vec::new(), complete: false };
        };
        let head = std::str::from_utf8(&bytes[..end]).expect("a head is text");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let headers: Vec<_> = lines
            .map(|line| line.split_once(": ").expect("a header"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut answer = Self {
            status: status.parse().expect("a status"),
            headers,
            body: bytes[end + 4..].to_vec(),
            complete: true,
        };
        if answer.header("transfer-encoding").is_some() {
            (answer.body, answer.complete) = unchunked(&answer.body);
        } else if let Some(len) = answer.header("content-length") {
            answer.complete = len.parse() == Ok(answer.body.len());
        }
        answer
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

fn unchunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let len = std::str::from_utf8(&rest[..end]).ok().and_then(|len| usize::from_str_radix(len, 16).ok());
        let len = len.expect("a chunk's length");
        rest = &rest[end + 2..];
        body.extend_from_slice(&rest[..len.min(rest.len())]);
        match rest.get(len..len + 2) {
            Some(_) if len == 0 => return (body, true),
            Some(_) => rest = &rest[len + 2..],
            None => break,
        }
    }
    (body, false)
}

struct FakePull(Box<Puller>);

impl Pull for FakePull {
    fn pull<'a>(&'a self, alias: &'a Alias, _: PublicKey, request: PullRequest) -> BoxFuture<'a, Pulled> {
        (self.0)(alias.clone(), request)
    }
}

/// Holds nothing; loads and fails on demand.
#[derive(Debug)]
struct FakeStore {
    may_load: mpsc::Receiver<Option<Damage>>,
    fails: Arc<AtomicBool>,
}

impl Store for FakeStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let damage = self.may_load.recv().unwrap_or_default();
        Ok(Loaded { damage, ..Loaded::default() })
    }

    fn commit(&mut self, _: &[Change]) -> Result<Vec<Foreign>, StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Locked { path: "here".into() });
        }
        Ok(Vec::new())
    }
}

/// Ends a test that would never end.
pub(super) async fn within<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("what the test waits for happens")
}

/// For tests in which nothing is pulled.
pub(super) async fn no_pull(_: Alias, _: PullRequest) -> Pulled {
    panic!("nothing is pulled in this test")
}

pub(super) fn peer(seed: u8) -> PublicKey {
    KeyPair::from_seed(&[seed; 32]).public()
}

pub(super) fn claim(alias: &str, service: &str, labels: &[(&str, &str)]) -> Claim {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Claim { alias: alias.into(), service: service.into(), labels, unlisted: false }
}

/// A request with a connection of its own; `headers` are whole lines.
pub(super) fn request(line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n")
}

/// A body of these parts; an `Err` cuts it.
pub(super) fn body<const N: usize>(parts: [Result<&'static [u8], &'static str>; N]) -> PullBody {
    let frames = parts.map(|part| match part {
        Ok(data) => Ok(Frame::data(Bytes::from_static(data))),
        Err(reason) => Err(reason.into()),
    });
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

/// A body that goes on as long as `parts` does.
pub(super) fn fed(parts: tokio::sync::mpsc::Receiver<Bytes>) -> PullBody {
    let frames = stream::unfold(parts, async |mut parts| Some((Ok(Frame::data(parts.recv().await?)), parts)));
    StreamBody::new(frames).boxed_unsync()
}
