//! The http_sd list as a file, for Prometheus's `file_sd_configs` on the same host.
//!
//! Prometheus watches such a file and takes a new list at once, while it polls `/sd`. The file holds what `/sd` answers.
//! While the table is not known for certain the file stays as it is, also from the last run.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::{Access, access};
use tokio::{task, time};
use tokio_util::sync::CancellationToken;

use super::{follower::Follower, router::Shared, sd_chunks::SdChunks};
use crate::{
    atomic_file,
    scraper::{
        config::{HttpConfig, ScraperError},
        outcome::FileSdOutcome,
    },
};

/// The wait after a failed write, as on a full disk.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(in crate::scraper) struct FileSd {
    path: PathBuf,
    /// The address to scrape.
    target: String,
}

impl FileSd {
    /// The file of `config`, for a scraper that listens on `local`.
    /// An error if the file can name no address: a request for `/sd` names one, a file does not.
    pub(in crate::scraper) fn new(
        config: &HttpConfig,
        local: Option<SocketAddr>,
    ) -> Result<Option<Self>, ScraperError> {
        let Some(path) = config.file_sd.clone() else { return Ok(None) };
        Ok(Some(Self { path, target: config.target(local)? }))
    }

    /// Whether the file can be made or replaced, as far as its directory tells.
    pub(in crate::scraper) fn check(path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match fs::metadata(directory)?.is_dir() {
            true => Ok(access(directory, Access::WRITE_OK | Access::EXEC_OK)?),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// Writes the file at each change until `stop` fires, and leaves the file there.
    pub(super) async fn keep(self, shared: Arc<Shared>, stop: CancellationToken) {
        let mut lists = Follower::new(Arc::clone(&shared), self.target.clone());
        let mut failing = false;
        while let Some(list) = stop.run_until_cancelled(lists.next()).await {
            match self.write(list).await {
                Ok(()) => {
                    shared.metrics.file_sd_write(FileSdOutcome::Ok);
                    if std::mem::take(&mut failing) {
                        tracing::info!(path = %self.path.display(), "file_sd file is written again");
                    }
                }
                Err(error) => {
                    shared.metrics.file_sd_write(FileSdOutcome::Failed);
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(path = %self.path.display(), %error, "could not write the file_sd file");
                    }
                    lists.forget();
                    stop.run_until_cancelled(time::sleep(WRITE_AGAIN)).await;
                }
            }
        }
    }

    async fn write(&self, list: SdChunks) -> io::Result<()> {
        let path = self.path.clone();
        let mode = if list.has_secrets() { atomic_file::WITH_SECRETS } else { atomic_file::SHARED };
        task::spawn_blocking(move || atomic_file::replace_with(&path, mode, |file| list.write_to(file)))
            .await
            .map_err(io::Error::other)?
    }
}
