//! The http_sd list as a file, for Prometheus's `file_sd_configs` on the same host.
//!
//! Prometheus watches such a file and takes a new list at once, where it polls `/sd`. The rules are those of `/sd`: the
//! file says what that says, and whenever the table is not known for certain it stays as it is, also from the last run.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::watch, task, time};
use tokio_util::sync::CancellationToken;

use super::{
    HttpConfig,
    router::Shared,
    sd_list::{LINKS_PAUSE, SdUnknown},
};
use crate::{atomic_file, scraper::outcome::FileSdOutcome};

/// Listening on every address, and none of them is advertised as the one that leads here.
#[derive(Debug, thiserror::Error)]
#[error("a file_sd file needs an advertised address: {local} is every address, which nobody can scrape")]
pub(in crate::scraper) struct NoTarget {
    pub(in crate::scraper) local: SocketAddr,
}

/// A file to keep.
#[derive(Debug)]
pub(super) struct FileSd {
    path: PathBuf,
    /// What stands in it as the address to scrape.
    target: String,
}

impl FileSd {
    /// What `config` asks for, of a scraper that listens on `local`.
    ///
    /// # Errors
    /// [`NoTarget`]. In a request for `/sd` Prometheus tells how it reaches us; a file asks nobody.
    pub(super) fn new(config: &HttpConfig, local: SocketAddr) -> Result<Option<Self>, NoTarget> {
        let Some(path) = config.file_sd.clone() else { return Ok(None) };
        let target = match &config.advertise {
            Some(advertise) => advertise.to_string(),
            None if local.ip().is_unspecified() => return Err(NoTarget { local }),
            None => local.to_string(),
        };
        Ok(Some(Self { path, target }))
    }

    /// Keeps the file until `stop` fires, and leaves it then.
    pub(super) async fn keep(self, shared: Arc<Shared>, stop: CancellationToken) {
        let mut changes = Changes {
            registry: shared.state.registry.changes(),
            links: shared.state.network.links().changes(),
            open: true,
        };
        let mut written = None;
        let mut failing = false;
        loop {
            // What changes from here on is seen by the next round.
            let again_in = match shared.sd.whole(&self.target) {
                Ok(list) if written.as_ref() == Some(&list) => None,
                Ok(list) => match self.write(list.clone()).await {
                    Ok(()) => {
                        shared.state.metrics.file_sd_write(FileSdOutcome::Ok);
                        if std::mem::take(&mut failing) {
                            tracing::info!(path = %self.path.display(), "file_sd file is written again");
                        }
                        written = Some(list);
                        None
                    }
                    Err(error) => {
                        shared.state.metrics.file_sd_write(FileSdOutcome::Failed);
                        if !std::mem::replace(&mut failing, true) {
                            tracing::warn!(path = %self.path.display(), %error, "could not write the file_sd file");
                        }
                        Some(WRITE_AGAIN)
                    }
                },
                Err(SdUnknown::NotLoaded) => None,
                // Nobody tells when it works again.
                Err(SdUnknown::StoreFailing | SdUnknown::Incomplete) => Some(LOOK_AGAIN),
            };
            let pause = tokio::select! {
                () = stop.cancelled() => return,
                pause = changes.next() => pause,
                () = after(again_in) => continue,
            };
            // Others that come with it are gathered.
            if stop.run_until_cancelled(time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    async fn write(&self, list: Bytes) -> io::Result<()> {
        let path = self.path.clone();
        task::spawn_blocking(move || atomic_file::replace(&path, &list, atomic_file::SHARED))
            .await
            .map_err(io::Error::other)?
    }
}

/// What the list is made of.
struct Changes {
    registry: watch::Receiver<u64>,
    links: watch::Receiver<u64>,
    open: bool,
}

impl Changes {
    /// Waits for a change, and tells how long to wait for others.
    async fn next(&mut self) -> Duration {
        let (changed, pause) = tokio::select! {
            changed = self.registry.changed(), if self.open => (changed, PAUSE),
            changed = self.links.changed(), if self.open => (changed, LINKS_PAUSE),
            else => return std::future::pending().await,
        };
        // Without a sender there is nothing to wait for: so will we end.
        self.open = changed.is_ok();
        pause
    }
}

async fn after(span: Option<Duration>) {
    match span {
        Some(span) => time::sleep(span).await,
        None => std::future::pending().await,
    }
}

/// How long changes of the table are gathered; those of links as long as the list itself does, which would else be asked
/// too early to show them.
const PAUSE: Duration = Duration::from_millis(100);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// As after a full disk.
const WRITE_AGAIN: Duration = Duration::from_secs(5);
