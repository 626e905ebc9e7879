//! A thousand targets behind ten agents: what one more costs, and that the others do not notice.

use std::{collections::BTreeMap, time::Instant};

use serde::Deserialize;

use crate::{
    MACHINE,
    agents::{self, Agent},
    support::{
        PROMETHEUS_NOTICES, SOON, eventually_true,
        fleet::{Fleet, Scraper},
        peers::Monitor,
    },
};

const AGENTS: usize = 10;
const TARGETS: usize = 100;
const ALL: usize = AGENTS * TARGETS;
/// A thousand scrapes a second would be a test of this machine.
const INTERVAL_S: u32 = 8;

#[test]
fn one_more_target_touches_one_registration_and_no_other_target_blinks() {
    let _alone = MACHINE.blocking_lock();
    let fleet = Fleet::new();
    // No lease comes up for renewal during the test.
    let scraper = fleet.scraper(&["--lease", "1h"]);
    let exporter = agents::exporter();
    let start = |number| {
        let aliases = (0..TARGETS).map(|target| format!("t-{number}-{target}"));
        Agent::start(&fleet, &scraper, &exporter, format!("agent-{number}"), aliases)
    };
    let agents: Vec<Agent> = (0..AGENTS).map(start).collect();
    eventually_true("all are listed", SOON, || scraper.listed().is_some_and(|listed| listed.len() == ALL));
    let Some(prometheus) = Monitor::prometheus_on(fleet.path(), &agents::scrape_config(&scraper, INTERVAL_S), &[])
    else {
        return;
    };
    let value = |expression: &str| prometheus.query(expression).first().map_or(0.0, |(_, value)| *value);
    eventually_true("all are up", PROMETHEUS_NOTICES, || value("count(up == 1)") == ALL as f64);
    let all_up = Instant::now();

    let (leases, updates) = (leases(&scraper), updates(&scraper));
    agents[3].serve("one-more.json", &exporter, ["one-more"]);
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

/// The agent in front of a rack or a cluster. Before, it had 256 targets.
#[test]
fn one_agent_serves_5000_targets() {
    const RACK: usize = 5000;
    let _alone = MACHINE.blocking_lock();
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let exporter = agents::exporter();
    let alias = |number: usize| format!("rack-17-server-{number:04}.eu-west.example.org");
    let count = || scraper.listed().map_or(0, |listed| listed.len());
    let mut agent = Agent::start(&fleet, &scraper, &exporter, "rack".to_owned(), (0..RACK - 1).map(alias));
    eventually_true("all are listed", SOON, || count() == RACK - 1);
    agent.serve("one-more.json", &exporter, [alias(RACK - 1)]);
    eventually_true("the last one is listed", SOON, || count() == RACK);
    for number in (0..RACK).step_by(100).chain([RACK - 1]) {
        assert_eq!(scraper.scrape(&alias(number), SOON).text(), "m 1\n", "target {number}");
    }
    agent.serve("too-many.json", &exporter, ["too-many"]);
    agent.process.wait_log(&["1 targets are left out: limit is 5000"]);
    assert_eq!(count(), RACK, "the others are served as before");
    agent.process.terminate(SOON);
    eventually_true("none is listed", SOON, || count() == 0);
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
