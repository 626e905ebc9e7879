//! A process that is killed, and says nothing over QUIC: no kernel closes its connections.

use std::time::Duration;

use crate::{
    rig::{self, Agent, Seer},
    support::lab::Kind,
};

const WITHIN: Duration = Duration::from_secs(30);

/// Before: each scrape of 25 s took its whole time.
#[test]
fn the_first_scrape_of_a_killed_agent_finds_out_over_quic_and_the_others_do_not_wait() {
    let Some((mut lab, _directory, relays)) = rig::with_relays(1) else { return };
    let scraper = Seer::start(&mut lab, Kind::Open, &relays);
    let site = lab.site(Kind::TcpBlocked);
    let mut agent = Agent::start("agent", &site, &relays, &scraper);
    scraper.wait_scraped("agent", WITHIN);
    scraper.wait_path("agent", "direct", WITHIN);
    scraper.wait_scraped("agent", WITHIN);
    agent.process.kill();
    let failure = |expected: &str| {
        let error = scraper.scrape("agent").expect_err("nobody answers");
        assert!(error.starts_with("502") && error.contains(expected), "{error}");
    };
    failure("broke off before answering");
    failure("is not connected");
    agent.restart(&site, &scraper);
    scraper.wait_scraped("agent", WITHIN);
}
