//! A full table: what its list costs, and what rendering the list costs the scrapes meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{Args, BoxError, process::Child, scrape};

/// Bytes of a scraped body.
const SIZE: usize = 2000;
/// Scrapes in flight.
const AT_ONCE: usize = 4;

pub(crate) async fn measure(scraper: &Child, http: &str, args: &Args) -> Result<(), BoxError> {
    let clients = args.clients.first().copied().unwrap_or(1);
    let target = |n: usize| (http.to_owned(), format!("/scrape/c{}-0/metrics?size={SIZE}", n % clients));
    let registered = scraper.memory_kib()?;
    let began = Instant::now();
    let len = scrape::length(http, "/sd").await?;
    let first = began.elapsed();
    println!(
        "/sd: {len} bytes, first answer {first:?}; memory before {registered} KiB, after {} KiB",
        scraper.memory_kib()?
    );
    let began = Instant::now();
    scrape::length(http, "/sd").await?;
    println!("/sd unchanged: {:?}", began.elapsed());
    for round in 0..args.rounds {
        let quiet = scrape::run(&target, AT_ONCE, args.length, Some(SIZE)).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let churn = tokio::spawn(churn(http.to_owned(), clients, round, Arc::clone(&stop)));
        let busy = scrape::run(&target, AT_ONCE, args.length, Some(SIZE)).await?;
        stop.store(true, Ordering::Relaxed);
        let mut took = churn.await??;
        took.sort_unstable();
        println!(
            "scrapes p50/p99: quiet {:.1}/{:.1} ms, with {} changed lists {:.1}/{:.1} ms; a changed list: median {:?}; memory {} KiB, peak {} KiB",
            quiet.percentile_ms(0.5),
            quiet.percentile_ms(0.99),
            took.len(),
            busy.percentile_ms(0.5),
            busy.percentile_ms(0.99),
            took.get(took.len() / 2).copied().unwrap_or(Duration::ZERO),
            scraper.memory_kib()?,
            scraper.peak_memory_kib()?,
        );
    }
    Ok(())
}

/// Releases an alias and reads the list, again and again; gives the time of each list.
async fn churn(http: String, clients: usize, round: usize, stop: Arc<AtomicBool>) -> Result<Vec<Duration>, BoxError> {
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        scrape::release(&http, &format!("c{}-{}", took.len() % clients, 1 + round)).await?;
        let began = Instant::now();
        scrape::length(&http, "/sd").await?;
        took.push(began.elapsed());
    }
    Ok(took)
}
