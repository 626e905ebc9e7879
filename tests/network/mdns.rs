//! Scrapers on the same local network are found by key alone: two hosts and the cable between them.

use std::time::Duration;

use crate::support::{
    SOON, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper},
    netns::Namespace,
    process::Process,
};

/// Two hosts on one network.
struct Lan {
    fleet: Fleet,
    near: Namespace,
    far: Namespace,
}

impl Lan {
    /// None, after saying why, where there can be none.
    fn new() -> Option<Self> {
        if !Namespace::available() {
            return None;
        }
        let (near, far) = (Namespace::new("near"), Namespace::new("far"));
        near.ip(&[
            &format!("link add lan type veth peer name lan netns {}", far.name()),
            "address add 10.77.0.1/24 dev lan",
            "link set lan up",
        ]);
        far.ip(&["address add 10.77.0.2/24 dev lan", "link set lan up"]);
        Some(Self { fleet: Fleet::new(), near, far })
    }

    /// An agent on the far host that knows the scraper's key and nothing else.
    fn agent(&self, scraper: &Scraper, alias: &str) -> Process {
        self.far.enter(|| {
            let exporter = Exporter::start([("/metrics", Reply::text("found_nearby 1\n"))]);
            let (key, target) = (scraper.key.to_string(), format!("{alias}={}", exporter.url("/metrics")));
            self.fleet.agent(alias, &["--mdns", "--scraper", &key, "--target", &target])
        })
    }
}

#[test]
fn a_scraper_nearby_is_found_by_key_alone_also_after_it_moved() {
    let Some(lan) = Lan::new() else { return };
    let mut scraper = lan.near.enter(|| lan.fleet.scraper(&["--mdns", "--listen", "0.0.0.0:19961"]));
    let _agent = lan.agent(&scraper, "nearby");
    assert_eq!(lan.near.enter(|| scraper.wait_scraped("nearby")), "found_nearby 1\n");

    scraper.process.kill();
    lan.near.ip(&["address del 10.77.0.1/24 dev lan", "address add 10.77.0.3/24 dev lan"]);
    let within_two_backoffs = Duration::from_secs(90);
    lan.near.enter(|| {
        scraper.restart();
        eventually_true("the agent finds the new address", within_two_backoffs, || {
            scraper.scrape("nearby", SOON).status == 200
        });
    });
}

#[test]
fn a_scraper_without_mdns_is_not_found() {
    let Some(lan) = Lan::new() else { return };
    let scraper = lan.near.enter(|| lan.fleet.scraper(&["--listen", "0.0.0.0:19961"]));
    let agent = lan.agent(&scraper, "nearby");
    agent.wait_log(&["no link", "not found by mDNS"]);
}
