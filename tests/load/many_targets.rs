//! A thousand targets behind ten agents: what one more costs, and that the others do not notice.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    MACHINE,
    support::{
        PROMETHEUS_NOTICES, SOON, eventually_true,
        exporter::{Exporter, Reply},
        fleet::{Fleet, Scraper, text},
        peers::Monitor,
        process::Process,
        replace_file,
    },
};

const AGENTS: usize = 10;
const TARGETS: usize = 100;
const ALL: usize = AGENTS * TARGETS;

#[test]
fn one_more_target_touches_one_registration_and_no_other_target_blinks() {
    let _alone = MACHINE.blocking_lock();
    let fleet = Fleet::new();
    // No lease comes up for renewal during the test.
    let scraper = fleet.scraper(&["--lease", "1h"]);
    let exporter = exporter();
    let agents: Vec<Agent> = (0..AGENTS).map(|number| Agent::start(&fleet, &scraper, &exporter, number)).collect();
    eventually_true("all are listed", SOON, || scraper.listed().is_some_and(|listed| listed.len() == ALL));
    let Some(prometheus) = Monitor::prometheus_on(fleet.path(), &scrape_config(&scraper), &[]) else { return };
    let value = |expression: &str| prometheus.query(expression).first().map_or(0.0, |(_, value)| *value);
    eventually_true("all are up", PROMETHEUS_NOTICES, || value("count(up == 1)") == ALL as f64);
    let all_up = Instant::now();

    let (leases, updates) = (leases(&scraper), updates(&scraper));
    serve(&agents[3].targets, "one-more.json", &exporter, ["one-more".to_owned()]);
    prometheus.wait_value("up{instance=\"one-more\"}", 1.0);
    let noticed = value("vector(time())");
    eventually_true("every target was scraped since", PROMETHEUS_NOTICES, || value("min(timestamp(up))") > noticed);

    assert_eq!(value("count(min_over_time(up[10m]) == 1)"), ALL as f64 + 1.0, "a scrape failed");
    let since = all_up.elapsed().as_secs();
    let least = format!("min_over_time(count(up{{instance!=\"one-more\"}} == 1)[{since}s:1s])");
    assert_eq!(value(&least), ALL as f64, "a target was gone for a moment");

    let mut now = self::leases(&scraper);
    let added = now.remove("one-more").expect("is listed");
    assert_eq!(self::updates(&scraper), updates + 1.0, "one alias is new, and no other has changed");
    for (alias, lease) in &leases {
        // An agent sends its whole set in one message, which renews its other aliases.
        let renewed = if lease.peer == added.peer { &added.renewed_at } else { &lease.renewed_at };
        assert_eq!(now[alias], Lease { renewed_at: renewed.clone(), ..lease.clone() }, "{alias}");
    }
}

/// An agent process and its directory of target files.
struct Agent {
    targets: PathBuf,
    _process: Process,
}

impl Agent {
    fn start(fleet: &Fleet, scraper: &Scraper, exporter: &Exporter, number: usize) -> Self {
        let name = format!("agent-{number}");
        let targets = fleet.path().join(format!("{name}-targets"));
        fs::create_dir(&targets).expect("makes");
        serve(&targets, "first.json", exporter, (0..TARGETS).map(|target| format!("t-{number}-{target}")));
        let (peer, directory) = (scraper.peer().to_string(), text(&targets));
        let flags = ["--scraper", &peer, "--targets-dir", &directory, "--targets-refresh", "1s"];
        Self { _process: fleet.agent(&name, &flags), targets }
    }
}

/// Writes a file of targets, all at the one exporter.
fn serve(directory: &Path, file: &str, exporter: &Exporter, aliases: impl IntoIterator<Item = String>) {
    let target = |alias: String| json!({"alias": alias, "url": exporter.url("/metrics")});
    let targets: Value = aliases.into_iter().map(target).collect();
    replace_file(&directory.join(file), &targets.to_string());
}

/// Closes each connection: a thousand kept ones may be more than a process may have open.
fn exporter() -> Exporter {
    let headers = vec![("Content-Type", "text/plain; version=0.0.4"), ("Connection", "close")];
    Exporter::start([("/metrics", Reply::Whole { status: "200 OK", headers, body: b"m 1\n".to_vec() })])
}

/// An alias in the scraper's API.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Lease {
    peer: String,
    registered_at: String,
    renewed_at: String,
}

fn leases(scraper: &Scraper) -> BTreeMap<String, Lease> {
    #[derive(Deserialize)]
    struct Entry {
        alias: String,
        #[serde(flatten)]
        lease: Lease,
    }
    let entries: Vec<Entry> = serde_json::from_slice(&scraper.get("/api/v1/aliases").body).expect("the table as JSON");
    entries.into_iter().map(|entry| (entry.alias, entry.lease)).collect()
}

/// Claims that were new or changed something.
fn updates(scraper: &Scraper) -> f64 {
    scraper.count(&["narthex_registrations_total", "updated"])
}

/// A thousand scrapes a second would be a test of this machine.
fn scrape_config(scraper: &Scraper) -> String {
    format!(
        "  - job_name: narthex\n    scrape_interval: 8s\n    scrape_timeout: 8s\n    http_sd_configs:\n      \
         - url: http://{}/sd\n        refresh_interval: 1s\n",
        scraper.http
    )
}
