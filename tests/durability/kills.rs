//! What was acknowledged outlives the scraper; what has expired stays dead.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

use crate::{
    MACHINE,
    clients::{registered, start},
    report, rounds,
    support::{
        eventually_true,
        fleet::{Fleet, Scraper},
    },
};

/// Rounds unless `NARTHEX_ROUNDS` gives another number.
const ROUNDS: usize = 200;
/// Aliases that a client registers.
const ALIASES: usize = 5;
/// An alias is listed for LEASE + RETENTION after its registration, and then no more.
const LEASE: Duration = Duration::from_secs(3);
const RETENTION: Duration = Duration::from_secs(2);
/// The most by which the scraper may be late with an expiry.
const LATE: Duration = Duration::from_secs(3);

#[test]
fn kills_lose_no_acknowledged_alias_and_revive_no_expired_one() {
    let _alone = MACHINE.blocking_lock();
    let fleet = Fleet::new();
    let times = [format!("{}s", LEASE.as_secs()), format!("{}s", RETENTION.as_secs())];
    let mut scraper = fleet.scraper(&["--lease", &times[0], "--retention", &times[1]]);
    let mut history = History::default();
    let rounds = rounds(ROUNDS);
    for round in 0..rounds {
        let aliases = |what: &str| -> Vec<String> { (0..ALIASES).map(|n| format!("{what}-{round}.{n}")).collect() };
        let (awaited, racing) = (aliases("awaited"), aliases("racing"));
        let began = Instant::now();
        // The runtime dies with the scraper: nobody is left to renew anything.
        let runtime = Runtime::new().expect("a runtime");
        // Nobody waits for the other client's answer: the kill hits its registration wherever that is.
        let other = runtime.block_on(start(&fleet, &scraper, &racing));
        let client = runtime.block_on(registered(&fleet, &scraper, &awaited));
        scraper.process.kill();
        history.note(awaited, began, true);
        history.note(racing, began, false);
        runtime.shutdown_background();
        drop((client, other));
        scraper.restart();
        history.check(&scraper, round);
    }
    assert!(history.seen_listed > rounds, "only {} aliases were seen again after a kill", history.seen_listed);

    let until_all_expired = LEASE + RETENTION + LATE;
    eventually_true("every alias has expired", until_all_expired, || {
        scraper.listed().is_some_and(|listed| listed.is_empty())
    });
    scraper.process.kill();
    scraper.restart();
    assert!(scraper.listed().is_some_and(|listed| listed.is_empty()), "a restart revived an alias");
    report(&format!("kills: {rounds} rounds, {} aliases seen again, 0 lost, 0 revived", history.seen_listed));
}

/// What was registered, and when.
#[derive(Default)]
struct History {
    claims: BTreeMap<String, Claim>,
    seen_listed: usize,
}

/// A registration between two instants.
struct Claim {
    after: Instant,
    before: Instant,
    acknowledged: bool,
}

impl History {
    fn note(&mut self, aliases: Vec<String>, after: Instant, acknowledged: bool) {
        for alias in aliases {
            self.claims.insert(alias, Claim { after, before: Instant::now(), acknowledged });
        }
    }

    fn check(&mut self, scraper: &Scraper, round: usize) {
        let asked = Instant::now();
        let listed = scraper.listed().expect("a ready scraper has a list");
        let answered = Instant::now();
        for (alias, claim) in &self.claims {
            if claim.acknowledged && answered < claim.after + LEASE + RETENTION {
                assert!(listed.contains_key(alias), "round {round}: {alias} was acknowledged and is missing");
                self.seen_listed += 1;
            }
        }
        // What has had its time must not be listed now, nor ever again.
        self.claims.retain(|_, claim| asked <= claim.before + LEASE + RETENTION + LATE);
        let returned: Vec<_> = listed.keys().filter(|alias| !self.claims.contains_key(*alias)).collect();
        assert!(returned.is_empty(), "round {round}: {returned:?} have expired and are back");
    }
}
