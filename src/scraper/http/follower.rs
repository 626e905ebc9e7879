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
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, target: String) -> Self {
        let (registry, links) = (shared.registry.changes(), shared.network.links().changes());
        Self { shared, target, registry, links, handed_out: None }
    }

    /// The newest list, as soon as it differs from the one that was handed out last. A call that is given up loses nothing.
    pub(super) async fn next(&mut self) -> SdChunks {
        loop {
            // The next round sees what changes from here on.
            let again_in = match self.shared.sd.current().await {
                Ok(list) if self.handed_out.as_ref().is_some_and(|before| is_same(&before.list, &list.list)) => None,
                Ok(list) => {
                    self.handed_out = Some(Arc::clone(&list));
                    return SdChunks::whole(list, &self.target);
                }
                Err(TableUnknown::NotLoaded(_) | TableUnknown::Stopped) => None,
                Err(TableUnknown::StoreFailing | TableUnknown::Incomplete) => Some(LOOK_AGAIN),
            };
            let pause = tokio::select! {
                Ok(()) = self.registry.changed() => PAUSE,
                Ok(()) = self.links.changed() => LINKS_PAUSE,
                () = time::sleep(again_in.unwrap_or_default()), if again_in.is_some() => continue,
                // Without a sender the scraper is about to end.
                else => future::pending().await,
            };
            // Further changes are gathered.
            time::sleep(pause).await;
        }
    }

    /// Lets [`next`](Self::next) hand out the newest list even if it is the last one.
    pub(super) fn forget(&mut self) {
        self.handed_out = None;
    }
}
