//! The list for those that hand it on by themselves, as a file or to a command: each list that differs from the one before.

use std::{future, sync::Arc, time::Duration};

use tokio::{sync::watch, time};

use super::{
    router::Shared,
    sd_chunks::SdChunks,
    sd_list::{Fragment, is_same},
    table_list::{LINKS_PAUSE, Rendered, TableUnknown},
};

/// How long changes of the table are gathered. Changes of links are gathered as long as the list itself gathers them: the
/// list would not show them earlier.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a table whose store fails is looked at: no change is reported when the store works again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Hands out a list when it has changed, and none while the table is not known for certain.
pub(super) struct Follower {
    shared: Arc<Shared>,
    /// The address to scrape.
    target: String,
    registry: watch::Receiver<u64>,
    links: watch::Receiver<u64>,
    handed_out: Option<Arc<Rendered<Vec<Fragment>>>>,
    /// Whether to look at the list before the next change.
    is_due: bool,
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, target: String) -> Self {
        let (registry, links) = (shared.registry.changes(), shared.network.links().changes());
        Self { shared, target, registry, links, handed_out: None, is_due: true }
    }

    /// The newest list, as soon as it differs from the one that was handed out last. A call that is given up loses nothing.
    pub(super) async fn next(&mut self) -> SdChunks {
        loop {
            if !self.is_due {
                let pause = self.changed().await;
                self.is_due = true;
                // Further changes are gathered, and a change that the store refuses is known as such.
                time::sleep(pause).await;
            }
            match self.shared.sd.current().await {
                Ok(list) => {
                    self.is_due = false;
                    if self.handed_out.as_ref().is_none_or(|before| !is_same(&before.list, &list.list)) {
                        self.handed_out = Some(Arc::clone(&list));
                        return SdChunks::whole(list, &self.target);
                    }
                }
                Err(TableUnknown::NotLoaded(_) | TableUnknown::Stopped) => self.is_due = false,
                Err(TableUnknown::StoreFailing | TableUnknown::Incomplete | TableUnknown::Stale) => {
                    time::sleep(LOOK_AGAIN).await
                }
            }
        }
    }

    /// Lets [`next`](Self::next) hand out the newest list even if it is the last one.
    pub(super) fn forget(&mut self) {
        self.handed_out = None;
        self.is_due = true;
    }

    /// Waits for a change, and gives the time to gather others.
    async fn changed(&mut self) -> Duration {
        tokio::select! {
            Ok(()) = self.registry.changed() => PAUSE,
            Ok(()) = self.links.changed() => LINKS_PAUSE,
            // Without a sender the scraper is about to end.
            else => future::pending().await,
        }
    }
}
