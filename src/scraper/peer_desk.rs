//! Where rules for keys are changed while the scraper runs: in their file first, then in force.

use std::{io, sync::Arc};

use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    task,
};

use super::enforcement::{Enforced, Enforcement};
use crate::{
    access::{PeerFile, PeerFileError, PeerRules, Rule},
    identity::PublicKey,
    registry::RegistryError,
};

/// What it takes to read and change the rules.
#[derive(Clone)]
pub(super) struct PeerDesk {
    file: PeerFile,
    enforcement: Enforcement,
    /// Held while the file is read and written.
    changing: Arc<Mutex<()>>,
}

/// Why a rule is not in force.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerDeskError {
    #[error(transparent)]
    File(#[from] PeerFileError),
    #[error("the rule is in the file, and what it forbids cannot be released")]
    Release(#[from] RegistryError),
    #[error("the file of rules could not be worked on")]
    Task(#[from] io::Error),
}

impl PeerDesk {
    pub(super) fn new(file: PeerFile, enforcement: Enforcement) -> Self {
        Self { file, enforcement, changing: Arc::default() }
    }

    /// Reads the file without changing what is in force. No rule is written while the guard lives: one that came between
    /// would be in force for a moment alone.
    pub(super) async fn read(&self) -> Result<(PeerRules, OwnedMutexGuard<()>), PeerDeskError> {
        let changing = Arc::clone(&self.changing).lock_owned().await;
        let file = self.file.clone();
        Ok((task::spawn_blocking(move || file.read()).await.map_err(io::Error::other)??, changing))
    }

    /// Writes a rule for a key. It is on the disk and in force when this returns.
    pub(super) async fn change(&self, key: PublicKey, rule: Rule) -> Result<Enforced, PeerDeskError> {
        let _changing = self.changing.lock().await;
        let (file, logged) = (self.file.clone(), matches!(rule, Rule::Block));
        let change = task::spawn_blocking(move || file.change(&key, &rule));
        let rules = change.await.map_err(io::Error::other)??;
        self.enforcement.policy.replace_peers(rules);
        let enforced = self.enforcement.enforce().await?;
        tracing::info!(peer = %key, blocked = logged, released = enforced.released, "rule for a key written");
        Ok(enforced)
    }

    /// The rules in force.
    pub(super) fn rules(&self) -> Arc<PeerRules> {
        self.enforcement.policy.peers()
    }
}
