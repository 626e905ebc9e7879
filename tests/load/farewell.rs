//! A fleet that ends at once: nothing of it stays listed.

use std::{thread, time::Duration};

use narthex::ClientBuilder;

use crate::{
    MACHINE,
    clients::Clients,
    support::{
        eventually_true,
        fleet::{Fleet, Scraper},
    },
};

const CLIENTS: usize = 400;
const FEW: usize = 30;
/// Longer than a link may be silent.
const PAUSE: Duration = Duration::from_secs(18);
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

/// Before: 27 of 30 stayed listed, and 30 of 30 if the scraper was killed.
#[test]
fn a_fleet_that_ends_while_its_scraper_restarts_leaves_nothing_listed() {
    let _alone = MACHINE.blocking_lock();
    let (fleet, mut scraper) = Fleet::with_scraper();
    for killed in [false, true] {
        let clients = Clients::start(&fleet, &scraper, FEW);
        eventually_true("all are listed", AT_LAST, || listed(&scraper) == FEW);
        if killed {
            scraper.process.kill();
        } else {
            scraper.process.ask_to_end();
        }
        let ending = clients.begin_to_end();
        scraper.process.wait(AT_LAST);
        scraper.restart();
        ending.wait(AT_LAST);
        assert_eq!(listed(&scraper), 0, "killed: {killed}");
    }
}

/// Before: a client gave up after 15 s.
#[test]
fn a_fleet_that_ends_while_its_scraper_is_paused_leaves_nothing_listed() {
    let _alone = MACHINE.blocking_lock();
    let (fleet, scraper) = Fleet::with_scraper();
    let clients = Clients::start(&fleet, &scraper, FEW);
    eventually_true("all are listed", AT_LAST, || listed(&scraper) == FEW);
    scraper.process.freeze();
    let ending = clients.begin_to_end();
    thread::sleep(PAUSE);
    scraper.process.thaw();
    ending.wait(AT_LAST);
    assert_eq!(listed(&scraper), 0);
}

/// Nothing to release, or nobody to tell: then nobody waits for the release timeout.
#[test]
fn a_client_that_was_never_registered_ends_at_once() {
    let _alone = MACHINE.blocking_lock();
    let (fleet, mut scraper) = Fleet::with_scraper();
    scraper.process.kill();
    Clients::start(&fleet, &scraper, FEW).end(ClientBuilder::DEFAULT_RELEASE_TIMEOUT / 2);
}

fn listed(scraper: &Scraper) -> usize {
    scraper.listed().map_or(0, |listed| listed.len())
}
