//! Peers that answer nothing: a connection that may be dead is probed, and closed if it is.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time;
use tokio_util::task::TaskTracker;

use crate::{identity::PublicKey, telemetry::LogRate};

/// Deadlines in a row that a peer may miss before its connection is probed.
const MAX_MISSED_DEADLINES: u32 = 3;
/// A pull that had less time says nothing about its peer.
const SHORTEST_JUDGED: Duration = Duration::from_secs(1);
/// Longest wait for the answer to a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Lines about peers that answer no probe.
const LINES_PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).expect("thirty is not zero");

/// What each peer missed since its last answer.
pub(super) struct Silence {
    peers: Mutex<HashMap<PublicKey, Silent>>,
    lines: LogRate,
    probes: TaskTracker,
}

enum Silent {
    /// Deadlines in a row. A live peer answers a little before the deadline.
    Missed(u32),
    /// One probe at a time: each takes a stream.
    Probed,
}

impl Silence {
    pub(super) fn new() -> Self {
        Self { peers: Mutex::default(), lines: LogRate::new(LINES_PER_MINUTE), probes: TaskTracker::new() }
    }

    /// Counts a pull without an answer, which had so long. True if the peer is to be probed now.
    pub(super) fn missed(&self, peer: PublicKey, had: Duration) -> bool {
        if had < SHORTEST_JUDGED {
            return false;
        }
        let mut peers = self.peers();
        let silent = peers.entry(peer).or_insert(Silent::Missed(0));
        let Silent::Missed(times) = silent else { return false };
        *times += 1;
        let probed = *times == MAX_MISSED_DEADLINES;
        if probed {
            *silent = Silent::Probed;
        }
        probed
    }

    /// True if the peer is to be probed now, whatever it missed.
    pub(super) fn suspected(&self, peer: PublicKey) -> bool {
        !matches!(self.peers().insert(peer, Silent::Probed), Some(Silent::Probed))
    }

    /// Forgets what the peer missed, but not a probe that is under way.
    pub(super) fn answered(&self, peer: &PublicKey) {
        let mut peers = self.peers();
        if matches!(peers.get(peer), Some(Silent::Missed(_))) {
            peers.remove(peer);
        }
    }

    /// Runs `probe`, and `close` if there is no answer in time: such a connection is dead, whatever the kernel still hopes.
    pub(super) fn probe<E>(
        self: &Arc<Self>,
        peer: PublicKey,
        probe: impl Future<Output = Result<(), E>> + Send + 'static,
        close: impl Future<Output = ()> + Send + 'static,
    ) {
        let silence = Arc::clone(self);
        self.probes.spawn(async move {
            if !matches!(time::timeout(PROBE_TIMEOUT, probe).await, Ok(Ok(()))) {
                if let Some(left_out) = silence.lines.line(&peer) {
                    tracing::warn!(%peer, left_out, "a peer has left pulls unanswered, and a probe: its connection is closed");
                }
                close.await;
            }
            silence.peers().remove(&peer);
        });
    }

    /// Drops what was noted of the log lines of peers that are quiet.
    pub(super) fn sweep(&self) {
        self.lines.forget_old();
    }

    /// Waits for the probes under way.
    pub(super) async fn close(&self) {
        self.probes.close();
        self.probes.wait().await;
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<PublicKey, Silent>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future;

    use super::*;
    use crate::identity::KeyPair;

    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_peer_has_one_probe_at_a_time_and_none_for_pulls_that_had_no_time() {
        let (silence, peer) = (Arc::new(Silence::new()), KeyPair::generate().public());
        assert!((0..100).all(|_| !silence.missed(peer, Duration::from_millis(1))));
        assert_eq!([(); 3].map(|()| silence.missed(peer, LONG)), [false, false, true]);
        let (closed, is_closed) = tokio::sync::oneshot::channel();
        let close = async { closed.send(()).expect("is awaited") };
        silence.probe(peer, future::pending::<Result<(), ()>>(), close);
        assert!((0..100).all(|_| !silence.missed(peer, LONG)), "the probe is under way");
        silence.answered(&peer);
        assert!(!silence.missed(peer, LONG), "still");
        assert!(!silence.suspected(peer), "still");
        is_closed.await.expect("the connection is closed");
        silence.close().await;
        assert_eq!([(); 3].map(|()| silence.missed(peer, LONG)), [false, false, true]);
    }

    #[test]
    fn an_answer_ends_the_row() {
        let (silence, peer) = (Silence::new(), KeyPair::generate().public());
        assert_eq!([(); 2].map(|()| silence.missed(peer, LONG)), [false, false]);
        silence.answered(&peer);
        assert_eq!([(); 3].map(|()| silence.missed(peer, LONG)), [false, false, true]);
    }

    #[test]
    fn a_suspected_peer_is_probed_once() {
        let (silence, peer) = (Silence::new(), KeyPair::generate().public());
        assert!(!silence.missed(peer, LONG));
        assert_eq!([(); 2].map(|()| silence.suspected(peer)), [true, false]);
    }
}
