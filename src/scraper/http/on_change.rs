//! The http_sd list for a command, at each change.
//!
//! The command gets what `/sd` answers. While the table is not known for certain nothing runs.

use std::{net::SocketAddr, sync::Arc};

use super::{follower::Follower, router::Shared, sd_chunks::SdChunks};
use crate::{
    hook::{Ending, Hook, Lists},
    scraper::config::{HttpConfig, ScraperError},
};

#[derive(Debug)]
pub(in crate::scraper) struct OnChange {
    hook: Hook,
    /// The address to scrape.
    target: String,
}

impl OnChange {
    /// The command of `config`, for a scraper that listens on `local`. An error if its list can name no address.
    pub(in crate::scraper) fn new(
        config: &HttpConfig,
        local: Option<SocketAddr>,
    ) -> Result<Option<Self>, ScraperError> {
        let Some(hook) = config.on_change.clone() else { return Ok(None) };
        Ok(Some(Self { hook, target: config.target(local)? }))
    }

    /// Runs the command at each change until `end` comes.
    pub(in crate::scraper) async fn keep(self, shared: Arc<Shared>, end: Ending) {
        let metrics = Arc::clone(&shared.metrics);
        let lists = Follower::new(shared, self.target);
        self.hook.keep(lists, &end, |outcome| metrics.on_change_run(outcome)).await;
    }
}

impl Lists for Follower {
    type List = SdChunks;

    async fn next(&mut self) -> SdChunks {
        Self::next(self).await
    }
}
