//! Why a registration was refused as a whole or could not be kept.

use std::{io, sync::Arc};

use super::StoreError;
use crate::wire::{RegisterReply, TargetError};

/// Why the registry did not do what it was asked. A refusal of a single alias is no error: it stands in the outcomes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The table has not been loaded yet.
    #[error("registry has not loaded its table yet")]
    NotReady,
    /// The registry has stopped, or its writer has died; nothing can be kept any more.
    #[error("registry has stopped")]
    Stopped,
    /// [`Registry::run`](super::Registry::run) was called twice.
    #[error("registry is already running")]
    AlreadyRunning,
    /// The last write failed and none has worked since, so nothing but plain renewals is granted.
    #[error("registry store is failing: until it can be written again leases are only renewed")]
    StoreFailing,
    /// The store could not be read, or this very change could not be written.
    #[error("registry store failed")]
    Store(#[source] Arc<StoreError>),
    /// The thread that writes could not be started.
    #[error("registry cannot start its writer")]
    Thread(#[source] io::Error),
    /// The peer's fault: more claims than a peer may have.
    #[error("registration has {count} claims: limit is {limit}")]
    TooManyClaims {
        /// How many it has.
        count: usize,
        /// How many it may have.
        limit: usize,
    },
    /// The peer's fault: its host name cannot be listed.
    #[error("registration has an unfit host name")]
    Hostname(#[source] TargetError),
}

impl RegistryError {
    /// What the peer is told: a short code, apart from what we log.
    pub fn reply(&self) -> RegisterReply {
        match self {
            Self::TooManyClaims { .. } | Self::Hostname(_) => RegisterReply::Malformed,
            Self::NotReady
            | Self::Stopped
            | Self::AlreadyRunning
            | Self::StoreFailing
            | Self::Store(_)
            | Self::Thread(_) => RegisterReply::Unavailable,
        }
    }
}

/// The table has not been loaded yet, so what it holds is unknown: which is not the same as empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("registry has not loaded its table yet")]
pub struct NotLoaded;
