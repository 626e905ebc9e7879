//! What was acknowledged outlives the scraper, and is in its log; what has expired stays dead.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{
    MACHINE,
    clients::{registered, start},
    report, rounds,
    support::{
        eventually_true,
        fleet::{Fleet, Scraper, narthex, text},
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
    let mut scraper = fleet.scraper(&["--lease", &times[0], "--retention", &times[1], "--registration-log"]);
    let (mut history, mut log) = (History::default(), Log::default());
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
        log.acknowledged.extend(awaited.iter().cloned());
        history.note(awaited, began, true);
        history.note(racing, began, false);
        runtime.shutdown_background();
        drop((client, other));
        scraper.restart();
        history.check(&scraper, round);
        log.verify(&fleet, &scraper, round);
    }
    assert!(history.seen_listed > rounds, "only {} aliases were seen again after a kill", history.seen_listed);

    let until_all_expired = LEASE + RETENTION + LATE;
    eventually_true("every alias has expired", until_all_expired, || {
        scraper.listed().is_some_and(|listed| listed.is_empty())
    });
    scraper.process.kill();
    scraper.restart();
    assert!(scraper.listed().is_some_and(|listed| listed.is_empty()), "a restart revived an alias");
    let entries = log.read(&fleet);
    let seen = history.seen_listed;
    report(&format!(
        "kills: {rounds} rounds, {seen} aliases seen again, 0 lost, 0 revived, {entries} entries of the log in one chain"
    ));
}

/// The registration log, which every kill hits, too.
#[derive(Default)]
struct Log {
    acknowledged: BTreeSet<String>,
    /// The last head, as an auditor would keep it.
    head: Option<String>,
}

impl Log {
    /// The chain is whole, and goes on from where it was.
    fn verify(&mut self, fleet: &Fleet, scraper: &Scraper, round: usize) {
        let mut command = narthex("log");
        command.args(["verify", "--data-dir", &text(&fleet.path().join("scraper-data"))]);
        command.args(["--scraper-key", &scraper.peer().key.to_string()]);
        command.args(self.head.iter().flat_map(|head| ["--head", head]));
        let output = command.output().expect("runs");
        assert!(output.status.success(), "round {round}: {}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).expect("text");
        self.head = said.lines().find_map(|line| line.strip_prefix("head ").map(str::to_owned));
    }

    /// Everything that was acknowledged is in it. Returns how many entries there are.
    fn read(&self, fleet: &Fleet) -> usize {
        let mut command = narthex("log");
        command.args(["show", "--json", "--data-dir", &text(&fleet.path().join("scraper-data"))]);
        let shown = String::from_utf8(command.output().expect("runs").stdout).expect("text");
        let entries: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let taken = entries.iter().filter(|entry| entry["event"] == "registered");
        let taken: BTreeSet<&str> = taken.filter_map(|entry| entry["alias"].as_str()).collect();
        let missing: Vec<_> = self.acknowledged.iter().filter(|alias| !taken.contains(alias.as_str())).collect();
        assert!(missing.is_empty(), "acknowledged, and not in the log: {missing:?}");
        entries.len()
    }
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
