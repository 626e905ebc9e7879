//! What follows when a right is gone: what was registered by it is released, and the links of those who have nothing left are
//! closed.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{
    access::Policy,
    identity::PublicKey,
    network::Network,
    registry::{Cause, Lease, Registry, RegistryError},
    telemetry::Chain,
};

/// How long until the clock is looked at again: it may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Keeps the table and the links to what the policy permits.
#[derive(Clone)]
pub(super) struct Enforcement {
    pub(super) policy: Policy,
    pub(super) registry: Registry,
    pub(super) network: Network,
}

/// What was taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Enforced {
    /// Aliases that were released.
    pub(super) released: usize,
    /// Peers that held some of them.
    pub(super) peers: usize,
}

impl Enforcement {
    /// Releases what the policy does not permit any more. Returns once that is on disk and the links are closed.
    pub(super) async fn enforce(&self) -> Result<Enforced, RegistryError> {
        let now = SystemTime::now();
        let is_over = |lease: &Lease| !self.policy.permits(&lease.peer, lease.secret, &lease.alias, now);
        // Before the table is loaded nobody is registered, and its load is followed by another look.
        let Ok(table) = self.registry.snapshot() else { return Ok(Enforced::default()) };
        let leases = table.contents.leases.iter();
        let peers: BTreeSet<PublicKey> = leases.filter(|lease| is_over(lease)).map(|lease| lease.peer).collect();
        let mut released = 0;
        if !peers.is_empty() {
            let is_blocked = |lease: &Lease| !self.policy.permits(&lease.peer, None, &lease.alias, now);
            released += self.registry.release_all(Cause::Key, is_blocked).await?;
            released += self.registry.release_all(Cause::Secret, is_over).await?;
        }
        for peer in peers.iter().filter(|peer| !self.registry.is_holder(peer)) {
            self.network.links().let_go(peer);
            self.network.close_all(peer, "it may not register any more").await;
        }
        Ok(Enforced { released, peers: peers.len() })
    }

    /// Looks at the table once it is loaded, and whenever a secret's time begins or ends, until `stop` fires.
    pub(super) async fn keep(self, stop: CancellationToken) {
        let mut loaded = self.registry.changes();
        let is_loaded = async { loaded.wait_for(|generation| *generation > 0).await.is_ok() };
        if stop.run_until_cancelled(is_loaded).await != Some(true) {
            return stop.cancelled().await;
        }
        if self.enforce_and_log("secrets or rules that were taken out before the start").await
            && let Err(error) = self.policy.secrets().forget_former().await
        {
            tracing::warn!(%error, "cannot forget secrets that are gone"); // the next start tries again
        }
        loop {
            let next = self.policy.next_change(SystemTime::now());
            let is_due = async {
                while next.is_none_or(|next| SystemTime::now() < next) {
                    if self.policy.next_change(SystemTime::now()) != next {
                        break;
                    }
                    time::sleep(LOOK_AGAIN).await;
                }
            };
            if stop.run_until_cancelled(is_due).await.is_none() {
                return;
            }
            self.enforce_and_log("the time of a secret").await;
        }
    }

    /// False if it could not be done.
    async fn enforce_and_log(&self, why: &str) -> bool {
        match self.enforce().await {
            Ok(Enforced { released: 0, .. }) => true,
            Ok(Enforced { released, peers }) => {
                tracing::warn!(released, peers, why, "released what may not be registered any more");
                true
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), why, "cannot release what may not be registered");
                false
            }
        }
    }
}
