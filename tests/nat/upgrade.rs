//! Links that go from relayed to direct, scrapes meanwhile, and links that stay relayed.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    rig::{self, Agent, Seer},
    support::lab::Kind,
};

/// The second new circuit is at most 3 min away.
const AGAIN: Duration = Duration::from_secs(240);
/// The attempts on one circuit take 16 s.
const GIVEN_UP: Duration = Duration::from_secs(20);
/// Scrapes at the same time, each loop with 20 ms between them.
const LOOPS: usize = 4;
/// What proves nothing is closed after 30 s, at the next look.
const STRANGER_CLOSED: Duration = Duration::from_secs(45);

/// The two reach each other only once scrapes run through the relay, in the midst of the attempts to punch. A slow
/// internet puts many scrapes on their way at that moment.
#[test]
#[expect(clippy::print_stdout, reason = "how many scrapes there were belongs to the result")]
fn no_scrape_fails_while_a_relayed_link_becomes_direct() {
    let Some((mut lab, directory, relays)) = rig::with_relays(1) else { return };
    let Some(_delay) = lab.delay(50, directory.path()) else { return };
    let (scraper, site) = (Seer::start(&mut lab, Kind::Cone, &relays), lab.site(Kind::Cone));
    lab.part(&scraper.site, &site);
    let agent = Agent::start("agent", &site, &relays, &scraper);
    scraper.wait_scraped("agent", Duration::from_secs(30));
    let relayed_after = agent.started.elapsed();
    assert_eq!(scraper.path("agent"), "relayed");

    let done = AtomicBool::new(false);
    let loops: Vec<(usize, Vec<String>)> = thread::scope(|scope| {
        let scrape = || {
            let (mut count, mut failures) = (0, Vec::new());
            while !done.load(Ordering::Relaxed) {
                failures.extend(scraper.scrape("agent").err());
                count += 1;
                thread::sleep(Duration::from_millis(20));
            }
            (count, failures)
        };
        let loops: Vec<_> = (0..LOOPS).map(|_| scope.spawn(scrape)).collect();
        thread::sleep(Duration::from_secs(1));
        lab.rejoin();
        scraper.wait_path("agent", "direct", Duration::from_secs(30));
        let direct_at = Instant::now();
        println!("relayed after {relayed_after:?}, direct after {:?}", agent.started.elapsed());
        // The relayed connection stays for what still runs on it, and is closed then.
        while direct_at.elapsed() < Duration::from_secs(15) {
            assert_eq!(scraper.path("agent"), "direct");
            thread::sleep(Duration::from_millis(100));
        }
        done.store(true, Ordering::Relaxed);
        loops.into_iter().map(|scrapes| scrapes.join().expect("no panic")).collect()
    });
    let scrapes: usize = loops.iter().map(|(count, _)| count).sum();
    let failures: Vec<&String> = loops.iter().flat_map(|(_, failures)| failures).collect();
    println!("{scrapes} scrapes, {} failed", failures.len());
    assert!(failures.is_empty(), "{failures:?}");
}

/// Whatever was in the way of the first attempts, it need not be there for ever.
#[test]
#[expect(clippy::print_stdout, reason = "how long it took belongs to the result")]
fn a_link_that_stayed_relayed_becomes_direct_once_it_can() {
    let Some((mut lab, _directory, relays)) = rig::with_relays(1) else { return };
    let (scraper, site) = (Seer::start(&mut lab, Kind::Cone, &relays), lab.site(Kind::Cone));
    lab.part(&scraper.site, &site);
    let agent = Agent::start("agent", &site, &relays, &scraper);
    scraper.wait_scraped("agent", Duration::from_secs(30));
    thread::sleep(GIVEN_UP);
    assert_eq!(scraper.path("agent"), "relayed");
    lab.rejoin();
    let rejoined = Instant::now();
    scraper.wait_path("agent", "direct", AGAIN);
    println!("relayed for {:?}, then direct after {:?}", agent.started.elapsed(), rejoined.elapsed());
    scraper.wait_scraped("agent", Duration::from_secs(10));
}
/// A node dials the scraper back, to see whether it can, and the scraper closes that connection after a while. Nothing
/// else may end with it.
#[test]
fn a_scraper_that_its_relay_can_dial_keeps_its_relayed_links() {
    let Some((mut lab, _directory, relays)) = rig::with_relays(1) else { return };
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
