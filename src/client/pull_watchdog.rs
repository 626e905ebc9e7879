//! Notices that a scraper has fallen silent.
//!
//! A link may die without a word: the scraper has moved, or a router forgot the mapping through which its pulls came in.
//! A scraper that pulls at an interval is missed soon after a pull was due. It is then asked something: that either
//! renews the mapping, or shows that the link is dead, long before a ping would.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{self, Instant};

use crate::identity::PublicKey;

/// When scrapers were heard of last, and how long their pauses are.
#[derive(Default)]
pub(super) struct PullWatchdog(Mutex<HashMap<PublicKey, Rhythm>>);

struct Rhythm {
    heard: Instant,
    /// When we were last patient: since a pull, or since we asked.
    since: Instant,
    /// The longest pause of late; none until there were two pulls.
    pause: Option<Duration>,
}

impl PullWatchdog {
    /// A pull came in.
    pub(super) fn pulled(&self, scraper: PublicKey) {
        let now = Instant::now();
        let mut rhythms = self.rhythms();
        let Some(rhythm) = rhythms.get_mut(&scraper) else {
            rhythms.insert(scraper, Rhythm { heard: now, since: now, pause: None });
            return;
        };
        // Pulls of several aliases come unevenly: the longest pause counts, and is forgotten slowly.
        let forgotten = rhythm.pause.unwrap_or_default().mul_f64(0.75);
        rhythm.pause = Some((now - rhythm.heard).max(forgotten).min(MOST_PATIENCE));
        (rhythm.heard, rhythm.since) = (now, now);
    }

    /// There is a new link: the pause before it says nothing, and pulls shall come over it.
    pub(super) fn begins(&self, scraper: &PublicKey) {
        if let Some(rhythm) = self.rhythms().get_mut(scraper) {
            let now = Instant::now();
            (rhythm.heard, rhythm.since) = (now, now);
        }
    }

    /// When the scraper was heard of last.
    pub(super) fn last(&self, scraper: &PublicKey) -> Option<Instant> {
        self.rhythms().get(scraper).map(|rhythm| rhythm.heard)
    }

    /// Returns once pulls are overdue; later the next time, in case that nobody scrapes any more.
    pub(super) async fn falls(&self, scraper: &PublicKey) {
        loop {
            let now = Instant::now();
            let due = match self.rhythms().get_mut(scraper) {
                Some(Rhythm { since, pause: Some(pause), .. }) => {
                    let due = *since + *pause * 2 + SLACK;
                    if due <= now {
                        (*since, *pause) = (now, (*pause * 2).min(MOST_PATIENCE));
                        return;
                    }
                    due
                }
                _ => now + LOOK_EVERY,
            };
            // Pulls that begin, or come more often, make it earlier.
            time::sleep_until(due.min(now + LOOK_EVERY)).await;
        }
    }

    fn rhythms(&self) -> MutexGuard<'_, HashMap<PublicKey, Rhythm>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A scrape may be late by so much.
const SLACK: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Beyond that pings notice.
const MOST_PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyPair;

    #[tokio::test(start_paused = true)]
    async fn a_scraper_is_missed_when_its_pulls_are_overdue_and_later_the_next_time() {
        let (watchdog, scraper) = (PullWatchdog::default(), KeyPair::generate().public());
        for _ in 0..10 {
            watchdog.pulled(scraper);
            let early = time::timeout(Duration::from_secs(15), watchdog.falls(&scraper)).await;
            assert!(early.is_err(), "a pull every 15 s is no silence");
        }
        let missed_in = |began: Instant| (Instant::now() - began).as_secs();
        let began = Instant::now();
        watchdog.falls(&scraper).await;
        assert_eq!(missed_in(began), 17, "15 s, once more, and the slack; 15 s are over");
        let began = Instant::now();
        watchdog.falls(&scraper).await;
        assert_eq!(missed_in(began), 62);
    }

    #[tokio::test(start_paused = true)]
    async fn pulls_that_begin_while_we_listen_are_missed_when_they_end() {
        let (watchdog, scraper) = (PullWatchdog::default(), KeyPair::generate().public());
        let pulls = async {
            for _ in 0..3 {
                watchdog.pulled(scraper);
                time::sleep(Duration::from_secs(2)).await;
            }
            Instant::now()
        };
        let ((), ended) = tokio::join!(watchdog.falls(&scraper), pulls);
        assert!(ended.elapsed() < Duration::from_secs(7), "{:?}", ended.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_scraper_that_never_pulled_twice_is_not_missed() {
        let (watchdog, scraper) = (PullWatchdog::default(), KeyPair::generate().public());
        watchdog.pulled(scraper);
        let missed = time::timeout(Duration::from_secs(3600), watchdog.falls(&scraper)).await;
        assert!(missed.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn uneven_pulls_are_no_silence() {
        let (watchdog, scraper) = (PullWatchdog::default(), KeyPair::generate().public());
        for round in 0..20 {
            for pause in [1, 2, 12] {
                watchdog.pulled(scraper);
                let next = Instant::now() + Duration::from_secs(pause);
                let missed = time::timeout_at(next, watchdog.falls(&scraper)).await;
                time::sleep_until(next).await;
                assert!(missed.is_err() || round == 0, "round {round}, pause {pause}");
            }
        }
    }
}
