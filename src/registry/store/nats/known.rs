//! What a store knows of the bucket: shared by the thread that writes and the task that watches.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::registry::Name;

/// A bucket at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// When the bucket's stream was created, in nanoseconds since 1970: another bucket of the same name has another.
    pub(super) stream: i128,
    /// The last revision.
    pub(super) at: u64,
}

#[derive(Debug)]
pub(super) struct Known {
    /// This run of the scraper, at random: the writer of its changes.
    pub(super) writer: u64,
    state: Mutex<State>,
    /// Why the store cannot be used; `None` while the bucket is watched and all was reported.
    down: watch::Sender<Option<String>>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// The bucket as of the last event; none before the first.
    pub(super) place: Option<Place>,
    /// The revision that a change of each name must be based on.
    pub(super) bases: HashMap<Name, u64>,
    /// The names of the copy on the disk, before the first list: their revisions are not known yet.
    pub(super) copied: HashSet<Name>,
    /// True after a reset was reported, until its note has come: the bases are those of another bucket.
    pub(super) is_reset: bool,
}

impl Known {
    pub(super) fn new(writer: u64, state: State) -> Self {
        let down = watch::Sender::new(Some("not connected yet".to_owned()));
        Self { writer, state: Mutex::new(state), down }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_down(&self, down: Option<String>) {
        self.down.send_replace(down);
    }

    /// Why the store cannot be used, if so.
    pub(super) fn down(&self) -> Option<String> {
        let down = self.down.borrow().clone();
        down.or_else(|| self.state().is_reset.then(|| "its content is being compared".to_owned()))
    }

    /// Returns once the store cannot be used.
    pub(super) async fn went_down(&self) {
        let _ = self.down.subscribe().wait_for(Option::is_some).await;
    }

    /// Returns once the store can be used.
    pub(super) async fn up(&self) {
        let _ = self.down.subscribe().wait_for(Option::is_none).await;
    }
}
