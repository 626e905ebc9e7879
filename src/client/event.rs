//! Events that a client reports to its program.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::{event_log::EventLog, metrics::ClientMetrics, source::SourceError};
use crate::{
    identity::PublicKey,
    network::{ConnectError, FirewallBlock, LinkPath},
    wire::{Alias, AliasRefusal, HandshakeRefusal, PullReason},
};

/// Events that a receiver may lag behind before it misses the oldest.
const EVENTS_KEPT: usize = 256;

/// Something that happened at a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// Counts up from 1. The events of one pull share the id that the scraper receives.
    pub id: u64,
    /// What happened.
    pub kind: EventKind,
}

/// A kind of event. Errors stay on this side: the scraper receives codes and ids.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// A link to a scraper is up.
    LinkUp {
        /// The scraper.
        scraper: PublicKey,
        /// Whether the link goes through a relay.
        path: LinkPath,
    },
    /// The path of a link has changed: a hole was punched, or the direct connection was lost.
    PathChanged {
        /// The scraper.
        scraper: PublicKey,
        /// The path from now on.
        path: LinkPath,
    },
    /// The link to a scraper was lost. The client redials.
    LinkDown {
        /// The scraper.
        scraper: PublicKey,
    },
    /// A scraper could not be reached. The client tries again after the pause.
    LinkFailed {
        /// The scraper.
        scraper: PublicKey,
        /// The reason.
        error: Arc<ConnectError>,
        /// Time until the next attempt.
        retry_in: Duration,
    },
    /// A scraper holds the alias for us, on its disk.
    Registered {
        /// The scraper.
        scraper: PublicKey,
        /// The alias.
        alias: Alias,
        /// True if the alias is new there or something about it changed; false for a renewal.
        updated: bool,
    },
    /// A scraper refused the registration, or one alias. The client repeats the registration after the pause.
    RegisterFailed {
        /// The scraper.
        scraper: PublicKey,
        /// The reason.
        error: Arc<RegisterError>,
        /// Time until the next attempt.
        retry_in: Duration,
    },
    /// Another process registers with this client's key, which a scraper refuses. Was the key copied?
    KeyContested {
        /// The scraper.
        scraper: PublicKey,
    },
    /// A scraper released our aliases, as the client asked.
    Released {
        /// The scraper.
        scraper: PublicKey,
    },
    /// A scraper named this one as a member of its group, and the client links it, too.
    ScraperLearned {
        /// The scraper.
        scraper: PublicKey,
    },
    /// The client needs a learned scraper no more, or has another in its place, and has closed the link.
    ScraperLetGo {
        /// The scraper.
        scraper: PublicKey,
    },
    /// A scraper asks for metrics.
    PullStarted {
        /// The scraper.
        scraper: PublicKey,
        /// The alias.
        alias: Alias,
    },
    /// The whole exposition was sent.
    PullSucceeded {
        /// The scraper.
        scraper: PublicKey,
        /// The alias.
        alias: Alias,
        /// Bytes of the body on the link.
        bytes: u64,
        /// Bytes of the exposition before this client compressed it; as many as `bytes` if it did not.
        uncompressed_bytes: u64,
        /// From the request to the last byte.
        took: Duration,
    },
    /// The exposition was not sent, or not to its end.
    PullFailed {
        /// The scraper.
        scraper: PublicKey,
        /// The alias.
        alias: Alias,
        /// The reason.
        error: Arc<PullFailure>,
    },
    /// A peer other than the scrapers opened a pull stream, which was refused unread.
    FirewallBlocked {
        /// The peer.
        peer: PublicKey,
    },
}

/// Why a registration failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The scraper refused the handshake; most often the shared secret is not one of its own.
    #[error("the scraper refused the handshake: {0}")]
    Handshake(HandshakeRefusal),
    /// The scraper refused one alias.
    #[error("alias {alias} was refused: {refusal}")]
    Alias {
        /// The alias.
        alias: Alias,
        /// The reason.
        refusal: AliasRefusal,
    },
    /// Another running process is registered with this client's key.
    #[error("this key is in use by another running process: each needs a key of its own")]
    KeyInUse,
    /// The scraper wants fewer registrations.
    #[error("the scraper asks to slow down")]
    SlowDown,
    /// The scraper cannot register anybody now.
    #[error("the scraper cannot register anybody now: it is starting, or its table cannot be written")]
    Unavailable,
    /// The scraper calls the whole registration malformed: too many targets, or an unfit host name.
    #[error("the scraper refused the whole registration: too many targets, or an unfit host name")]
    Malformed,
    /// The scraper did not answer in time.
    #[error("the scraper did not answer within {0:?}")]
    Timeout(Duration),
    /// The peer of that key is no scraper: it does not answer the register protocol.
    #[error("the peer is no scraper: it does not answer registrations; is its key that of a node or an agent?")]
    NotAScraper,
    /// The exchange broke off.
    #[error("the registration broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl RegisterError {
    /// True if trying again changes nothing until somebody changes a setting.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Handshake(refusal) => {
                matches!(
                    refusal,
                    HandshakeRefusal::UnknownSecret
                        | HandshakeRefusal::IdentityMismatch
                        | HandshakeRefusal::NotAdmitted
                )
            }
            Self::Alias { refusal, .. } => matches!(refusal, AliasRefusal::Invalid | AliasRefusal::Duplicate),
            Self::Malformed | Self::NotAScraper => true,
            _ => false,
        }
    }
}

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullFailure {
    /// The source failed.
    #[error("the source failed")]
    Source(#[source] SourceError),
    /// The exposition is longer than this client hands over.
    #[error("the exposition is longer than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The target was removed from this client before the end.
    #[error("the target was removed")]
    Removed,
    /// The scraper went away before the end: its own deadline passed, or the link was lost.
    #[error("the scraper went away before the end")]
    Abandoned,
}

impl PullFailure {
    /// What the scraper is told.
    pub fn reason(&self) -> PullReason {
        match self {
            Self::Source(error) => error.reason(),
            Self::TooLarge { .. } => PullReason::TooLarge,
            Self::Removed | Self::Abandoned => PullReason::Other,
        }
    }
}

/// Sends events to the receivers, to the log, and to the client's own metrics.
#[derive(Clone)]
pub(super) struct Events(Arc<Sinks>);

struct Sinks {
    next_id: AtomicU64,
    listeners: broadcast::Sender<Event>,
    metrics: Arc<ClientMetrics>,
    log: EventLog,
}

impl Events {
    pub(super) fn new(metrics: Arc<ClientMetrics>) -> Self {
        Self(Arc::new(Sinks {
            next_id: AtomicU64::new(1),
            listeners: broadcast::Sender::new(EVENTS_KEPT),
            metrics,
            log: EventLog::default(),
        }))
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.listeners.subscribe()
    }

    pub(super) fn metrics(&self) -> &ClientMetrics {
        &self.0.metrics
    }

    pub(super) fn next_id(&self) -> u64 {
        self.0.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn emit(&self, kind: EventKind) {
        self.emit_as(self.next_id(), kind);
    }

    pub(super) fn emit_as(&self, id: u64, kind: EventKind) {
        self.0.log.write(id, &kind);
        self.send(id, kind);
    }

    /// All outcomes of a registration.
    pub(super) fn emit_registration(&self, outcomes: Vec<EventKind>) {
        self.0.log.write_registration(&outcomes);
        outcomes.into_iter().for_each(|outcome| self.send(self.next_id(), outcome));
    }

    fn send(&self, id: u64, kind: EventKind) {
        self.0.metrics.observe(&kind);
        let _ = self.0.listeners.send(Event { id, kind });
    }
}

/// Turns the network's refusals into events.
pub(super) async fn report_blocks(
    events: Events,
    mut blocks: broadcast::Receiver<FirewallBlock>,
    stop: CancellationToken,
) {
    while let Some(block) = stop.run_until_cancelled(blocks.recv()).await {
        match block {
            Ok(FirewallBlock { peer }) => events.emit(EventKind::FirewallBlocked { peer }),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
