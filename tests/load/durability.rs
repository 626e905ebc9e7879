//! What was acknowledged outlives the scraper; what has expired stays dead.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    time::{Duration, Instant},
};

use narthex::{
    Client,
    client::{EventKind, TargetBuilder},
};
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    MACHINE,
    support::{
        SOON, eventually_true,
        fleet::{Fleet, Scraper},
    },
};

const ROUNDS: usize = 200;
/// Aliases that a client registers.
const ALIASES: usize = 5;
/// An alias is listed for LEASE + RETENTION after its registration, and then no more.
const LEASE: Duration = Duration::from_secs(3);
const RETENTION: Duration = Duration::from_secs(2);
/// The most by which the scraper may be late with an expiry.
const LATE: Duration = Duration::from_secs(3);

#[test]
fn no_acknowledged_alias_is_lost_and_no_expired_one_returns_over_200_kills() {
    let _alone = MACHINE.blocking_lock();
    let fleet = Fleet::new();
    let times = [format!("{}s", LEASE.as_secs()), format!("{}s", RETENTION.as_secs())];
    let mut scraper = fleet.scraper(&["--lease", &times[0], "--retention", &times[1]]);
    let mut history = History::default();
    for round in 0..ROUNDS {
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
    assert!(history.seen_listed > ROUNDS, "only {} aliases were seen again after a kill", history.seen_listed);

    let until_all_expired = LEASE + RETENTION + LATE;
    eventually_true("every alias has expired", until_all_expired, || {
        scraper.listed().is_some_and(|listed| listed.is_empty())
    });
    scraper.process.kill();
    scraper.restart();
    assert!(scraper.listed().is_some_and(|listed| listed.is_empty()), "a restart revived an alias");
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

async fn start(fleet: &Fleet, scraper: &Scraper, aliases: &[String]) -> Client {
    let metrics = || Ok::<_, Infallible>("m 1\n".to_owned());
    let builder = Client::builder(scraper.peer(), fleet.secret.clone());
    let builder =
        aliases.iter().fold(builder, |builder, alias| builder.target(TargetBuilder::new(alias).metrics(metrics)));
    builder.start().await.expect("the client starts")
}

/// A client whose aliases the scraper has acknowledged, every one.
async fn registered(fleet: &Fleet, scraper: &Scraper, aliases: &[String]) -> Client {
    let client = start(fleet, scraper, aliases).await;
    let mut events = client.events();
    let acknowledged = async {
        let mut left = aliases.len();
        while left > 0 {
            match events.recv().await.expect("events go on").kind {
                EventKind::Registered { .. } => left -= 1,
                EventKind::RegisterFailed { error, .. } => panic!("not registered: {error}"),
                _ => {}
            }
        }
    };
    timeout(SOON, acknowledged).await.expect("the scraper acknowledges");
    client
}
