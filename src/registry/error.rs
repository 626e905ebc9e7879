//! Why a registration was refused as a whole or could not be kept.

use std::{io, sync::Arc, time::Duration};

use super::StoreError;
use crate::wire::{RegisterReply, TargetError};

/// Why the registry could not carry out a request. A refused alias is no error but an outcome.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The table has not been loaded yet.
    #[error("registry has not loaded its table yet")]
    NotReady,
    /// The registry has stopped, or its writer has died.
    #[error("registry has stopped")]
    Stopped,
    /// The registry was started twice.
    #[error("registry is already running")]
    AlreadyRunning,
    /// The last write failed. Until a write succeeds, only plain renewals are granted.
    #[error("registry store is failing: until it can be written again leases are only renewed")]
    StoreFailing,
    /// The store could not be read, or this change could not be written.
    #[error("registry store failed")]
    Store(#[source] Arc<StoreError>),
    /// Other scrapers over the same store changed the same names again and again.
    #[error("registry: other scrapers change the same names at the same time")]
    Contended,
    /// The disk did not end a write in this time, at the end of the run.
    #[error(
        "registry store hangs: the disk has not ended a write within {0:?}, and what was not acknowledged may be lost"
    )]
    Hanging(Duration),
    /// The writer's thread could not be started.
    #[error("registry cannot start its writer")]
    Thread(#[source] io::Error),
    /// The peer's fault: the registration has more claims than a peer may have.
    #[error("registration has {count} claims: limit is {limit}")]
    TooManyClaims {
        /// Claims in the registration.
        count: usize,
        /// Most claims of a peer.
        limit: usize,
    },
    /// The peer's fault: the host name cannot be listed.
    #[error("registration has an unfit host name")]
    Hostname(#[source] TargetError),
}

impl RegistryError {
    /// The short code to answer the peer with.
    pub(crate) fn reply(&self) -> RegisterReply {
        match self {
            Self::TooManyClaims { .. } | Self::Hostname(_) => RegisterReply::Malformed,
            Self::NotReady
            | Self::Stopped
            | Self::AlreadyRunning
            | Self::StoreFailing
            | Self::Store(_)
            | Self::Contended
            | Self::Hanging(_)
            | Self::Thread(_) => RegisterReply::Unavailable,
        }
    }
}

/// The table has not been loaded yet: its content is unknown, which differs from empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("registry has not loaded its table yet")]
pub(crate) struct NotLoaded;
