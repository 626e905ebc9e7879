//! Dialling by public key.
//!
//! The hint and the last good address are tried first, TCP before QUIC; a moment later, or as soon as they fail, the
//! DHT is asked for the peer's signed announcement, and the addresses in it are tried. The first link wins.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use futures::future::{self, Either};
use libp2p::Multiaddr;
use tokio::{sync::oneshot, task, time};

use super::{
    Network,
    driver::{Command, DialFailure},
    peer_id,
};
use crate::identity::{HostPort, PeerAddr, PublicKey};

/// Why there is no link to a peer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nothing says where the peer could be.
    #[error("nothing says where peer {peer} is: give it as <key>@<host>:<port>, or give a --bootstrap node")]
    NoAddress {
        /// Who was to be reached.
        peer: PublicKey,
    },
    /// Somebody else answered at the peer's address.
    #[error("{address} answered with another key: expected {peer}, found {found}")]
    WrongKey {
        /// Who was to be reached.
        peer: PublicKey,
        /// Where.
        address: String,
        /// Who it was.
        found: String,
    },
    /// No known address answered.
    #[error("peer {peer} cannot be reached ({reasons})")]
    Unreachable {
        /// Who was to be reached.
        peer: PublicKey,
        /// What was tried, and what came of it.
        reasons: String,
    },
    /// The network has been shut down.
    #[error("the network is shut down")]
    Closed,
}

impl Network {
    /// Returns once there is a link to the peer, dialling it if there is none.
    ///
    /// # Errors
    /// [`ConnectError`] says what was tried.
    pub(crate) async fn connect(&self, peer: &PeerAddr) -> Result<(), ConnectError> {
        if self.links().path(&peer.key).is_some() {
            return Ok(());
        }
        let found = staggered(self.dial_known(peer), LOOKUP_HEAD_START, self.dial_found(&peer.key)).await;
        let address = found.map_err(|failures| explain(&peer.key, failures.into()))?;
        let (book, key) = (Arc::clone(&self.addresses), peer.key);
        // Not waited for: it is a hint for the next start.
        drop(task::spawn_blocking(move || book.remember(key, address)));
        Ok(())
    }

    async fn dial_known(&self, peer: &PeerAddr) -> Result<Multiaddr, Failure> {
        let mut addresses: Vec<Multiaddr> = self.addresses.address(&peer.key).into_iter().collect();
        let mut unresolved = None;
        if let Some(hint) = &peer.hint {
            match resolve(hint).await {
                Ok(places) => {
                    addresses.extend(places.into_iter().flat_map(|at| [peer_id::tcp(at), peer_id::quic(at)]));
                }
                Err(reason) => unresolved = Some(Failure::Other(format!("{hint}: {reason}"))),
            }
        }
        addresses.dedup();
        self.dial(peer.key, addresses).await.map_err(|failure| match unresolved {
            Some(unresolved) => Failure::Several(vec![unresolved, failure]),
            None => failure,
        })
    }

    pub(super) async fn dial_node(&self, node: &PeerAddr) -> Result<(), Failure> {
        self.dial_known(node).await.map(drop)
    }

    async fn dial_found(&self, peer: &PublicKey) -> Result<Multiaddr, Failure> {
        if self.bootstrap.is_empty() {
            return Err(Failure::Nothing);
        }
        let stale = self.stale_sequence(peer);
        let Some(found) = self.lookup(peer, stale).await? else {
            return Err(Failure::Other("not announced in the DHT".to_owned()));
        };
        let addresses = found.addresses.iter().filter_map(|bytes| Multiaddr::try_from(bytes.clone()).ok());
        let result = self.dial(*peer, addresses.filter(peer_id::is_dialable).collect()).await;
        if result.is_err() {
            self.mark_stale(*peer, found.sequence);
        }
        result
    }

    /// TCP first, QUIC a moment later or as soon as TCP has failed: TCP costs half, QUIC gets through where it is
    /// blocked.
    async fn dial(&self, peer: PublicKey, addresses: Vec<Multiaddr>) -> Result<Multiaddr, Failure> {
        let (tcp, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(peer_id::is_tcp);
        match (tcp.is_empty(), other.is_empty()) {
            (true, true) => Err(Failure::Nothing),
            (false, true) => self.dial_at_once(peer, tcp).await,
            (true, false) => self.dial_at_once(peer, other).await,
            (false, false) => {
                let (first, second) = (self.dial_at_once(peer, tcp), self.dial_at_once(peer, other));
                Ok(staggered(first, TCP_HEAD_START, second).await?)
            }
        }
    }

    async fn dial_at_once(&self, peer: PublicKey, addresses: Vec<Multiaddr>) -> Result<Multiaddr, Failure> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Dial { peer, addresses, reply }).await.map_err(|_| Failure::Closed)?;
        answer.await.map_err(|_| Failure::Closed)?.map_err(Failure::Dial)
    }
}

/// A name may mean several addresses; a few are tried.
pub(super) async fn resolve(place: &HostPort) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::net::lookup_host((place.host.as_str(), place.port)).await.map_err(|error| error.to_string())?;
    Ok(found.take(MAX_RESOLVED).collect())
}

#[derive(Debug)]
pub(super) enum Failure {
    /// There was nothing to try.
    Nothing,
    Dial(DialFailure),
    Several(Vec<Failure>),
    Other(String),
    Closed,
}

/// The first of two that succeeds; both failures if neither does. The second starts after the head start, or as soon
/// as the first has failed.
async fn staggered<T>(
    first: impl Future<Output = Result<T, Failure>>,
    head_start: Duration,
    second: impl Future<Output = Result<T, Failure>>,
) -> Result<T, [Failure; 2]> {
    let (mut first, second) = (pin!(first), pin!(second));
    if let Ok(early) = time::timeout(head_start, &mut first).await {
        return match early {
            Ok(done) => Ok(done),
            Err(failed) => second.await.map_err(|other| [failed, other]),
        };
    }
    match future::select(first, second).await {
        Either::Left((Ok(done), _)) | Either::Right((Ok(done), _)) => Ok(done),
        Either::Left((Err(failed), rest)) => rest.await.map_err(|other| [failed, other]),
        Either::Right((Err(failed), rest)) => rest.await.map_err(|other| [other, failed]),
    }
}

impl From<[Failure; 2]> for Failure {
    fn from(failures: [Failure; 2]) -> Self {
        Self::Several(failures.into())
    }
}

pub(super) fn explain(peer: &PublicKey, failure: Failure) -> ConnectError {
    let mut reasons = Vec::new();
    let mut pending = vec![failure];
    while let Some(failure) = pending.pop() {
        match failure {
            Failure::Nothing => {}
            Failure::Closed => return ConnectError::Closed,
            Failure::Several(several) => pending.extend(several.into_iter().rev()),
            Failure::Other(reason) => reasons.push(reason),
            Failure::Dial(DialFailure::WrongKey { address, found }) => {
                return ConnectError::WrongKey { peer: *peer, address, found };
            }
            Failure::Dial(DialFailure::Unreachable { attempts }) => reasons.extend(attempts),
        }
    }
    if reasons.is_empty() {
        return ConnectError::NoAddress { peer: *peer };
    }
    ConnectError::Unreachable { peer: *peer, reasons: reasons.join("; ") }
}

const TCP_HEAD_START: Duration = Duration::from_millis(400);
const LOOKUP_HEAD_START: Duration = Duration::from_millis(300);
const MAX_RESOLVED: usize = 8;
