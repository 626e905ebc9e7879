//! Secrets and keys together: who may register, and what may stay registered.

use std::{
    io,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use super::{NamedSecret, PeerRules, Refused, Scope, SecretName, Secrets, UnfitSecrets, secrets::Revoked};
use crate::{
    identity::{PublicKey, SecretId, SharedSecret},
    wire::Alias,
};

/// Decides who may register what. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Policy(Arc<Shared>);

struct Shared {
    secrets: Secrets,
    peers: RwLock<Arc<PeerRules>>,
    /// Counts what took a right away.
    version: AtomicU64,
}

/// The end of a ticket.
pub(crate) struct Ended {
    /// False if there was no such ticket.
    pub(crate) was_there: bool,
    /// Whether its end is on the disk.
    pub(crate) disk: io::Result<()>,
}

impl Policy {
    pub(crate) fn new(secrets: Secrets, peers: PeerRules) -> Self {
        let peers = RwLock::new(Arc::new(peers));
        Self(Arc::new(Shared { secrets, peers, version: AtomicU64::new(0) }))
    }

    pub(crate) fn secrets(&self) -> &Secrets {
        &self.0.secrets
    }

    pub(crate) fn peers(&self) -> Arc<PeerRules> {
        Arc::clone(&self.0.peers.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The secret that a client names, if this client might use it.
    pub(crate) fn find(&self, id: SecretId, peer: &PublicKey, now: SystemTime) -> Result<SharedSecret, Refused> {
        self.peers().of(peer).map_err(|_| Refused::BlockedKey)?;
        self.0.secrets.find(id, peer, now)
    }

    /// What the client, who has proved the secret, may register. Its first use of a ticket is on the disk then.
    pub(crate) async fn admit(&self, id: SecretId, peer: &PublicKey, now: SystemTime) -> Result<Arc<Scope>, Refused> {
        let of_key = self.peers().of(peer).map_err(|_| Refused::BlockedKey)?;
        let scope = self.0.secrets.admit(id, peer, now).await?;
        Ok(match of_key {
            None => scope,
            Some(_) => Arc::new(Scope { of_key, ..Scope::clone(&scope) }),
        })
    }

    /// Whether what a peer has registered with a secret may stay. A secret that was never ours is another scraper's, of whose
    /// table this is a part or a copy. Leases of early versions name no secret.
    pub(crate) fn permits(&self, peer: &PublicKey, secret: Option<SecretId>, alias: &Alias, now: SystemTime) -> bool {
        let Ok(of_key) = self.peers().of(peer) else { return false };
        let held = of_key.is_none_or(|globs| globs.iter().any(|glob| glob.fits(alias.as_str())));
        held && secret.is_none_or(|id| match self.0.secrets.scope(&id, now) {
            Some(scope) => scope.admits(alias),
            None => !self.0.secrets.was_known(&id),
        })
    }

    /// Ends a ticket at once. An error of the disk comes with it: the ticket would be back after a restart.
    pub(crate) async fn revoke(&self, name: &SecretName) -> Ended {
        let Revoked { id, removed } = self.0.secrets.revoke(name).await;
        self.has_changed();
        let was_there = id.is_some() || matches!(removed, Ok(true));
        Ended { was_there, disk: removed.map(drop) }
    }

    /// Puts these secrets in the place of those from files, and these rules in the place of the others.
    pub(crate) async fn replace(&self, secrets: Vec<NamedSecret>, peers: PeerRules) -> Result<(), UnfitSecrets> {
        self.0.secrets.replace(secrets).await?;
        self.replace_peers(peers);
        Ok(())
    }

    /// Puts these rules in the place of the others.
    pub(crate) fn replace_peers(&self, peers: PeerRules) {
        *self.0.peers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(peers);
        self.has_changed();
    }

    /// Changes whenever a right may have gone.
    pub(crate) fn version(&self) -> u64 {
        self.0.version.load(Relaxed)
    }

    /// Notes that rights may have gone.
    pub(crate) fn has_changed(&self) {
        self.0.version.fetch_add(1, Relaxed);
    }

    /// The next instant at which a right begins or ends by itself.
    pub(crate) fn next_change(&self, now: SystemTime) -> Option<SystemTime> {
        self.0.secrets.next_change(now)
    }
}

#[cfg(test)]
mod tests;
