//! Which link each pair of NATs gets, and after how long.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    rig::{self, Agent, BODY, Relay, Seconds, Seer},
    support::lab::{Kind, Site},
};

const KINDS: [Kind; 4] = [Kind::Open, Kind::Cone, Kind::Symmetric, Kind::UdpBlocked];
/// Cells that run at the same time.
const AT_ONCE: usize = 4;
/// Three attempts to punch take 16 s.
const PUNCHED_BY_THEN: Duration = Duration::from_secs(18);
/// What a busy machine misses is tried anew on another circuit, after a minute at most.
const TRIED_ANEW: Duration = Duration::from_secs(90);
const GIVEN_UP: Duration = Duration::from_secs(120);

/// What became of a cell.
#[derive(Debug)]
struct Cell {
    client: Kind,
    scraper: Kind,
    first_path: String,
    scraped: Option<Duration>,
    direct: Option<Duration>,
    /// The path at the end, and the answer of a scrape.
    path: String,
    last: Result<String, String>,
}

#[test]
#[expect(clippy::print_stdout, reason = "the table is the result")]
fn every_nat_is_scraped_through_every_nat_and_cones_get_direct() {
    let Some((mut lab, _directory, relays)) = rig::with_relays(2) else { return };
    let scrapers = KINDS.map(|kind| Seer::start(&mut lab, kind, &relays));
    let pairs: Vec<(Site, &Seer)> =
        KINDS.iter().flat_map(|kind| scrapers.each_ref().map(|scraper| (lab.site(*kind), scraper))).collect();

    let (next, cells) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((site, scraper)) = pairs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let cell = observe(site, scraper, &relays);
                    cells.lock().expect("sound").push(cell);
                }
            });
        }
    });
    let mut cells = cells.into_inner().expect("sound");
    let position = |kind| KINDS.iter().position(|known| *known == kind);
    cells.sort_by_key(|cell| (position(cell.client), position(cell.scraper)));

    println!("| client | scraper | first scrape | over | direct after | in the end |");
    println!("|---|---|---|---|---|---|");
    for Cell { client, scraper, first_path, scraped, direct, path, .. } in &cells {
        let (scraped, direct) = (Seconds(*scraped), Seconds(*direct));
        println!("| {client:?} | {scraper:?} | {scraped} | {first_path} | {direct} | {path} |");
    }
    for cell in &cells {
        assert!(cell.scraped.is_some() && cell.last.as_deref() == Ok(BODY), "{cell:?}");
        assert!(cell.path == "direct" || !gets_direct(cell.client, cell.scraper), "{cell:?}");
    }
}

/// Whoever is open is dialled by the other, and cones punch through UDP. Where that is blocked a hole is punched through
/// TCP by both dialling at the same moment: nothing to insist on.
fn gets_direct(client: Kind, scraper: Kind) -> bool {
    [client, scraper].contains(&Kind::Open) || (client, scraper) == (Kind::Cone, Kind::Cone)
}

/// Starts an agent at the site and looks on until its link is direct, or is not going to be.
fn observe(site: &Site, scraper: &Seer, relays: &[Relay]) -> Cell {
    let name = format!("{:?}-{:?}", site.kind(), scraper.site.kind());
    let agent = Agent::start(&name, site, relays, scraper);
    let (mut scraped, mut direct, mut first_path) = (None, None, String::new());
    loop {
        let last = scraper.scrape(&name);
        let path = scraper.path(&name);
        // The list is a moment behind.
        if scraped.is_none() && last.is_ok() && !path.is_empty() {
            (scraped, first_path) = (Some(agent.started.elapsed()), path.clone());
        }
        if direct.is_none() && path == "direct" {
            direct = Some(agent.started.elapsed());
        }
        let patience = if gets_direct(site.kind(), scraper.site.kind()) { TRIED_ANEW } else { PUNCHED_BY_THEN };
        let watched = scraped.is_some_and(|scraped| agent.started.elapsed() > scraped + patience);
        let done = watched || (scraped.is_some() && direct.is_some() && last.is_ok());
        if done || agent.started.elapsed() > GIVEN_UP {
            return Cell { client: site.kind(), scraper: scraper.site.kind(), first_path, scraped, direct, path, last };
        }
        thread::sleep(Duration::from_millis(50));
    }
}
