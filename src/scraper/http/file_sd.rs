//! The http_sd list as a file, for Prometheus's `file_sd_configs` on the same host.
//!
//! Prometheus watches such a file and takes a new list at once, while it polls `/sd`. The file holds what `/sd` answers.
//! While the table is not known for certain the file stays as it is, also from the last run.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{task, time};
use tokio_util::sync::CancellationToken;

use super::{
    router::Shared,
    sd_chunks::SdChunks,
    sd_list::{Fragment, is_same},
    table_list::{LINKS_PAUSE, Rendered, TableUnknown},
};
use crate::{
    atomic_file,
    scraper::{
        config::{HttpConfig, ScraperError},
        outcome::FileSdOutcome,
    },
};

/// How long changes of the table are gathered. Changes of links are gathered as long as the list itself gathers them: the
/// list would not show them earlier.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a table whose store fails is looked at: no change is reported when the store works again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The wait after a failed write, as on a full disk.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

/// Mode of a file with tokens of beacons: for the user's group too, of which Prometheus should be.
const WITH_SECRETS: u32 = 0o640;

#[derive(Debug)]
pub(in crate::scraper) struct FileSd {
    path: PathBuf,
    /// The address to scrape.
    target: String,
}

impl FileSd {
    /// The file of `config`, for a scraper that listens on `local`.
    /// An error if the file can name no address: a request for `/sd` names one, a file does not.
    pub(in crate::scraper) fn new(config: &HttpConfig, local: SocketAddr) -> Result<Option<Self>, ScraperError> {
        let Some(path) = config.file_sd.clone() else { return Ok(None) };
        let target = match &config.advertise {
            Some(advertise) => advertise.to_string(),
            None if local.ip().is_unspecified() => return Err(ScraperError::NoTarget { local }),
            None => local.to_string(),
        };
        Ok(Some(Self { path, target }))
    }

    /// Writes the file at each change until `stop` fires, and leaves the file there.
    pub(super) async fn keep(self, shared: Arc<Shared>, stop: CancellationToken) {
        let mut registry = shared.registry.changes();
        let mut links = shared.network.links().changes();
        let mut written: Option<Arc<Rendered<Vec<Fragment>>>> = None;
        let mut failing = false;
        loop {
            // The next round sees what changes from here on.
            let again_in = match shared.sd.current().await {
                Ok(list) if written.as_ref().is_some_and(|written| is_same(&written.list, &list.list)) => None,
                Ok(list) => match self.write(Arc::clone(&list)).await {
                    Ok(()) => {
                        shared.metrics.file_sd_write(FileSdOutcome::Ok);
                        if std::mem::take(&mut failing) {
                            tracing::info!(path = %self.path.display(), "file_sd file is written again");
                        }
                        written = Some(list);
                        None
                    }
                    Err(error) => {
                        shared.metrics.file_sd_write(FileSdOutcome::Failed);
                        if !std::mem::replace(&mut failing, true) {
                            tracing::warn!(path = %self.path.display(), %error, "could not write the file_sd file");
                        }
                        Some(WRITE_AGAIN)
                    }
                },
                Err(TableUnknown::NotLoaded(_) | TableUnknown::Stopped) => None,
                Err(TableUnknown::StoreFailing | TableUnknown::Incomplete) => Some(LOOK_AGAIN),
            };
            // Without a sender the scraper is about to end: only `stop` is left to wait for.
            let pause = tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = registry.changed() => PAUSE,
                Ok(()) = links.changed() => LINKS_PAUSE,
                () = time::sleep(again_in.unwrap_or_default()), if again_in.is_some() => continue,
            };
            // Further changes are gathered.
            if stop.run_until_cancelled(time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    async fn write(&self, list: Arc<Rendered<Vec<Fragment>>>) -> io::Result<()> {
        let path = self.path.clone();
        let is_secret = list.list.iter().any(Fragment::is_secret);
        let mode = if is_secret { WITH_SECRETS } else { atomic_file::SHARED };
        let list = SdChunks::whole(list, &self.target);
        task::spawn_blocking(move || atomic_file::replace_with(&path, mode, |file| list.write_to(file)))
            .await
            .map_err(io::Error::other)?
    }
}
