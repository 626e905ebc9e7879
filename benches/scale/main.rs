//! Checks the model of docs/scale.md at what this machine carries.
//!
//! Starts a nats-server, a group of scrapers over it, and clients that are given one scraper each; lets several leases pass,
//! scrapes through every scraper, and prints what was measured beside what the model says.
//!
//! ```text
//! cargo bench --bench scale -- --nats-server /usr/sbin/nats-server --scrapers 2,3,5,8 --clients 400 --aliases 10
//! cargo bench --bench scale -- --dht 10m --nodes 1
//! cargo bench --bench scale -- --model
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod clients;
mod dht;
mod model;
#[path = "../load/process.rs"]
#[allow(dead_code, reason = "each benchmark uses its part")]
mod process;
#[path = "../group/processes.rs"]
#[allow(dead_code, reason = "each benchmark uses its part")]
mod processes;
mod report;
mod run;
mod snapshot;
mod sockets;
#[path = "../load/usage.rs"]
#[allow(dead_code, reason = "each benchmark uses its part")]
mod usage;

use std::{error::Error, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use clients::Clients;

/// Any error.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Checks the model of docs/scale.md at what this machine carries")]
pub(crate) struct Args {
    #[command(subcommand)]
    role: Option<Role>,
    /// The nats-server program
    #[arg(long, default_value = "/usr/sbin/nats-server")]
    nats_server: PathBuf,
    /// Numbers of scrapers, one group after the other
    #[arg(long, value_delimiter = ',', default_value = "2,3,5,8")]
    scrapers: Vec<usize>,
    /// Clients, each a peer that is given one scraper
    #[arg(long, default_value_t = 400)]
    clients: usize,
    /// Aliases of each client
    #[arg(long, default_value_t = 10)]
    aliases: usize,
    /// Life of a lease
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    lease: Duration,
    /// How long renewals are watched
    #[arg(long, default_value = "6m", value_parser = humantime::parse_duration)]
    watch: Duration,
    /// A table of the scraper's own, without NATS; for one scraper
    #[arg(long)]
    own_table: bool,
    /// Aliases of each client that are scraped through every scraper
    #[arg(long, default_value_t = 2)]
    scraped: usize,
    /// Bytes of a body
    #[arg(long, default_value_t = 2000)]
    body: usize,
    /// Instead: announcements of one scraper at nodes for this time, and look-ups
    #[arg(long, value_parser = humantime::parse_duration)]
    dht: Option<Duration>,
    /// Nodes, each of which knows the one before it
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Look-ups, one after the other
    #[arg(long, default_value_t = 20)]
    lookups: usize,
    /// Instead: what the model says of larger groups
    #[arg(long)]
    model: bool,
    #[arg(long, hide = true)]
    inside: bool,
    /// `cargo bench` adds this flag
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the child processes are.
#[derive(Subcommand)]
enum Role {
    #[command(hide = true)]
    Clients(Clients),
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let args = Args::parse();
    match (&args.role, args.dht) {
        (Some(Role::Clients(clients)), _) => clients.run().await,
        (None, Some(_)) if !args.inside => dht::in_a_namespace(),
        (None, Some(length)) => dht::measure(args.nodes, length, args.lookups).await,
        (None, None) if args.model => {
            model::print(600.0);
            Ok(())
        }
        (None, None) => {
            let mut reports = Vec::new();
            for &scrapers in &args.scrapers {
                reports.push(run::measure(&args, scrapers).await?);
                reports.last().inspect(|report| report.print());
            }
            report::compare(&reports);
            Ok(())
        }
    }
}
