//! What a pull is, apart from how it travels: the seam between the HTTP side and the peer-to-peer side.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Response};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::{sync::watch, time::Instant};

use crate::{
    identity::PublicKey,
    network::{InboundCounts, LinkCounts, LinkPath, LinkStatus},
    wire::Alias,
};

/// One pull, as Prometheus asked for it.
#[derive(Debug)]
pub(super) struct PullRequest {
    /// Prometheus's own request headers, hop-by-hop ones removed.
    pub(super) headers: HeaderMap,
    /// The query of the scrape, without the `?`.
    pub(super) query: Option<String>,
    /// When the whole pull, body included, must have ended.
    pub(super) deadline: Instant,
}

/// An exposition on its way. It ends with an error if the peer is lost or the deadline passes before its end, so that
/// a cut body is never ended cleanly.
pub(super) type PullBody = UnsyncBoxBody<Bytes, PullBodyError>;

/// Why an exposition stopped before its end.
#[derive(Debug, thiserror::Error)]
#[error("the exposition was cut: {reason}")]
pub(super) struct PullBodyError {
    /// What happened, for our log.
    pub(super) reason: String,
}

/// Why a pull gave no exposition.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum PullError {
    /// No link to the peer.
    #[error("peer {peer} of alias {alias} is not connected")]
    NotConnected {
        /// What was asked for.
        alias: Alias,
        /// Who holds it.
        peer: PublicKey,
    },
    /// The link was lost, or the peer broke off, before an answer began.
    #[error("peer {peer} of alias {alias} broke off before answering")]
    Broken {
        /// What was asked for.
        alias: Alias,
        /// Who holds it.
        peer: PublicKey,
        /// How.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The peer answered with something else than an exposition: its source failed, or it no longer serves the alias.
    #[error("peer {peer} of alias {alias} answered {status}: {message}")]
    Refused {
        /// What was asked for.
        alias: Alias,
        /// Who holds it.
        peer: PublicKey,
        /// The peer's status.
        status: http::StatusCode,
        /// The first line of its body, escaped and cut to 200 characters.
        message: String,
    },
    /// The deadline passed before the answer began.
    #[error("peer {peer} of alias {alias} did not answer within {limit:?}")]
    Deadline {
        /// What was asked for.
        alias: Alias,
        /// Who holds it.
        peer: PublicKey,
        /// How long it had.
        limit: Duration,
    },
}

/// Pulls expositions from peers.
pub(super) trait Pull: Send + Sync + 'static {
    /// Asks `peer` for the exposition of `alias`. The answer's status is always 200. Dropping the future, or the body,
    /// ends the pull at the peer.
    fn pull<'a>(
        &'a self,
        alias: &'a Alias,
        peer: PublicKey,
        request: PullRequest,
    ) -> BoxFuture<'a, Result<Response<PullBody>, PullError>>;
}

/// Knows which peers are linked.
pub(super) trait Links: Send + Sync + 'static {
    /// The best path to a peer, if there is a link.
    fn path(&self, peer: &PublicKey) -> Option<LinkPath>;

    /// What is known of the way to a peer.
    fn status(&self, peer: &PublicKey) -> LinkStatus;

    /// Changes when any link comes, goes, or changes its path.
    fn changes(&self) -> watch::Receiver<u64>;

    /// How many peers are linked now.
    fn counts(&self) -> LinkCounts;

    /// Connections that others open.
    fn inbound(&self) -> InboundCounts {
        InboundCounts::default()
    }

    /// How many nodes held our announcement when they were last asked for it.
    fn holders(&self) -> usize {
        0
    }
}
