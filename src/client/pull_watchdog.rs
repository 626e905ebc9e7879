//! Notices that a scraper's pulls are overdue.
//!
//! A link may die unnoticed: the scraper moved, or a router forgot the mapping through which its pulls arrive. A scraper
//! that pulls at an interval is missed soon after a pull was due. The client then tests its connections, so that no more than
//! one scrape is lost. A test costs a ping, and whoever is well answers it: a pull that is merely late does no harm.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{self, Instant};

use crate::identity::PublicKey;

/// How late a pull may be: as this part of the pause between pulls, and at least so long. Prometheus scrapes to the millisecond.
const SLACK_PART: u32 = 16;
const SLACK: Duration = Duration::from_millis(500);
/// How often the pauses are looked at again: pulls that begin, or come more often, make the due time earlier.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// For how many times its length a pause counts.
const STAYS: u32 = 4;
/// Longest pause that is counted.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Each miss doubles the time until the next test, so often.
const MAX_MISSES: u32 = 16;
/// Longest time between two tests while pulls stay away.
const MAX_WAIT: Duration = Duration::from_secs(120);

/// When each scraper pulled last, and how long its pauses are.
#[derive(Default)]
pub(super) struct PullWatchdog(Mutex<HashMap<PublicKey, Pulls>>);

struct Pulls {
    last: Instant,
    /// Start of the current wait: the last pull, or the last time that pulls were found overdue.
    since: Instant,
    /// The longest recent pause, and when it ended; none before the second pull.
    longest: Option<(Duration, Instant)>,
    /// How often pulls were found overdue since the last one.
    misses: u32,
}

impl PullWatchdog {
    pub(super) fn pulled(&self, scraper: PublicKey) {
        let now = Instant::now();
        let mut pulls = self.pulls();
        let Some(pulls) = pulls.get_mut(&scraper) else {
            pulls.insert(scraper, Pulls { last: now, since: now, longest: None, misses: 0 });
            return;
        };
        // Pulls of several aliases come in bunches, so the longest pause counts for several times its length.
        let pause = (now - pulls.last).min(MAX_PAUSE);
        let stays = pulls.longest.is_some_and(|(longest, ended)| longest > pause && now - ended < longest * STAYS);
        if !stays {
            pulls.longest = Some((pause, now));
        }
        (pulls.last, pulls.since, pulls.misses) = (now, now, 0);
    }

    /// Records a new link: the time without a link is no pause.
    pub(super) fn linked(&self, scraper: &PublicKey) {
        if let Some(pulls) = self.pulls().get_mut(scraper) {
            let now = Instant::now();
            (pulls.last, pulls.since) = (now, now);
        }
    }

    /// Forgets a scraper that is none of ours any more.
    pub(super) fn forget(&self, scraper: &PublicKey) {
        self.pulls().remove(scraper);
    }

    /// Returns once pulls are overdue; later the next time, in case Prometheus stopped scraping.
    pub(super) async fn overdue(&self, scraper: &PublicKey) {
        loop {
            let now = Instant::now();
            let due = match self.pulls().get_mut(scraper) {
                Some(Pulls { since, longest: Some((longest, _)), misses, .. }) => {
                    let pause = longest.saturating_mul(1 << *misses).min(MAX_WAIT);
                    let due = *since + pause + SLACK.max(pause / SLACK_PART);
                    if due <= now {
                        (*since, *misses) = (now, MAX_MISSES.min(*misses + 1));
                        return;
                    }
                    due
                }
                _ => now + LOOK_EVERY,
            };
            time::sleep_until(due.min(now + LOOK_EVERY)).await;
        }
    }

    fn pulls(&self) -> MutexGuard<'_, HashMap<PublicKey, Pulls>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyPair;

    #[tokio::test(start_paused = true)]
    async fn a_scraper_is_missed_when_its_pulls_are_overdue_and_later_the_next_time() {
        let (watchdog, scraper) = (PullWatchdog::default(), KeyPair::generate().public());
        for _ in 0..10 {
            watchdog.pulled(scraper);
            let early = time::timeout(Duration::from_secs(15), watchdog.overdue(&scraper)).await;
            assert!(early.is_err(), "a pull every 15 s is not overdue");
        }
        let missed_in = |began: Instant| (Instant::now() - began).as_secs();
        let began = Instant::now();
        watchdog.overdue(&scraper).await;
        assert_eq!(missed_in(began), 0, "15 s are over, and the slack of 0.9 s begins");
        for later in [31, 63, 127, 127] {
            let began = Instant::now();
            watchdog.overdue(&scraper).await;
            assert_eq!(missed_in(began), later);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pulls_that_begin_during_the_wait_are_missed_when_they_end() {
        let (watchdog, scraper) = (PullWatchdog::default(), KeyPair::generate().public());
        let pulls = async {
            for _ in 0..3 {
                watchdog.pulled(scraper);
                time::sleep(Duration::from_secs(2)).await;
            }
            Instant::now()
        };
        let ((), ended) = tokio::join!(watchdog.overdue(&scraper), pulls);
        assert!(ended.elapsed() < Duration::from_secs(2), "{:?}", ended.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_scraper_that_never_pulled_twice_is_not_missed() {
        let (watchdog, scraper) = (PullWatchdog::default(), KeyPair::generate().public());
        watchdog.pulled(scraper);
        let missed = time::timeout(Duration::from_secs(3600), watchdog.overdue(&scraper)).await;
        assert!(missed.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn uneven_pulls_are_not_overdue() {
        let (watchdog, scraper) = (PullWatchdog::default(), KeyPair::generate().public());
        for round in 0..20 {
            for pause in [1, 1, 1, 1, 1, 2, 12] {
                watchdog.pulled(scraper);
                let next = Instant::now() + Duration::from_secs(pause);
                let missed = time::timeout_at(next, watchdog.overdue(&scraper)).await;
                time::sleep_until(next).await;
                assert!(missed.is_err() || round == 0, "round {round}, pause {pause}");
            }
        }
    }
}
