//! Ends: of a process by SIGTERM, of a scrape by its requester.

use std::thread;

use crate::support::{
    SOON, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, scrape_path},
    http,
};

#[test]
fn a_scrape_in_flight_completes_when_the_scraper_is_asked_to_end() {
    let fleet = Fleet::new();
    let mut scraper = fleet.scraper(&[]);
    let exporter = Exporter::start([("/gated", Reply::Gated(Box::new(Reply::text("late 1\n"))))]);
    let _agent = fleet.agent_of(&scraper, "agent", [("gated", exporter.url("/gated"))], &[]);
    scraper.wait_listed("gated");

    let address = scraper.http;
    let scrape = thread::spawn(move || {
        http::get(address, &scrape_path("gated"), &[("X-Prometheus-Scrape-Timeout-Seconds", "30")])
    });
    exporter.wait_asked("/gated");
    scraper.process.ask_to_end();
    eventually_true("no new requests are taken", SOON, || {
        http::get(address, "/-/ready", &[]).map_or(true, |answer| answer.status != 200)
    });
    exporter.open_gate();

    let answer = scrape.join().expect("the scrape does not panic").expect("an answer");
    assert_eq!((answer.status, answer.text().as_str(), answer.complete), (200, "late 1\n", true));
    let status = scraper.process.wait(SOON);
    assert!(status.success(), "{status}");
}

#[test]
fn an_agent_that_is_asked_to_end_releases_its_aliases() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let targets = ["one", "two"].map(|alias| (alias, exporter.url("/metrics")));
    let mut agent = fleet.agent_of(&scraper, "agent", targets, &[]);
    scraper.wait_scraped("one");
    scraper.wait_scraped("two");

    let status = agent.terminate(SOON);
    assert!(status.success(), "{status}");
    // Not sooner or later: a release is acknowledged before the agent ends.
    assert!(scraper.listed().expect("a list").is_empty());
    assert_eq!(scraper.scrape("one", SOON).status, 404);
}

#[test]
fn an_exporter_is_no_longer_asked_when_prometheus_went_away() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let exporter = Exporter::start([("/hang", Reply::Hang), ("/metrics", Reply::text("m 1\n"))]);
    let targets = [("hang", exporter.url("/hang")), ("fine", exporter.url("/metrics"))];
    let _agent = fleet.agent_of(&scraper, "agent", targets, &[]);
    scraper.wait_scraped("fine");

    let headers = [("X-Prometheus-Scrape-Timeout-Seconds", "50")];
    let connection = http::send("GET", scraper.http, &scrape_path("hang"), &headers).expect("sent");
    exporter.wait_asked("/hang");
    drop(connection);
    exporter.wait_abandoned("/hang");
    assert_eq!(scraper.scrape("fine", SOON).status, 200, "the link goes on");
}

#[test]
fn an_exporter_is_no_longer_asked_when_the_scraper_went_away() {
    let fleet = Fleet::new();
    let mut scraper = fleet.scraper(&[]);
    let exporter = Exporter::start([("/hang", Reply::Hang)]);
    let _agent = fleet.agent_of(&scraper, "agent", [("hang", exporter.url("/hang"))], &[]);
    scraper.wait_listed("hang");

    let headers = [("X-Prometheus-Scrape-Timeout-Seconds", "50")];
    let _connection = http::send("GET", scraper.http, &scrape_path("hang"), &headers).expect("sent");
    exporter.wait_asked("/hang");
    scraper.process.kill();
    exporter.wait_abandoned("/hang");
}
