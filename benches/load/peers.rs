//! What runs in the child processes: the scraper, and the clients with the direct server.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use axum::{Router, extract::Query, http::header, routing::get};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use narthex::{
    Client, KeyPair, PeerAddr, Scraper, ScraperConfig, SharedSecret, TargetBuilder,
    client::{Compression, EventKind, Exposition, PullRequest, Source, SourceError},
    identity::HostPort,
};
use tokio::net::TcpListener;

use crate::BoxError;

/// Prints `<peer> <secret> <http address>`, then serves until killed.
pub(crate) async fn scraper() -> Result<(), BoxError> {
    let data = tempfile::tempdir()?;
    let secret = SharedSecret::generate();
    let local = || HostPort::new("127.0.0.1", 0);
    let mut config = ScraperConfig::new(KeyPair::generate(), vec![secret.clone()], data.path());
    config.http = local().into();
    config.listen = vec![local()];
    let scraper = Scraper::start(config).await?;
    let at = scraper.listening().first().ok_or("the scraper listens nowhere")?;
    let http = scraper.http_addr().expect("of TCP");
    println!("{}@{at} {} {http}", scraper.public_key(), *secret.expose_text());
    std::future::pending().await
}

/// Registers the clients, prints `<direct address>`, then serves until killed.
pub(crate) async fn clients(
    scraper: &str,
    secret: &str,
    clients: usize,
    aliases: usize,
    gzip_level: u8,
) -> Result<(), BoxError> {
    let compression = match gzip_level {
        0 => Compression::Off,
        level => Compression::gzip().level(level),
    };
    let scraper: PeerAddr = scraper.parse()?;
    let secret: SharedSecret = secret.parse()?;
    let bodies: Arc<dyn Source> = Arc::new(Bodies);
    let mut running = Vec::new();
    for n in 0..clients {
        let mut builder =
            Client::builder(scraper.clone(), secret.clone()).hostname("load-1.example.com").compression(compression);
        for alias in 0..aliases {
            let target = TargetBuilder::new(format!("c{n}-{alias}")).service("load").label("n", n.to_string());
            let target = target.label("env", "production").label("region", "eu-central-1").label("team", "platform");
            builder = builder.target(target.metrics(Arc::clone(&bodies)));
        }
        let client = builder.start().await?;
        let mut events = client.events();
        while !matches!(events.recv().await?.kind, EventKind::Registered { .. }) {}
        running.push(client);
    }
    let router = Router::new().route("/metrics", get(direct));
    serve(router).await
}

/// Prints the address, then serves until killed.
pub(crate) async fn serve(router: Router) -> Result<(), BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await?;
    Ok(())
}

/// What bodies are made of, if not of the one line.
pub(crate) fn take_text(file: Option<&str>) -> Result<(), BoxError> {
    if let Some(file) = file {
        let text = std::fs::read_to_string(file)?;
        BODY.set(text).map_err(|_| "taken twice")?;
    }
    Ok(())
}

/// A body of as many bytes as the query `size=` asks for, kept between requests.
struct Bodies;

impl Source for Bodies {
    fn pull(&self, request: PullRequest) -> BoxFuture<'_, Result<Exposition, SourceError>> {
        let query = request.query.unwrap_or_default();
        let size = query.strip_prefix("size=").and_then(|size| size.parse().ok()).unwrap_or(0);
        async move { Ok(Exposition::new(TEXT, body(size))) }.boxed()
    }
}

async fn direct(Query(query): Query<HashMap<String, usize>>) -> ([(header::HeaderName, &'static str); 1], Bytes) {
    ([(header::CONTENT_TYPE, TEXT)], body(query.get("size").copied().unwrap_or(0)))
}

pub(crate) fn body(size: usize) -> Bytes {
    static BODIES: std::sync::Mutex<Vec<Bytes>> = std::sync::Mutex::new(Vec::new());
    let mut bodies = BODIES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(body) = bodies.iter().find(|body| body.len() == size) {
        return body.clone();
    }
    let text = BODY.get().map_or(LINE, String::as_str);
    let body: Bytes = text.bytes().cycle().take(size).collect();
    bodies.push(body.clone());
    body
}

static BODY: OnceLock<String> = OnceLock::new();
const LINE: &str = "load_metric_total{label=\"value\",other=\"some other value\"} 123456789\n";
pub(crate) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
