//! How the store fares: the writer's thread notes it, everybody else reads it.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use super::StoreError;
use crate::telemetry::{Chain, caught, short_duration};

/// A write that takes longer hangs: the longest that a busy disk takes for one is some seconds, and clients wait 10 s.
pub(super) const HANGS_AFTER: Duration = Duration::from_secs(5);

/// Most reasons of one failure that are logged.
const REASONS: usize = 8;

/// The state of the store.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// True while the last write has failed.
    failing: AtomicBool,
    /// Why, as far as it was logged: the reason changes while a person mends the first.
    reasons: Mutex<BTreeSet<String>>,
    /// True while a write hangs.
    hanging: AtomicBool,
    pub(super) failures: AtomicU64,
    /// The last registration on disk; all before are on disk too.
    pub(super) written: AtomicU64,
    /// True while the leases are complete, and may be noted as that.
    pub(super) complete: AtomicBool,
    /// When the store was last reached.
    reached_at: Mutex<Option<SystemTime>>,
    /// The begin of the store's work that is under way.
    busy_since: Mutex<Option<Instant>>,
}

impl Health {
    /// True while nothing can be stored.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed) || self.is_hanging()
    }

    /// True while the writer takes no changes either.
    pub(super) fn is_hanging(&self) -> bool {
        self.hanging.load(Ordering::Relaxed)
    }

    pub(super) fn reached(&self, at: SystemTime) {
        *self.reached_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// How long ago the store was last reached: what the table says is as old. Zero before the load.
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        let reached_at = *self.reached_at.lock().unwrap_or_else(PoisonError::into_inner);
        reached_at.and_then(|at| now.duration_since(at).ok()).unwrap_or_default()
    }

    pub(super) fn works(&self) {
        self.reached(SystemTime::now());
        if self.failing.swap(false, Ordering::Relaxed) {
            self.reasons().clear();
            tracing::info!("registry store can be written again");
        }
    }

    pub(super) fn failed(&self, error: &StoreError) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.failing.store(true, Ordering::Relaxed);
        let (reason, mut reasons) = (Chain(error).to_string(), self.reasons());
        if reasons.len() < REASONS && reasons.insert(reason.clone()) {
            tracing::error!(
                error = reason,
                "registry store failed: until it can be written again leases are only renewed"
            );
        }
    }

    fn reasons(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one door to the store: what panics in there is an error out here, and is tried again as any other.
    pub(super) fn guarded<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        *self.busy_since() = Some(Instant::now());
        let done = caught(work).unwrap_or_else(|message| Err(StoreError::Panicked { message }));
        let mut busy_since = self.busy_since();
        let took = busy_since.take().map(|since| since.elapsed());
        if self.hanging.swap(false, Ordering::Relaxed) {
            drop(busy_since);
            tracing::info!(took = took.map(short_duration), "registry store hangs no more");
        }
        done
    }

    /// Must be called each second: nobody but others can see that the writer's thread waits for its disk.
    pub(super) fn watch(&self, now: Instant) {
        let busy_since = self.busy_since();
        let hangs = busy_since.is_some_and(|since| now.saturating_duration_since(since) >= HANGS_AFTER);
        if hangs && !self.hanging.swap(true, Ordering::Relaxed) {
            drop(busy_since);
            self.failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                after = short_duration(HANGS_AFTER),
                "registry store hangs: the disk has not ended a write, and until it does leases are only renewed"
            );
        }
    }

    /// Held while `hanging` is set, so that the end of a write comes before or after.
    fn busy_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.busy_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;

    /// Before: who had put a deleted directory back was not told that another process had it now.
    #[test]
    fn each_reason_of_a_failure_is_logged_once() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let lines = tracing_subscriber::fmt().with_writer(Arc::new(file.reopen().expect("opens"))).finish();
        tracing::subscriber::with_default(lines, || {
            let health = Health::default();
            for _ in 0..2 {
                for reason in (0..20).chain(0..20) {
                    let path = format!("/{reason}").into();
                    health.failed(&if reason % 2 == 0 {
                        StoreError::Gone { path }
                    } else {
                        StoreError::Locked { path }
                    });
                }
                health.works();
                assert!(!health.is_failing());
            }
        });
        let text = fs::read_to_string(file.path()).expect("text");
        assert_eq!(text.matches("store failed").count(), 2 * REASONS);
        assert_eq!(text.matches("in use by another").count(), REASONS);
        assert_eq!(text.matches("written again").count(), 2 * REASONS + 2);
    }
}
