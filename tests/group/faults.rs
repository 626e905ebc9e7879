//! Three scrapers over one NATS, a real Prometheus at each, and clients that were given one scraper each: whatever dies, every
//! Prometheus keeps every target.
//!
//! `NARTHEX_CLIENTS=100 cargo test --all-features --test group faults -- --nocapture` takes as many clients as it is told, and
//! prints how long each fault was seen.

use std::{
    env,
    io::Write,
    time::{Duration, Instant},
};

use narthex::{Client, KeyPair};
use tokio::runtime::Runtime;

use crate::support::{
    cable::Cable,
    eventually_true,
    fleet::{Fleet, Scraper},
    nats::Nats,
    peers::Monitor,
};

/// Longest time in which all targets are up again at every Prometheus, on a busy machine.
const BACK: Duration = Duration::from_secs(120);
/// Every target is scraped each second.
const NOTICED: Duration = Duration::from_secs(3);

struct Site {
    scraper: Scraper,
    prometheus: Monitor,
}

struct Lab {
    sites: Vec<Site>,
    clients: Vec<Client>,
    runtime: Runtime,
    /// From the first scraper to NATS.
    cable: Cable,
    nats: Nats,
    _fleet: Fleet,
}

impl Lab {
    fn start(count: usize) -> Option<Self> {
        let fleet = Fleet::new();
        let nats = Nats::start(fleet.path())?;
        let cable = Cable::to(nats.at);
        let mut sites = Vec::new();
        for at in 0..3 {
            let store = format!("--store=nats://{}", if at == 0 { cable.address } else { nats.at });
            let scraper = fleet.scraper_named(&format!("scraper-{at}"), &[&store]);
            let directory = fleet.path().join(format!("prometheus-{at}"));
            std::fs::create_dir(&directory).expect("made");
            let prometheus = Monitor::prometheus(&directory, scraper.http, &[])?;
            sites.push(Site { scraper, prometheus });
        }
        let runtime = Runtime::new().expect("a runtime");
        let clients = (0..count).map(|at| {
            let metrics = move || Ok::<_, std::fmt::Error>(format!("client {at}\n"));
            let builder = Client::builder(sites[at % 3].scraper.peer(), fleet.secret.clone());
            let builder = builder.key(KeyPair::generate()).alias(format!("client-{at}")).metrics(metrics);
            runtime.block_on(builder.start()).expect("starts")
        });
        let clients = clients.collect();
        Some(Self { sites, clients, runtime, cable, nats, _fleet: fleet })
    }

    /// Waits until these Prometheus have every target up, once they have had the time to notice a fault, and reports how
    /// long a target was down at most.
    fn wait_all_up(&self, sites: &[usize], what: &str) {
        let began = Instant::now();
        std::thread::sleep(NOTICED);
        for at in sites {
            let prometheus = &self.sites[*at].prometheus;
            eventually_true(&format!("every target is up at Prometheus {at}"), BACK, || {
                let targets = prometheus.targets();
                targets.len() == self.clients.len() && targets.values().all(|target| target.health == "up")
            });
        }
        let range = began.elapsed().as_secs() + 1;
        let down = |at: &usize| {
            let query = format!("max(count_over_time((up{{job=\"narthex\"}} == 0)[{range}s:1s]))");
            self.sites[*at].prometheus.query(&query).first().map_or(0.0, |(_, seconds)| *seconds)
        };
        let longest = sites.iter().map(down).fold(0.0, f64::max);
        let _ = writeln!(std::io::stderr(), "{what}: a target was down for {longest} s at most");
    }

    /// Waits until every client is linked to at least two of the scrapers that run.
    fn wait_two_links(&self) {
        eventually_true("every client has two links", BACK, || {
            self.clients.iter().all(|client| {
                let keys = self.sites.iter().map(|site| site.scraper.key);
                keys.filter(|key| client.is_linked(key)).count() >= 2
            })
        });
    }

    /// No Prometheus has lost a target, for however short a time.
    fn none_disappeared(&self, since: Instant) {
        for (at, site) in self.sites.iter().enumerate() {
            let range = since.elapsed().as_secs().max(1);
            let fewest = site.prometheus.query(&format!("min_over_time(count(up{{job=\"narthex\"}})[{range}s:1s])"));
            let fewest: Vec<f64> = fewest.into_iter().map(|(_, value)| value).collect();
            assert_eq!(fewest, [self.clients.len() as f64], "Prometheus {at}");
        }
    }
}

#[test]
fn no_target_disappears_whatever_dies() {
    let count = env::var("NARTHEX_CLIENTS").map_or(9, |text| text.parse().expect("a number"));
    let Some(mut lab) = Lab::start(count) else { return };
    let all = [0, 1, 2];
    lab.wait_all_up(&all, &format!("start of {count} clients"));
    lab.wait_two_links();
    // Scrapes from before all were known are over.
    std::thread::sleep(Duration::from_secs(10));
    let since = Instant::now();

    lab.sites[0].scraper.process.kill();
    lab.wait_all_up(&[1, 2], "one scraper killed, at the others");
    lab.sites[0].scraper.restart();
    lab.wait_all_up(&all, "the scraper is back");
    lab.wait_two_links();

    lab.cable.cut();
    std::thread::sleep(Duration::from_secs(12));
    lab.wait_all_up(&all, "one scraper cut off from NATS for 12 s");
    lab.cable.mend();
    lab.wait_all_up(&all, "it reaches NATS again");

    lab.nats.process.freeze();
    std::thread::sleep(Duration::from_secs(12));
    lab.wait_all_up(&all, "NATS frozen for 12 s");
    lab.nats.process.thaw();
    lab.wait_all_up(&all, "NATS reached again");

    lab.nats.restart();
    lab.wait_all_up(&all, "NATS restarted with its store");
    lab.nats.restart_empty();
    for site in &lab.sites {
        eventually_true("the scraper is ready", BACK, || site.scraper.get("/-/ready").status == 200);
    }
    lab.wait_all_up(&all, "NATS restarted with an empty store");

    lab.sites[0].scraper.process.kill();
    lab.sites[1].scraper.process.kill();
    lab.wait_all_up(&[2], "two scrapers killed, at the third");
    lab.sites[0].scraper.restart();
    lab.sites[1].scraper.restart();
    lab.wait_all_up(&all, "both are back");
    lab.none_disappeared(since);

    // The empty NATS has everything again: a scraper without a copy lists all of it.
    let clients = std::mem::take(&mut lab.clients);
    lab.runtime.block_on(async {
        let began = Instant::now();
        futures::future::join_all(clients.into_iter().map(Client::shutdown)).await;
        let _ = writeln!(std::io::stderr(), "all released after {:.1} s", began.elapsed().as_secs_f64());
    });
    for site in &lab.sites {
        eventually_true("what was released is gone everywhere", BACK, || {
            site.scraper.listed().is_some_and(|listed| listed.is_empty())
        });
    }
}
