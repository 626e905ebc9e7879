//! Scrapers are found by key alone, through the DHT of a node.

use std::time::Duration;

use crate::support::{
    SOON, eventually_true,
    exporter::{Exporter, Reply},
    fleet::Fleet,
};

#[test]
fn a_scraper_is_found_by_key_also_after_it_moved() {
    let fleet = Fleet::new();
    let node = fleet.node();
    let bootstrap = node.peer.to_string();
    let mut scraper = fleet.scraper(&["--bootstrap", &bootstrap]);
    let exporter = Exporter::start([("/metrics", Reply::text("found_by_key 1\n"))]);
    let key = scraper.key.to_string();
    let target = |alias: &str| format!("{alias}={}", exporter.url("/metrics"));

    let _first = fleet.agent("first", &["--scraper", &key, "--bootstrap", &bootstrap, "--target", &target("first")]);
    assert_eq!(scraper.wait_scraped("first"), "found_by_key 1\n");

    scraper.process.kill();
    scraper.move_to_another_port();
    scraper.restart();
    // One agent that knew the old address, and one that never knew any.
    let _second = fleet.agent("second", &["--scraper", &key, "--bootstrap", &bootstrap, "--target", &target("second")]);
    scraper.wait_listed("second");
    assert_eq!(scraper.wait_scraped("second"), "found_by_key 1\n");
    let within_two_backoffs = Duration::from_secs(90);
    eventually_true("the client that knew the old address finds the new one", within_two_backoffs, || {
        scraper.scrape("first", SOON).status == 200
    });
}
