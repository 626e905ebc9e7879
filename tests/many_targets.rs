//! A thousand targets behind ten clients: what one more costs, and that the others do not notice.
#![cfg(feature = "cli")]

mod support;

use std::convert::Infallible;

use narthex::{Client, TargetBuilder};
use support::{
    PROMETHEUS_NOTICES, SOON, eventually_true,
    fleet::{Fleet, Scraper},
    peers::Monitor,
};

const CLIENTS: usize = 10;
const TARGETS: usize = 100;
const ALL: usize = CLIENTS * TARGETS;

#[test]
fn one_more_target_touches_one_registration_and_no_other_target_blinks() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = |aliases: Vec<String>| {
        let builder = Client::builder(scraper.peer(), fleet.secret.clone());
        let builder = aliases.iter().fold(builder, |builder, alias| builder.target(target(alias)));
        runtime.block_on(builder.start()).expect("the client starts")
    };
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|client_number| client((0..TARGETS).map(|number| format!("t-{client_number}-{number}")).collect()))
        .collect();
    eventually_true("all are listed", SOON, || scraper.listed().is_some_and(|listed| listed.len() == ALL));
    assert_eq!(registrations(&scraper), [ALL as f64, 0.0]);

    let Some(prometheus) = Monitor::prometheus_on(fleet.path(), &every_five_seconds(&scraper), &[]) else { return };
    let up = || prometheus.query("count(up == 1)").first().map_or(0, |(_, count)| *count as usize);
    eventually_true("all are up", PROMETHEUS_NOTICES, || up() == ALL);

    clients.push(client(vec!["one-more".into()]));
    eventually_true("one more is up", PROMETHEUS_NOTICES, || {
        let up = up();
        assert!(up >= ALL, "only {up} of {ALL} are up");
        up == ALL + 1
    });
    assert_eq!(registrations(&scraper), [ALL as f64 + 1.0, 0.0], "nobody else registered or renewed");
    eventually_true("the others were scraped before and after", PROMETHEUS_NOTICES, || {
        let scrapes = prometheus.query("min(count_over_time(up{instance!=\"one-more\"}[10m]))");
        scrapes.first().is_some_and(|(_, least)| *least >= 4.0)
    });
    let (_, never_down) = prometheus.query("count(min_over_time(up[10m]) == 1)").remove(0);
    assert_eq!(never_down, ALL as f64 + 1.0);
    runtime.block_on(async {
        for client in clients {
            client.shutdown().await;
        }
    });
    assert!(scraper.listed().expect("a list").is_empty());
}

fn target(alias: &str) -> TargetBuilder {
    TargetBuilder::new(alias).service("web").metrics(|| Ok::<_, Infallible>("# TYPE m gauge\nm 1\n".to_owned()))
}

/// New or changed, and plainly renewed.
fn registrations(scraper: &Scraper) -> [f64; 2] {
    ["updated", "renewed"].map(|outcome| scraper.count(&["narthex_registrations_total", outcome]))
}

/// A thousand scrapes a second would be a test of this machine.
fn every_five_seconds(scraper: &Scraper) -> String {
    format!(
        "  - job_name: narthex\n    scrape_interval: 5s\n    scrape_timeout: 5s\n    http_sd_configs:\n      \
         - url: http://{}/sd\n        refresh_interval: 1s\n",
        scraper.http
    )
}
