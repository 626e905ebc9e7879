//! The lobby's group as a client sees it: what it says to its scrapers, and the lists that they have.

use std::{io, time::Duration};

use tokio::time;

use super::group::Group;
use crate::{
    identity::PublicKey,
    network::{Network, OpenError},
    wire::{
        LOBBY_PROTOCOL, LobbyHost, LobbyRefusal, LobbyReply, LobbyRequest,
        lobby::{receive, send},
    },
};

/// Longest wait for each message of an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most parts of a list, each of at most 256 KiB: what a scraper's table has room for by default.
const MAX_PARTS: usize = 512;

/// A client's way to the lobbies of its scrapers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lobbies {
    network: Network,
    group: Group,
}

/// Why a scraper did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LobbyError {
    #[error("there is no link to the scraper")]
    Unlinked,
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the scraper's answer broke off")]
    Cut(#[from] io::Error),
    #[error("the scraper does not answer")]
    Silent(#[from] time::error::Elapsed),
    #[error(transparent)]
    Refused(#[from] LobbyRefusal),
    #[error("the scraper's answer is none to the request")]
    Mismatch,
}

impl Lobbies {
    pub(super) fn new(network: Network, group: Group) -> Self {
        Self { network, group }
    }

    /// The scrapers as they are now, the learned ones among them.
    pub(crate) fn scrapers(&self) -> Vec<PublicKey> {
        self.group.scrapers()
    }

    /// Says something of a host; returns once it is on the scraper's disk.
    pub(crate) async fn say(&self, scraper: &PublicKey, request: &LobbyRequest) -> Result<(), LobbyError> {
        match self.ask(scraper, request).await?.1 {
            LobbyReply::Done => Ok(()),
            LobbyReply::Refused(refusal) => Err(refusal.into()),
            LobbyReply::Unchanged | LobbyReply::Hosts(_) => Err(LobbyError::Mismatch),
        }
    }

    /// The scraper's list and its version; none if it has the version `known`.
    pub(crate) async fn list(
        &self,
        scraper: &PublicKey,
        known: u64,
    ) -> Result<Option<(u64, Vec<LobbyHost>)>, LobbyError> {
        let (mut stream, mut reply) = self.ask(scraper, &LobbyRequest::List { known }).await?;
        let mut hosts = Vec::new();
        for _ in 0..MAX_PARTS {
            match reply {
                LobbyReply::Hosts(part) => {
                    hosts.extend(part.hosts);
                    if !part.more {
                        return Ok(Some((part.version, hosts)));
                    }
                    reply = time::timeout(TIMEOUT, receive(&mut stream)).await??;
                }
                LobbyReply::Unchanged => return Ok(None),
                LobbyReply::Refused(refusal) => return Err(refusal.into()),
                LobbyReply::Done => break,
            }
        }
        Err(LobbyError::Mismatch)
    }

    async fn ask(
        &self,
        scraper: &PublicKey,
        request: &LobbyRequest,
    ) -> Result<(crate::network::LinkStream, LobbyReply), LobbyError> {
        if self.network.links().path(scraper).is_none() {
            return Err(LobbyError::Unlinked);
        }
        let asked = async {
            let mut stream = self.network.open(scraper, LOBBY_PROTOCOL).await?;
            send(&mut stream, request).await?;
            let reply = receive(&mut stream).await?;
            Ok::<_, LobbyError>((stream, reply))
        };
        time::timeout(TIMEOUT, asked).await?
    }
}
