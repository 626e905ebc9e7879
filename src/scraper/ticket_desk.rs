//! Where tickets are made and revoked: what a ticket says, and what ends with it.

use std::{iter, time::SystemTime};

use super::enforcement::{Enforced, Enforcement};
use crate::{
    access::{self, Ended, Grant, IssueError, IssuedTicket, Policy, SecretName},
    identity::{DialAddress, PeerAddr, PublicKey, SharedSecret},
    network::Network,
    registry::RegistryError,
    wire::{MAX_ADDRESSES, Ticket, TicketError},
};

/// What it takes to make tickets and to end them.
#[derive(Clone)]
pub(super) struct TicketDesk {
    pub(super) scraper: PublicKey,
    pub(super) bootstrap: Vec<PeerAddr>,
    pub(super) policy: Policy,
    pub(super) enforcement: Enforcement,
    pub(super) network: Network,
}

/// Why a ticket was not ended, or not all that came with it.
#[derive(Debug, thiserror::Error)]
pub(super) enum RevokeError {
    #[error(
        "the ticket is revoked until the next start only: its file cannot be removed; mend the disk and revoke it again"
    )]
    Io(#[from] std::io::Error),
    #[error("the ticket is revoked, and its aliases cannot be released")]
    Release(#[from] RegistryError),
}

impl TicketDesk {
    /// Makes a ticket that leads to this scraper at the given addresses, or else at those that it knows of itself, by its key and
    /// further ones.
    pub(super) async fn issue(
        &self,
        grant: Grant,
        given: &[DialAddress],
        also: &[PublicKey],
    ) -> Result<Ticket, IssueError> {
        let scrapers = self.places(given, also);
        if scrapers.iter().all(|scraper| scraper.hint.is_none()) && self.bootstrap.is_empty() {
            return Err(IssueError::Nowhere);
        }
        // Before there is a secret that nobody gets.
        Ticket::new(scrapers.clone(), self.bootstrap.clone(), SharedSecret::generate()).map_err(unfit)?;
        let name = grant.name.clone();
        let secret = self.policy.secrets().issue(grant, SystemTime::now()).await?;
        tracing::info!(%name, secret = %secret.id(), "ticket made");
        Ticket::new(scrapers, self.bootstrap.clone(), secret).map_err(unfit)
    }

    /// Ends a ticket and what was registered with it, and closes the connections of those who have nothing else. Returns how
    /// many aliases there were; none if there is no such ticket.
    /// Goes on to its end, also if the caller does not wait.
    pub(super) async fn revoke(&self, name: SecretName) -> Result<Option<usize>, RevokeError> {
        let this = self.clone();
        access::detached(async move { this.revoke_now(&name).await }).await?
    }

    async fn revoke_now(&self, name: &SecretName) -> Result<Option<usize>, RevokeError> {
        let Ended { was_there, disk } = self.policy.revoke(name).await;
        let Enforced { released, peers } = self.enforcement.enforce().await?;
        disk?;
        if was_there {
            tracing::info!(%name, released, peers, "ticket revoked");
        }
        Ok(was_there.then_some(released))
    }

    pub(super) fn issued(&self) -> Vec<IssuedTicket> {
        self.policy.secrets().issued()
    }

    fn places(&self, given: &[DialAddress], also: &[PublicKey]) -> Vec<PeerAddr> {
        let known = match (given, self.network.external()) {
            ([], []) => self.network.reach().borrow().dial_addresses(),
            ([], external) => external.to_vec(),
            (given, _) => given.to_vec(),
        };
        let known = &known[..known.len().min(MAX_ADDRESSES)];
        let keys = iter::once(self.scraper).chain(also.iter().copied().take(MAX_ADDRESSES));
        keys.flat_map(|key| PeerAddr::at_each(key, known)).collect()
    }
}

fn unfit(error: TicketError) -> IssueError {
    if error == TicketError::TooLong { IssueError::TooLong } else { IssueError::Nowhere }
}
