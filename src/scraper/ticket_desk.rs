//! Where tickets are made and revoked: what a ticket says, and what ends with it.

use std::{collections::BTreeSet, time::SystemTime};

use crate::{
    access::{Grant, IssueError, IssuedTicket, Secrets},
    identity::{DialAddress, PeerAddr, PublicKey, SecretId},
    network::Network,
    registry::{Holders, Registry, RegistryError},
    wire::{MAX_ADDRESSES, Ticket},
};

/// What it takes to make tickets and to end them.
#[derive(Clone)]
pub(super) struct TicketDesk {
    pub(super) scraper: PublicKey,
    pub(super) bootstrap: Vec<PeerAddr>,
    pub(super) secrets: Secrets,
    pub(super) registry: Registry,
    pub(super) network: Network,
}

/// Why a ticket was not ended, or not all that came with it.
#[derive(Debug, thiserror::Error)]
pub(super) enum RevokeError {
    #[error("cannot write the tickets to the disk")]
    Io(#[from] std::io::Error),
    #[error("the ticket is revoked, and its aliases cannot be released")]
    Release(#[from] RegistryError),
}

impl TicketDesk {
    /// Makes a ticket that leads to this scraper at the given addresses, or else at those that it knows of itself.
    pub(super) async fn issue(&self, grant: Grant, given: &[DialAddress]) -> Result<Ticket, IssueError> {
        let scrapers = self.places(given);
        if scrapers.iter().all(|scraper| scraper.hint.is_none()) && self.bootstrap.is_empty() {
            return Err(IssueError::Nowhere);
        }
        let name = grant.name.clone();
        let secret = self.secrets.issue(grant, SystemTime::now()).await?;
        tracing::info!(%name, secret = %secret.id(), "ticket made");
        Ok(Ticket::new(scrapers, self.bootstrap.clone(), secret))
    }

    /// Ends a ticket and what was registered with it, and closes the connections of those who have nothing else. Returns how
    /// many aliases there were; none if there is no such ticket.
    pub(super) async fn revoke(&self, name: &str) -> Result<Option<usize>, RevokeError> {
        let Some(secret) = self.secrets.revoke(name).await? else { return Ok(None) };
        let peers = self.registered_with(secret);
        let released = self.registry.release_all(&Holders::Secret(secret)).await?;
        for peer in peers.iter().filter(|peer| !self.registry.is_holder(peer)) {
            self.network.links().let_go(peer);
            self.network.close_all(peer, "its ticket was revoked").await;
        }
        tracing::info!(%name, %secret, released, peers = peers.len(), "ticket revoked");
        Ok(Some(released))
    }

    pub(super) fn issued(&self) -> Vec<IssuedTicket> {
        self.secrets.issued()
    }

    fn places(&self, given: &[DialAddress]) -> Vec<PeerAddr> {
        let known = match (given, self.network.external()) {
            ([], []) => self.network.reach().borrow().dial_addresses(),
            ([], external) => external.to_vec(),
            (given, _) => given.to_vec(),
        };
        let key = self.scraper;
        match known.is_empty() {
            true => vec![key.into()],
            false => known.into_iter().take(MAX_ADDRESSES).map(|hint| PeerAddr { key, hint: Some(hint) }).collect(),
        }
    }

    /// None before the table is loaded, when nobody is registered.
    fn registered_with(&self, secret: SecretId) -> BTreeSet<PublicKey> {
        let leases = self.registry.snapshot().map(|snapshot| snapshot.contents.leases).unwrap_or_default();
        leases.iter().filter(|lease| lease.secret == Some(secret)).map(|lease| lease.peer).collect()
    }
}
