//! Measures what a table in NATS costs beside one on the scraper's own disk, in one run.
//!
//! Starts a nats-server, one scraper with a table of its own, and two that share one; clients with many aliases each register
//! with either. Prints how long that takes, how long a scraper takes to list them after a start, how soon the second scraper
//! has what the first has granted, resident memory, and what NATS carries while the leases are renewed.
//!
//! ```text
//! cargo bench --bench group -- --nats-server /usr/sbin/nats-server
//! cargo bench --bench group -- --nats-server /usr/sbin/nats-server --clients 40 --aliases 250 --renewals 4m
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[allow(dead_code, reason = "each benchmark uses its part")]
mod processes;
#[path = "../load/usage.rs"]
#[allow(dead_code, reason = "each benchmark uses its part")]
mod usage;

use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Parser;
use narthex::{Client, KeyPair, SharedSecret, TargetBuilder, identity};
use processes::{Child, get, nats_counters, nats_server, scraper};

/// Any error.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Life of a lease: as long as the run, with several renewals in it.
const LEASE: Duration = Duration::from_secs(60);

#[derive(Parser)]
#[command(about = "Measures a table that scrapers share beside one of a scraper's own")]
struct Args {
    /// The nats-server program
    #[arg(long)]
    nats_server: PathBuf,
    /// Clients, each a peer
    #[arg(long, default_value_t = 40)]
    clients: usize,
    /// Aliases of each client
    #[arg(long, default_value_t = 250)]
    aliases: usize,
    /// Changes whose way to the second scraper is measured
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// How long renewals are watched; leases are a minute
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration)]
    renewals: Duration,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// A fleet of clients that are registered with a scraper.
struct Fleet {
    clients: Vec<Client>,
    took: Duration,
}

impl Fleet {
    async fn register(args: &Args, to: &Child, secret: &SharedSecret) -> Result<Self, BoxError> {
        let began = Instant::now();
        let mut clients = Vec::new();
        for client in 0..args.clients {
            let targets = (0..args.aliases).map(|alias| target(&format!("c{client}-a{alias}")));
            let builder = Client::builder(to.peer()?, secret.clone()).key(KeyPair::generate()).learn_group(false);
            clients.push(targets.fold(builder, |builder, target| builder.target(target)).start().await?);
        }
        listed(to, args.clients * args.aliases).await;
        Ok(Self { clients, took: began.elapsed() })
    }

    async fn end(self) {
        futures::future::join_all(self.clients.into_iter().map(Client::shutdown)).await;
    }
}

fn target(alias: &str) -> TargetBuilder {
    let metrics = || Ok::<_, std::fmt::Error>("up_and_well 1\n".to_owned());
    TargetBuilder::new(alias).service("bench").label("region", "eu-central-1").metrics(metrics)
}

/// Waits until the scraper lists so many aliases, and returns how long that took.
async fn listed(scraper: &Child, count: usize) -> Duration {
    let began = Instant::now();
    let active = format!("narthex_aliases{{state=\"active\"}} {count}\n");
    loop {
        if get(scraper.http, "/-/ready").await.is_ok_and(|(status, _)| status == 200)
            && get(scraper.http, "/metrics").await.is_ok_and(|(_, body)| body.contains(&active))
        {
            return began.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How long after its acknowledgement each of some new aliases is known to the other scraper.
async fn propagation(args: &Args, to: &Child, other: &Child, secret: &SharedSecret) -> Result<Vec<Duration>, BoxError> {
    let client = Client::builder(to.peer()?, secret.clone()).key(KeyPair::generate()).learn_group(false);
    let client = client.target(target("change-first")).start().await?;
    let mut events = client.events();
    let mut all = Vec::new();
    for change in 0..args.changes {
        let alias = format!("change-{change}");
        client.set_targets(vec![target(&alias)])?;
        loop {
            let registered = matches!(
                &events.recv().await?.kind,
                narthex::client::EventKind::Registered { alias: granted, .. } if granted.as_str() == alias
            );
            if registered {
                break;
            }
        }
        let acknowledged = Instant::now();
        while get(other.http, &format!("/api/v1/aliases/{alias}")).await?.0 != 200 {
            tokio::task::yield_now().await;
        }
        all.push(acknowledged.elapsed());
    }
    client.shutdown().await;
    all.sort();
    Ok(all)
}

fn at(sorted: &[Duration], percent: usize) -> f64 {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).map_or(0.0, Duration::as_secs_f64)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let args = Args::parse();
    let directory = tempfile::Builder::new().prefix("narthex-bench-").tempdir()?;
    let path = directory.path();
    let secret = SharedSecret::generate();
    identity::create_secret(&path.join("secret"), &secret)?;
    let (nats, url, monitor) = nats_server(&args.nats_server, path).await?;
    let lease = format!("--lease={}", humantime::format_duration(LEASE));
    let store = format!("--store={url}");
    let count = args.clients * args.aliases;
    println!("{count} aliases of {} clients, leases of {LEASE:?}", args.clients);
    println!("{:<34}{:>12}{:>12}", "", "own table", "in NATS");

    let mut alone = scraper(path, "alone", &[&lease]).await?;
    let fleet = Fleet::register(&args, &alone, &secret).await?;
    let (registered_alone, memory_alone) = (fleet.took, alone.memory_kib()?);
    alone.restart().await?;
    let started_alone = listed(&alone, count).await;
    fleet.end().await;
    drop(alone);

    let mut first = scraper(path, "first", &[&lease, &store]).await?;
    let second = scraper(path, "second", &[&lease, &store]).await?;
    let before = nats_counters(monitor).await?;
    let fleet = Fleet::register(&args, &first, &secret).await?;
    listed(&second, count).await;
    let after = nats_counters(monitor).await?;
    let (memory, memory_second) = (first.memory_kib()?, second.memory_kib()?);
    row("all registered, s", registered_alone.as_secs_f64(), fleet.took.as_secs_f64());
    row("resident, MiB", memory_alone as f64 / 1024.0, memory as f64 / 1024.0);
    println!("{:<46}{:>12.1}", "  the other scraper of the table, MiB", memory_second as f64 / 1024.0);
    first.restart().await?;
    row("listed after kill -9 and start, s", started_alone.as_secs_f64(), listed(&first, count).await.as_secs_f64());
    let began = Instant::now();
    let newcomer = scraper(path, "newcomer", &[&lease, &store]).await?;
    listed(&newcomer, count).await;
    println!("{:<46}{:>12.2}", "  a scraper without a copy, s", began.elapsed().as_secs_f64());
    drop(newcomer);

    let propagated = propagation(&args, &first, &second, &secret).await?;
    let [p50, p99] = [at(&propagated, 50), at(&propagated, 99)].map(|seconds| seconds * 1000.0);
    println!("known to the other scraper after its grant, ms: p50 {p50:.1}, p99 {p99:.1}");
    println!("to NATS for a registration, bytes: {:.0}", before.bytes_to(&after) / count as f64);

    let before = nats_counters(monitor).await?;
    tokio::time::sleep(args.renewals).await;
    let after = nats_counters(monitor).await?;
    let leases = args.renewals.as_secs_f64() / LEASE.as_secs_f64();
    let per_lease = |total: f64| total / count as f64 / leases;
    println!(
        "of an alias that is renewed three times a lease, to NATS: {:.2} messages and {:.0} bytes a lease",
        per_lease(before.messages_to(&after)),
        per_lease(before.bytes_to(&after))
    );
    fleet.end().await;
    let counted = nats_counters(monitor).await?;
    println!("NATS in all: {} messages, {} bytes", counted.messages, counted.bytes);
    drop(nats);
    Ok(())
}

fn row(what: &str, alone: f64, shared: f64) {
    println!("{what:<34}{alone:>12.2}{shared:>12.2}   {:.1} times", shared / alone.max(f64::EPSILON));
}
