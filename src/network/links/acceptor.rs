//! The protocols that we answer, who may use them, and where their streams go.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
};

use tokio::sync::mpsc;

use crate::{identity::PublicKey, network::links::stream::LinkStream};

/// A stream that a peer opened.
pub(crate) struct InboundStream {
    pub(crate) peer: PublicKey,
    pub(crate) stream: LinkStream,
}

/// A peer's stream that was refused unread, because its protocol is not for everybody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirewallBlock {
    pub(crate) peer: PublicKey,
}

/// Who may open streams of a protocol.
#[derive(Clone, Debug)]
pub(crate) enum Firewall {
    #[cfg(any(feature = "scraper", feature = "node"))]
    Anyone,
    Only(Admitted),
}

impl Firewall {
    pub(crate) fn admits(&self, peer: &PublicKey) -> bool {
        match self {
            #[cfg(any(feature = "scraper", feature = "node"))]
            Self::Anyone => true,
            Self::Only(keys) => keys.contains(peer),
        }
    }
}

/// Keys that a firewall lets in. Clones share the keys, which may change at any time: from then on for new streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admitted(Arc<RwLock<HashSet<PublicKey>>>);

impl Admitted {
    pub(crate) fn contains(&self, peer: &PublicKey) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(peer)
    }

    /// From now on these and no others.
    pub(crate) fn replace(&self, keys: impl IntoIterator<Item = PublicKey>) {
        let keys = keys.into_iter().collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }
}

/// A protocol that we answer, and where its streams go. A full inbox refuses the stream.
pub(crate) struct Acceptor {
    pub(crate) protocol: &'static str,
    pub(crate) firewall: Firewall,
    pub(crate) inbox: mpsc::Sender<InboundStream>,
}
