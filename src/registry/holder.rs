//! Who registers, and whether who holds an alias is there.

use std::time::Duration;

use crate::{
    identity::{PublicKey, SecretId},
    registry::Lease,
};

/// The peer that registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registrant {
    pub(crate) peer: PublicKey,
    /// The secret that the peer has proved.
    pub(crate) secret: SecretId,
    /// Whether the peer keeps its key across restarts; none if the peer does not say so.
    pub(crate) kept: Option<bool>,
}

/// Whether a holder has a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Linked,
    /// The last link was lost so long ago.
    Lost(Duration),
    /// The holder has not been linked since the table was loaded.
    Unseen,
}

/// Whose aliases an operator releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holders {
    /// Those of one peer.
    Peer(PublicKey),
    /// Those registered with one secret.
    Secret(SecretId),
}

impl Holders {
    pub(crate) fn hold(&self, lease: &Lease) -> bool {
        match self {
            Self::Peer(peer) => lease.peer == *peer,
            Self::Secret(secret) => lease.secret == Some(*secret),
        }
    }
}
