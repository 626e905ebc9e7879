//! Measures what narthex costs, beside a direct scrape of the same body in the same run.
//!
//! Three processes, as in life: a scraper; clients (with the HTTP server that is scraped directly); and this one, which
//! scrapes both over HTTP/1.1. Cells alternate between the two, several rounds; medians are printed, then everything as
//! one line of JSON.
//!
//! ```text
//! cargo bench --bench load -- --clients 1,100 --sizes 2000,50000,500000 --at-once 1,16
//! cargo bench --bench load -- --clients 1000 --sizes 2000 --at-once 16 --idle 10s
//! cargo bench --bench load -- --exposition node_exporter.txt --gzip-levels 0,1,6
//! cargo bench --bench load -- --clients 40 --aliases 250 --sizes 2000 --at-once 8 --sd
//! cargo bench --bench load -- --clients 400 --aliases 250 --table
//! cargo bench --bench load -- --crowd 100,1000,5000
//! cargo bench --bench load -- --crowd 10000 --aliases 10
//! cargo bench --bench load -- --agent --exposition node_exporter.txt
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod agent;
mod crowd;
mod crowd_clients;
mod floor;
mod peers;
mod process;
mod pushprox;
mod report;
mod scrape;
mod table;
mod usage;

use std::{error::Error, time::Duration};

use clap::{Parser, Subcommand};

use crate::{
    process::Child,
    report::{Cell, Report},
    scrape::Measured,
};

/// Any error.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Measures scrapes through narthex beside direct ones")]
pub(crate) struct Args {
    #[command(subcommand)]
    role: Option<Role>,
    /// Numbers of clients, each a link and a process-wide peer of its own
    #[arg(long, value_delimiter = ',', default_value = "1")]
    clients: Vec<usize>,
    /// Aliases of each client
    #[arg(long, default_value_t = 1)]
    aliases: usize,
    /// Bytes of a body
    #[arg(long, value_delimiter = ',', default_value = "2000,50000,500000")]
    sizes: Vec<usize>,
    /// Gzip level of the link for scrapes that accept gzip; 0 is none
    #[arg(long, value_delimiter = ',', default_value = "0")]
    gzip_levels: Vec<u8>,
    /// A file whose text bodies are made of [default: the same line again and again]
    #[arg(long)]
    exposition: Option<String>,
    /// Scrapes in flight
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    at_once: Vec<usize>,
    /// Length of one measurement
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    length: Duration,
    /// Measurements of a cell; the median is printed
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Also measures memory and CPU of the idle scraper, for this time
    #[arg(long, value_parser = humantime::parse_duration)]
    idle: Option<Duration>,
    /// Puts the narthex agent of this build before an exporter, instead of library clients: plain, compressed by the
    /// exporter, and compressed on the link
    #[arg(long)]
    agent: bool,
    /// Also measures /sd beside a static body of the same length
    #[arg(long)]
    sd: bool,
    /// Numbers of clients that come at once, return at once after the scraper was killed, and end at once; with PushProx
    /// beside narthex where PUSHPROX_PROXY and PUSHPROX_CLIENT name its binaries
    #[arg(long, value_delimiter = ',')]
    crowd: Vec<usize>,
    /// Another narthex as the crowd's scraper, such as an optimized one, or one of an earlier version [default: of this build]
    #[arg(long)]
    narthex: Option<std::path::PathBuf>,
    /// Measures scrapes while the list in /sd changes and is read, and how long the list takes, instead of bodies
    #[arg(long)]
    table: bool,
    /// `cargo bench` adds this flag
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the child processes are.
#[derive(Subcommand)]
enum Role {
    #[command(hide = true)]
    Scraper,
    #[command(hide = true)]
    Exporter { exposition: Option<String> },
    #[command(hide = true)]
    Crowd { scraper: String, secret: String, first: usize, count: usize, aliases: usize },
    #[command(hide = true)]
    Clients {
        scraper: String,
        secret: String,
        clients: usize,
        aliases: usize,
        gzip_level: u8,
        exposition: Option<String>,
    },
}

fn main() -> Result<(), BoxError> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match args.role {
        Some(Role::Scraper) => runtime.block_on(peers::scraper()),
        Some(Role::Clients { scraper, secret, clients, aliases, gzip_level, exposition }) => {
            peers::take_text(exposition.as_deref())?;
            runtime.block_on(peers::clients(&scraper, &secret, clients, aliases, gzip_level))
        }
        Some(Role::Exporter { exposition }) => {
            peers::take_text(exposition.as_deref())?;
            runtime.block_on(agent::exporter())
        }
        Some(Role::Crowd { scraper, secret, first, count, aliases }) => {
            runtime.block_on(crowd_clients::run(&scraper, &secret, first, count, aliases))
        }
        None if !args.crowd.is_empty() => runtime.block_on(crowd::measure(&args)),
        None if args.agent => runtime.block_on(agent::measure(&args)),
        None => runtime.block_on(measure(&args)),
    }
}

async fn measure(args: &Args) -> Result<(), BoxError> {
    let mut report = Report::default();
    for (&clients, &gzip_level) in
        args.clients.iter().flat_map(|n| args.gzip_levels.iter().map(move |level| (n, level)))
    {
        let scraper = Child::start(&["scraper"])?;
        let [key, secret, http] = scraper.ready::<3>()?;
        let before = scraper.memory_kib()?;
        let began = std::time::Instant::now();
        let (count, aliases, level) = (clients.to_string(), args.aliases.to_string(), gzip_level.to_string());
        let peers = ["clients", &key, &secret, &count, &aliases, &level].into_iter().chain(args.exposition.as_deref());
        let peers = Child::start(&peers.collect::<Vec<_>>())?;
        let [direct] = peers.ready::<1>()?;
        report.links(clients, began.elapsed(), before, scraper.memory_kib()?);
        if let Some(length) = args.idle {
            let cpu = scraper.cpu()?;
            tokio::time::sleep(length).await;
            report.idle((scraper.cpu()? - cpu).as_secs_f64() / length.as_secs_f64());
        }
        if args.table {
            table::measure(&scraper, &http, args).await?;
            continue;
        }
        for &size in &args.sizes {
            for &at_once in &args.at_once {
                let through = |n: usize| {
                    let alias = n % clients;
                    (http.clone(), format!("/scrape/c{alias}-0/metrics?size={size}"))
                };
                let straight = |_: usize| (direct.clone(), format!("/metrics?size={size}"));
                let mut cell = Cell::new(clients, size, at_once).gzip(gzip_level);
                for _ in 0..args.rounds {
                    cell.direct.push(scrape::run(&straight, at_once, args.length, Some(size)).await?);
                    let cpu = (scraper.cpu()?, peers.cpu()?);
                    let whole = (gzip_level == 0).then_some(size);
                    let measured = scrape::run(&through, at_once, args.length, whole).await?;
                    cell.cpu.push(per_thousand(scraper.cpu()? - cpu.0, peers.cpu()? - cpu.1, &measured));
                    cell.through.push(measured);
                }
                cell.peak_kib = (scraper.peak_memory_kib()?, peers.peak_memory_kib()?);
                report.cell(cell);
            }
        }
        if args.sd {
            let len = scrape::length(&http, "/sd").await?;
            let list = |_: usize| (http.clone(), "/sd".to_owned());
            let copy = |_: usize| (direct.clone(), format!("/metrics?size={len}"));
            for &at_once in &args.at_once {
                let mut cell = Cell::new(clients, len, at_once).named("/sd");
                for _ in 0..args.rounds {
                    cell.direct.push(scrape::run(&copy, at_once, args.length, Some(len)).await?);
                    let cpu = scraper.cpu()?;
                    let measured = scrape::run(&list, at_once, args.length, None).await?;
                    cell.cpu.push(per_thousand(scraper.cpu()? - cpu, Duration::ZERO, &measured));
                    cell.through.push(measured);
                }
                report.cell(cell);
            }
        }
    }
    report.print()
}

/// CPU seconds of scraper and client for 1000 scrapes.
pub(crate) fn per_thousand(scraper: Duration, clients: Duration, measured: &Measured) -> (f64, f64) {
    let thousands = measured.took.len() as f64 / 1000.0;
    (scraper.as_secs_f64() / thousands, clients.as_secs_f64() / thousands)
}
