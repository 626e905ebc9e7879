//! A fleet that ends at once: nothing of it stays listed.

use std::time::Duration;

use crate::{
    MACHINE,
    clients::Clients,
    support::{
        eventually_true,
        fleet::{Fleet, Scraper},
    },
};

const CLIENTS: usize = 400;
/// In a debug build, beside other tests.
const AT_LAST: Duration = Duration::from_secs(180);

#[test]
fn a_fleet_that_ends_at_once_leaves_nothing_listed() {
    let _alone = MACHINE.blocking_lock();
    let (fleet, scraper) = Fleet::with_scraper();
    let clients = Clients::start(&fleet, &scraper, CLIENTS);
    eventually_true("all are listed and linked", AT_LAST, || {
        listed(&scraper) == CLIENTS && scraper.count(&["narthex_links", "direct"]) as usize == CLIENTS
    });
    clients.end(AT_LAST);
    assert_eq!(listed(&scraper), 0, "they stay listed, and would raise alerts");
    assert_eq!(scraper.count(&["narthex_registrations_total", "released"]) as usize, CLIENTS);
}

fn listed(scraper: &Scraper) -> usize {
    scraper.listed().map_or(0, |listed| listed.len())
}
