//! The place of one stream to a peer. More streams than a connection may have would end the connection.

use std::{hash::Hash, time::Duration};

use tokio::{runtime::Handle, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::shares::Share;
use crate::{http::Place, identity::PublicKey};

/// How long a stream that was given up keeps its place: until the peer, which counts streams too, has noticed.
pub(super) const GIVEN_UP_FOR: Duration = Duration::from_millis(250);

/// A share of the streams to a peer, for `M` of the peer. Free at once if the stream is kept, and else a moment later.
pub(super) struct StreamPlace<M: Clone + Eq + Hash + Send + 'static> {
    /// None once dropped.
    share: Option<Share<PublicKey, M>>,
    kept: bool,
    given_up: TaskTracker,
}

impl<M: Clone + Eq + Hash + Send + 'static> StreamPlace<M> {
    /// Tasks that hold the places of streams that were given up are spawned on `given_up`.
    pub(super) fn new(share: Share<PublicKey, M>, given_up: TaskTracker) -> Self {
        Self { share: Some(share), kept: false, given_up }
    }

    /// Cancelled when the place goes to somebody who has fewer.
    pub(super) fn evicted(&self) -> CancellationToken {
        self.share.as_ref().map(|share| share.evicted().clone()).unwrap_or_default()
    }
}

impl<M: Clone + Eq + Hash + Send + 'static> Place for StreamPlace<M> {
    fn kept(&mut self) {
        self.kept = true;
    }
}

impl<M: Clone + Eq + Hash + Send + 'static> Drop for StreamPlace<M> {
    fn drop(&mut self) {
        let share = self.share.take();
        // Without a runtime nobody pulls any more.
        if !self.kept
            && let Ok(runtime) = Handle::try_current()
        {
            let lingering = async move {
                time::sleep(GIVEN_UP_FOR).await;
                drop(share);
            };
            self.given_up.spawn_on(lingering, &runtime);
        }
    }
}
