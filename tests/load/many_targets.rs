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
