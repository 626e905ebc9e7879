//! An agent that is killed: the scrape that it was answering fails as soon as its link is known to be lost, the first
//! after it within a moment, later ones at once, and none waits for its whole timeout.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    SOON, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper, scrape_path},
    http::{self, Answer},
    process::Process,
};

/// What the scrapes may take, by their header. Failing by the timeout would take longer than a test may.
const TIMEOUT: Duration = Duration::from_secs(50);
/// Far beyond what a failure takes, far below the timeout.
const FAR_BELOW: Duration = Duration::from_secs(10);

#[test]
fn scrapes_of_a_killed_agent_fail_with_its_link_and_not_by_their_timeout() {
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = Exporter::start([("/hang", Reply::Hang), ("/metrics", Reply::text("m 1\n"))]);
    let mut agent = agent(&fleet, &scraper, &exporter);
    scraper.wait_scraped("fine");

    let address = scraper.http;
    let in_flight = thread::spawn(move || timed(|| scrape(address, "hang")));
    exporter.wait_asked("/hang");
    let killed = Instant::now();
    agent.kill();
    eventually_true("the link is known to be lost", SOON, || scraper.count(&["narthex_links{"]) == 0.0);
    let known_after = killed.elapsed();
    let (answer, _) = in_flight.join().expect("the scrape does not panic");
    let failed_after = killed.elapsed();
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(
        failed_after < known_after + Duration::from_secs(1),
        "failed after {failed_after:?}, known after {known_after:?}"
    );

    // At first the agent may be about to come back, and is given a moment; then not any more.
    let (answer, took) = timed(|| scrape(address, "fine"));
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(took < FAR_BELOW, "{took:?}");
    assert!(answer.text().contains("not connected"), "{}", answer.text());
    // If each waited for the link, each would take a second.
    let ((), took) = timed(|| (0..10).for_each(|_| assert_eq!(scrape(address, "fine").status, 502)));
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(scraper.wait_listed("fine").label("__meta_narthex_path"), "none");
}

#[test]
fn a_body_that_a_killed_agent_leaves_behind_is_cut() {
    let (fleet, scraper) = Fleet::with_scraper();
    // More than fits between the exporter and whoever does not read.
    let exporter =
        Exporter::start([("/hang", Reply::Generated { len: 60_000_000 }), ("/metrics", Reply::text("m 1\n"))]);
    let mut agent = agent(&fleet, &scraper, &exporter);
    scraper.wait_scraped("fine");

    let mut huge = http::Exchange::begin("GET", scraper.http, &scrape_path("hang"), &[]).expect("an answer begins");
    assert_eq!(huge.status, 200);
    agent.kill();
    let mut read = 0;
    let (complete, took) = timed(|| huge.read_body(|bytes| read += bytes.len()));
    assert!(!complete && read < 60_000_000, "{read} bytes passed for the whole");
    assert!(took < FAR_BELOW, "{took:?}");
    scraper.wait_counted(&["narthex_scrapes_total", "outcome=\"cut\""], 0.0);
}

fn agent(fleet: &Fleet, scraper: &Scraper, exporter: &Exporter) -> Process {
    fleet.agent_of(scraper, "agent", [("hang", exporter.url("/hang")), ("fine", exporter.url("/metrics"))], &[])
}

fn scrape(address: std::net::SocketAddr, alias: &str) -> Answer {
    let timeout = TIMEOUT.as_secs().to_string();
    let headers = [("X-Prometheus-Scrape-Timeout-Seconds", timeout.as_str())];
    http::get(address, &scrape_path(alias), &headers).expect("an answer")
}

fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    (act(), began.elapsed())
}
