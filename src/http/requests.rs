//! What one connection was asked, and whether it owes an answer.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admission::{Busy, Place};

/// How many requests of a connection had a complete head, and how many of them were answered.
pub(super) struct Requests {
    asked: AtomicU64,
    answered: AtomicU64,
    worth: Mutex<Option<Worth>>,
    place: Arc<Place>,
}

/// A request with a complete head. Dropped once the request is answered or given up.
pub(super) struct Asked {
    requests: Arc<Requests>,
    _busy: Busy,
}

/// Extension of a response: how long the rest of the answer is worth waiting for a client that does not read.
#[derive(Clone, Debug)]
pub(crate) struct Worth {
    /// Nobody waits for the answer after this instant.
    pub(crate) until: Instant,
    /// Fires when others need what the answer holds.
    pub(crate) given_up: CancellationToken,
}

impl Requests {
    pub(super) fn new(place: Arc<Place>) -> Arc<Self> {
        let (asked, answered) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { asked, answered, worth: Mutex::default(), place })
    }

    pub(super) fn ask(self: &Arc<Self>) -> Asked {
        self.asked.fetch_add(1, Relaxed);
        Asked { requests: Arc::clone(self), _busy: self.busy() }
    }

    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Relaxed)
    }

    pub(super) fn is_answering(&self) -> bool {
        self.asked.load(Relaxed) > self.answered.load(Relaxed)
    }

    /// Keeps the connection from being closed for another one.
    pub(super) fn busy(&self) -> Busy {
        self.place.busy()
    }

    pub(super) fn set_worth(&self, worth: Option<Worth>) {
        *self.worth.lock().unwrap_or_else(PoisonError::into_inner) = worth;
    }

    /// How long the answer under way is worth waiting; as long as it takes if none.
    pub(super) fn worth(&self) -> Option<Worth> {
        self.worth.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Of a connection of its own.
    #[cfg(test)]
    pub(super) fn alone() -> Arc<Self> {
        use futures::FutureExt;

        use super::admission::{Admission, HttpLimits};
        use crate::telemetry::Refusals;

        let admission = Admission::new(HttpLimits::default(), Arc::new(Refusals::new()));
        let admitted = admission.admit(std::net::Ipv4Addr::LOCALHOST.into()).now_or_never().flatten();
        Self::new(admitted.expect("room"))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.requests.answered.fetch_add(1, Relaxed);
    }
}
