//! What happens at scrapers: registrations, releases, links that come and go, and the passing of time.

use std::{iter, time::Duration};

use proptest::{prelude::*, sample};

/// Short, as time passes in steps of a sweep.
pub(super) const LEASE: Duration = Duration::from_secs(60);
pub(super) const RETENTION: Duration = Duration::from_secs(120);
pub(super) const GRACE: Duration = Duration::from_secs(20);

/// Most time between two sweeps that is no jump of the clock.
const SWEEP: Duration = Duration::from_secs(5);

pub(super) const ALIASES: [&str; 5] = ["a", "b", "c", "d", "e"];
pub(super) const PEERS: usize = 3;

/// One thing that happens, most of them at one of the scrapers.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Register {
        peer: usize,
        aliases: Vec<&'static str>,
        kept: bool,
    },
    Release {
        peer: usize,
    },
    /// The peer links a scraper: for the first time, back, or to move.
    Connect {
        peer: usize,
    },
    /// Its last link is lost.
    Disconnect {
        peer: usize,
    },
    /// Time passes, and all scrapers sweep.
    Wait(Duration),
    /// The scraper stops, closes its store, and starts again.
    Restart,
}

impl Step {
    /// The spans between the sweeps of a wait.
    pub(super) fn sweeps(wait: Duration) -> impl Iterator<Item = Duration> {
        let mut left = wait;
        iter::from_fn(move || {
            let span = left.min(SWEEP);
            left -= span;
            (!span.is_zero()).then_some(span)
        })
    }
}

/// What clients ask of a scraper. A client that moved asks another one than before.
pub(super) fn registrations() -> impl Strategy<Value = Step> {
    let aliases = sample::subsequence(ALIASES.to_vec(), 0..4);
    prop_oneof![
        4 => (0..PEERS, aliases, any::<bool>()).prop_map(|(peer, aliases, kept)| Step::Register { peer, aliases, kept }),
        1 => (0..PEERS).prop_map(|peer| Step::Release { peer }),
    ]
}

pub(super) fn steps() -> impl Strategy<Value = Step> {
    let second = Duration::from_secs(1);
    let waits = vec![second, GRACE, LEASE / 3, LEASE, 2 * LEASE, 2 * LEASE + GRACE, 2 * LEASE + RETENTION - second];
    prop_oneof![
        5 => registrations(),
        1 => (0..PEERS).prop_map(|peer| Step::Connect { peer }),
        2 => (0..PEERS).prop_map(|peer| Step::Disconnect { peer }),
        3 => sample::select(waits).prop_map(Step::Wait),
    ]
}
