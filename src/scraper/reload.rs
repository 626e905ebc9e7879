//! Settings that change while the scraper runs: secrets from files, and rules for keys.

use tokio::sync::{mpsc, oneshot};

use super::{
    enforcement::{Enforced, Enforcement},
    peer_desk::{PeerDesk, PeerDeskError},
};
use crate::{
    access::{NamedSecret, UnfitSecrets},
    registry::RegistryError,
};

/// Requests to reload that may wait: one that is under way sees what a second one would.
const WAITING: usize = 8;

/// What a reload found and took away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// Secrets from files that clients may prove now.
    pub secrets: usize,
    /// Aliases that were released, as what they were registered with is gone.
    pub released: usize,
    /// Peers that held them.
    pub peers: usize,
}

/// Why nothing was reloaded, or not all that follows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The rules of peers cannot be read. Nothing has changed.
    #[error("the rules of peers cannot be read: {0}")]
    Peers(String),
    /// The secrets cannot be in force together. Nothing has changed.
    #[error(transparent)]
    Secrets(#[from] UnfitSecrets),
    /// The secrets and rules are in force, and what they forbid could not be released.
    #[error("the settings are in force, and what they forbid cannot be released")]
    Release(#[from] RegistryError),
}

/// Somebody asks for the settings to be read again: `POST /-/reload`.
#[derive(Debug)]
pub struct ReloadRequest(oneshot::Sender<Result<(), String>>);

impl ReloadRequest {
    /// Answers who asked: done, or one line that says why not.
    pub fn answer(self, outcome: Result<(), String>) {
        let _ = self.0.send(outcome); // who asked may have gone
    }
}

/// The requests to reload, of which whoever runs the scraper takes care; see
/// [`Scraper::reload_requests`](super::Scraper::reload_requests).
#[derive(Debug)]
pub struct ReloadRequests(mpsc::Receiver<ReloadRequest>);

impl ReloadRequests {
    /// The next one.
    pub async fn next(&mut self) -> ReloadRequest {
        match self.0.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }
}

/// Asks for a reload.
#[derive(Clone, Debug)]
pub(super) struct Reloader(mpsc::Sender<ReloadRequest>);

/// Why nobody has reloaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotReloaded {
    #[error("{0}")]
    Failed(String),
    #[error("nobody reads the settings of this scraper again")]
    Nobody,
}

impl Reloader {
    pub(super) fn new() -> (Self, ReloadRequests) {
        let (sender, requests) = mpsc::channel(WAITING);
        (Self(sender), ReloadRequests(requests))
    }

    /// Returns once the settings were read again.
    pub(super) async fn reload(&self) -> Result<(), NotReloaded> {
        let (answer, answered) = oneshot::channel();
        self.0.send(ReloadRequest(answer)).await.map_err(|_| NotReloaded::Nobody)?;
        answered.await.map_err(|_| NotReloaded::Nobody)?.map_err(NotReloaded::Failed)
    }
}

/// Puts these secrets and the rules of the file in force, and releases what they forbid.
pub(super) async fn reload(
    enforcement: &Enforcement,
    peers: &PeerDesk,
    secrets: Vec<NamedSecret>,
) -> Result<Reloaded, ReloadError> {
    let (rules, changing) = peers
        .read()
        .await
        .map_err(|error: PeerDeskError| ReloadError::Peers(crate::telemetry::Chain(&error).to_string()))?;
    let count = secrets.len();
    enforcement.policy.replace(secrets, rules).await?;
    drop(changing);
    enforcement.registry.names_have_changed();
    let Enforced { released, peers } = enforcement.enforce().await?;
    Ok(Reloaded { secrets: count, released, peers })
}
