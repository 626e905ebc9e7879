//! Links that stay relayed.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    rig::{Agent, Relay, Seer},
    support::lab::{Kind, Lab},
};

/// What proves nothing is closed after 30 s, at the next look.
const STRANGER_CLOSED: Duration = Duration::from_secs(45);

/// A node dials the scraper back, to see whether it can, and the scraper closes that connection after a while. Nothing
/// else may end with it.
#[test]
fn a_scraper_that_its_relay_can_dial_keeps_its_relayed_links() {
    let Some(mut lab) = Lab::new() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let relays = Relay::start(&mut lab, 1, directory.path());
    let (scraper, site) = (Seer::start(&mut lab, Kind::Open, &relays), lab.site(Kind::Symmetric));
    lab.part(&scraper.site, &site);
    let _agent = Agent::start("agent", &site, &relays, &scraper);
    scraper.wait_scraped("agent", Duration::from_secs(30));
    let began = Instant::now();
    while began.elapsed() < STRANGER_CLOSED {
        let scraped = scraper.scrape("agent");
        assert!(scraped.is_ok(), "after {:?}: {scraped:?}", began.elapsed());
        assert_eq!(scraper.path("agent"), "relayed");
        thread::sleep(Duration::from_millis(200));
    }
}
