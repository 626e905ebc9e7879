//! Pulls as the HTTP API sees them: tests of the API script their own.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Response;
use http_body_util::combinators::UnsyncBoxBody;

use crate::{
    http::{BoxError, PullRequest},
    identity::PublicKey,
    wire::{Alias, PullReason},
};

/// An exposition on its way. It ends with an error if the peer is lost or the deadline passes before its end, so that
/// a cut body is never ended cleanly.
pub(super) type PullBody = UnsyncBoxBody<Bytes, BoxError>;

/// Why a pull gave no exposition.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum PullError {
    #[error("peer {peer} of alias {alias} is not connected")]
    NotConnected { alias: Alias, peer: PublicKey },
    #[error("peer {peer} of alias {alias} broke off before answering")]
    Broken { alias: Alias, peer: PublicKey, source: BoxError },
    /// The peer answered with something else than an exposition: its source failed, or it no longer serves the alias.
    #[error("peer {peer} of alias {alias} answered {status}: {}{message}", in_words(*reason))]
    Refused {
        alias: Alias,
        peer: PublicKey,
        status: http::StatusCode,
        /// The class of the source's failure, if the peer says it.
        reason: Option<PullReason>,
        /// The first line of its body, escaped and cut to 200 characters.
        message: String,
    },
    /// As many pulls as permitted are under way, and none ended in time.
    #[error("too many scrapes of alias {alias}, or of its peer {peer}, are under way")]
    Busy { alias: Alias, peer: PublicKey },
    #[error("peer {peer} of alias {alias} did not answer within {limit:?}")]
    Deadline { alias: Alias, peer: PublicKey, limit: Duration },
}

impl PullError {
    /// The alias, and the peer that was asked for it.
    pub(super) fn into_asked(self) -> (Alias, PublicKey) {
        match self {
            Self::NotConnected { alias, peer }
            | Self::Broken { alias, peer, .. }
            | Self::Refused { alias, peer, .. }
            | Self::Busy { alias, peer }
            | Self::Deadline { alias, peer, .. } => (alias, peer),
        }
    }
}

fn in_words(reason: Option<PullReason>) -> String {
    reason.map(|reason| format!("{} ({reason}): ", reason.words())).unwrap_or_default()
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
