//! Attempts that fail one after the other, as the pulls of one target or the registrations with one scraper: the log has a
//! line at the first failure, and one at the end.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Between two outages in the log: an exporter that fails every second scrape would otherwise fill the log.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The failures since the last success.
#[derive(Debug, Default)]
pub(super) struct Outage(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failed: u64,
    since: Option<Instant>,
    /// True if the log has the begin of this outage.
    logged: bool,
    logged_at: Option<Instant>,
}

/// An outage whose begin is in the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// Attempts that failed.
    pub(super) failed: u64,
    /// From the first failure on.
    pub(super) lasted: Duration,
}

impl Outage {
    /// Counts a failure. True if the log is to have this failure.
    pub(super) fn failed(&self) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        state.failed += 1;
        state.since.get_or_insert(now);
        let log = !state.logged && state.logged_at.is_none_or(|at| now.duration_since(at) > LOG_EVERY);
        if log {
            (state.logged, state.logged_at) = (true, Some(now));
        }
        log
    }

    /// Ends the outage. Returns what the log is to have.
    pub(super) fn succeeded(&self) -> Option<Ended> {
        let mut state = self.state();
        let (failed, since, logged) = (state.failed, state.since.take()?, state.logged);
        (state.failed, state.logged) = (0, false);
        logged.then(|| Ended { failed, lasted: since.elapsed() })
    }

    /// True from the first failure until a success.
    pub(super) fn is_under_way(&self) -> bool {
        self.state().since.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_logged_once_and_counted_at_its_end() {
        let outage = Outage::default();
        assert!(outage.failed());
        for _ in 0..4 {
            advance(LOG_EVERY).await;
            assert!(!outage.failed());
        }
        assert_eq!(outage.succeeded(), Some(Ended { failed: 5, lasted: LOG_EVERY * 4 }));
        assert_eq!(outage.succeeded(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_fails_now_and_then_is_logged_once_a_minute() {
        let outage = Outage::default();
        let mut lines = 0;
        for _ in 0..600 {
            lines += usize::from(outage.failed()) + usize::from(outage.succeeded().is_some());
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(lines, 20, "begin and end of an outage in each minute");
    }
}
