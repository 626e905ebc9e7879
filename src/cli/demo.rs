//! `narthex demo`: a whole network in one process, to see narthex at work.

use std::{
    fmt::Write as _,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{defaults::SCRAPER, files, signals};
use crate::{
    Client, KeyPair, Node, NodeConfig, PeerAddr, PublicKey, Scraper, ScraperConfig, SharedSecret, TargetBuilder,
    agent::Exporter,
    client::{ClientBuilder, EventKind},
    identity::HostPort,
};

/// Alias of the service that links the client.
const SERVICE: &str = "demo-shop";
/// Alias of the exporter behind the agent.
const EXPORTER: &str = "demo-weather";
/// Longest wait for the first registration: all is on loopback, but the machine may be slow.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Run a whole network in this process and print the URLs to open
///
/// A node, a scraper, a service with changing metrics and an agent in front of a small exporter, all on loopback. They
/// find each other by key, as on a real network. Keys, secret and table are in a temporary directory, which Ctrl-C
/// removes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  narthex demo --http 127.0.0.1:9000")]
pub(super) struct Args {
    /// Where the scraper's HTTP side listens; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = SCRAPER.http.to_string())]
    http: HostPort,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let stop = signals::stop()?;
    signals::ignore_hangup()?;
    files::raise_limit();
    let mut demo = Demo::start(args.http).await?;
    demo.print().await?;
    tokio::select! {
        () = stop.cancelled() => demo.shutdown().await,
        failure = demo.scraper.failed() => Err(failure.into()),
    }
}

/// The parts of the demo, in the order of their start.
struct Demo {
    dir: TempDir,
    node: Node,
    scraper: Scraper,
    service: Client,
    agent: Client,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Demo {
    async fn start(http: HostPort) -> anyhow::Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("narthex-demo-").permissions(Permissions::from_mode(0o700)).tempdir()?;
        let secret = SharedSecret::generate();
        let mut node = NodeConfig::new(KeyPair::generate());
        node.listen = vec![any_port()];
        let node = Node::start(node).await?;
        let at = node.listening().first().context("the node listens nowhere")?;
        let bootstrap = PeerAddr::at(node.public_key(), at.ip().to_string(), at.port());

        let mut config = ScraperConfig::new(KeyPair::generate(), vec![secret.clone()], dir.path());
        config.http = http.into();
        config.listen = vec![any_port()];
        config.bootstrap = vec![bootstrap.clone()];
        let scraper = Scraper::start(config).await?;

        // Clients that look earlier find nothing, and log that.
        let _ = time::timeout(START_TIMEOUT, scraper.announced()).await;

        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let client = || Client::builder(scraper.public_key(), secret.clone()).bootstrap([bootstrap.clone()]);
        let service = client().target(service(&mut tasks, &stop));
        let agent = client().target(exporter(&mut tasks, &stop).await?);
        let (service, agent) =
            tokio::try_join!(registered(service, scraper.public_key()), registered(agent, scraper.public_key()))?;
        Ok(Self { dir, node, scraper, service, agent, stop, tasks })
    }

    async fn print(&self) -> anyhow::Result<()> {
        let at = self.scraper.http_addr().context("HTTP has no address")?;
        let file = self.dir.path().join("prometheus.yml");
        let config = prometheus_yml(&at.to_string());
        fs::write(&file, &config)?;
        let mut text = String::new();
        writeln!(
            text,
            "A node, a scraper, a service and an agent run in this process. They found each other by key.\n"
        )?;
        let (service, exporter) = (format!("{SERVICE}, a linked service"), format!("{EXPORTER}, by an agent"));
        for (what, path) in [
            ("targets for Prometheus", "/sd".to_owned()),
            (service.as_str(), format!("/scrape/{SERVICE}/metrics")),
            (exporter.as_str(), format!("/scrape/{EXPORTER}/metrics")),
            ("the scraper's own metrics", "/metrics".to_owned()),
            ("the table of aliases", "/api/v1/aliases".to_owned()),
        ] {
            writeln!(text, "  {what:<30}http://{at}{path}")?;
        }
        writeln!(text, "\nA Prometheus that scrapes them, and then shows them at http://localhost:9090/targets:\n")?;
        // The data belong to the task, which may outlive this value.
        writeln!(text, "  prometheus --config.file={} --storage.tsdb.path=$(mktemp -d)\n", file.display())?;
        writeln!(text, "{config}")?;
        let ticket = self.scraper.create_ticket("demo").await?.expose_text();
        writeln!(text, "A ticket, by which anything else on this machine joins:\n")?;
        writeln!(text, "  NARTHEX_TICKET={} \\", *ticket)?;
        writeln!(text, "    narthex agent --target demo-yours=http://127.0.0.1:9100 --data-dir $(mktemp -d)\n")?;
        write!(text, "Ctrl-C ends it; nothing is kept.")?;
        super::output::print(format!("{text}\n").as_bytes())
    }

    async fn shutdown(mut self) -> anyhow::Result<()> {
        tokio::join!(self.service.shutdown(), self.agent.shutdown());
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.scraper.shutdown().await?;
        self.node.shutdown().await;
        Ok(())
    }
}

/// Starts the client and waits until the scraper has its alias on disk.
async fn registered(builder: ClientBuilder, scraper: PublicKey) -> anyhow::Result<Client> {
    let client = builder.start().await?;
    let mut events = client.events();
    let until = Instant::now() + START_TIMEOUT;
    loop {
        match time::timeout_at(until, events.recv()).await {
            Ok(Ok(event)) if matches!(event.kind, EventKind::Registered { .. }) => return Ok(client),
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => anyhow::bail!("a client could not register with {scraper}; see the log above"),
        }
    }
}

/// A service that links the client: its metrics are in its own memory, and only a scraper's pull reads them.
fn service(tasks: &mut JoinSet<()>, stop: &CancellationToken) -> TargetBuilder {
    let (orders, in_cart) = (Counter::<u64>::default(), Gauge::<i64>::default());
    let mut registry = Registry::default();
    registry.register("shop_orders", "Orders taken", orders.clone());
    registry.register("shop_articles_in_carts", "Articles in all carts", in_cart.clone());
    let stop = stop.clone();
    tasks.spawn(async move {
        let business = async {
            loop {
                time::sleep(Duration::from_millis(rand::random_range(100..900))).await;
                orders.inc();
                in_cart.set(rand::random_range(0..50));
            }
        };
        stop.run_until_cancelled(business).await;
    });
    TargetBuilder::new(SERVICE).service("shop").label("region", "demo").metrics(Arc::new(registry))
}

/// A small exporter that knows nothing of narthex, and the agent's target in front of it.
async fn exporter(tasks: &mut JoinSet<()>, stop: &CancellationToken) -> anyhow::Result<TargetBuilder> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/metrics", listener.local_addr()?).parse()?;
    let router = Router::new().route("/metrics", get(exposition)).with_state(Arc::new(AtomicU64::new(0)));
    let stopped = stop.clone().cancelled_owned();
    tasks.spawn(async {
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "the demo's exporter ended");
        }
    });
    Ok(TargetBuilder::new(EXPORTER).service("weather").label("region", "demo").metrics(Exporter::new(url)?))
}

async fn exposition(State(asked): State<Arc<AtomicU64>>) -> impl IntoResponse {
    let asked = asked.fetch_add(1, Ordering::Relaxed) + 1;
    let celsius = 18.0 + (asked as f64 / 10.0).sin() * 6.0;
    let text = format!(
        "# HELP weather_temperature_celsius Temperature outside.\n\
         # TYPE weather_temperature_celsius gauge\n\
         weather_temperature_celsius{{place=\"roof\"}} {celsius:.2}\n\
         # HELP weather_readings_total Times that the exporter was asked.\n\
         # TYPE weather_readings_total counter\n\
         weather_readings_total {asked}\n"
    );
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

fn prometheus_yml(scraper: &str) -> String {
    format!(
        "global:\n  scrape_interval: 5s\nscrape_configs:\n  - job_name: narthex\n    http_sd_configs:\n      \
         - url: http://{scraper}/sd\n        refresh_interval: 5s\n"
    )
}

fn any_port() -> HostPort {
    HostPort { host: "127.0.0.1".to_owned(), port: 0 }
}
