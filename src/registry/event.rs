//! What happens to aliases, told to whoever listens, to the log and to the counters.

use crate::{identity::PublicKey, wire::Alias};

/// Something happened to an alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryEvent {
    /// Which one.
    pub alias: Alias,
    /// The peer that caused it, or whose lease it was.
    pub peer: PublicKey,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to an alias. A plain renewal is no event; [`Totals::renewed`] counts those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// It is new.
    Registered,
    /// Its holder renewed it with another host name, service or labels.
    Updated,
    /// Its holder renewed it after it had lapsed.
    Returned,
    /// Its holder, or the operator, gave it up.
    Released,
    /// It was not renewed in time. It is still listed.
    Lapsed,
    /// It was lapsed for the whole retention and is no longer listed.
    Gone,
    /// The peer took it from another.
    TakenOver {
        /// Who held it before.
        from: PublicKey,
    },
    /// The peer wanted it, but another holds it and the alias policy protects it. Nothing changed.
    TakeoverRefused {
        /// Who holds it.
        holder: PublicKey,
    },
}

impl EventKind {
    /// True if what `/sd` shows is different now.
    pub(super) fn is_visible(self) -> bool {
        !matches!(self, Self::TakeoverRefused { .. })
    }

    /// True if it must be on disk before it is acknowledged. Lapses and ends follow from the stored times, so a
    /// restart finds them again.
    pub(super) fn is_durable(self) -> bool {
        match self {
            Self::Registered | Self::Updated | Self::Returned | Self::Released | Self::TakenOver { .. } => true,
            Self::Lapsed | Self::Gone | Self::TakeoverRefused { .. } => false,
        }
    }
}

impl RegistryEvent {
    /// One line in the log. Never called under a lock: a log may block.
    pub(super) fn log(&self) {
        let Self { alias, peer, kind } = self;
        match kind {
            EventKind::Registered => tracing::info!(%alias, %peer, "alias registered"),
            EventKind::Updated => tracing::info!(%alias, %peer, "alias updated"),
            EventKind::Returned => tracing::info!(%alias, %peer, "alias renewed after it had lapsed"),
            EventKind::Released => tracing::info!(%alias, %peer, "alias released"),
            EventKind::Lapsed => tracing::info!(%alias, %peer, "alias lapsed: it was not renewed in time"),
            EventKind::Gone => tracing::info!(%alias, %peer, "alias gone: it was lapsed for the whole retention"),
            EventKind::TakenOver { from } => tracing::info!(%alias, %peer, holder = %from, "alias taken over"),
            EventKind::TakeoverRefused { holder } => {
                tracing::warn!(%alias, %peer, %holder, "alias refused: another peer holds it");
            }
        }
    }
}

/// How often each thing happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// New aliases.
    pub registered: u64,
    /// Renewals that changed something visible.
    pub updated: u64,
    /// Plain renewals, ones of lapsed leases included.
    pub renewed: u64,
    /// Aliases given up.
    pub released: u64,
    /// Leases that ran out.
    pub lapsed: u64,
    /// Leases that left the table after the retention.
    pub gone: u64,
    /// Aliases that changed hands.
    pub takeovers: u64,
    /// Aliases that another peer wanted and did not get.
    pub takeovers_refused: u64,
    /// Stored records that could not be read and were skipped.
    pub unreadable_records: u64,
    /// Loads that found leases lost.
    pub store_damaged: u64,
    /// Writes to the store that failed.
    pub store_failures: u64,
}

impl Totals {
    pub(super) fn count(&mut self, kind: EventKind) {
        let total = match kind {
            EventKind::Registered => &mut self.registered,
            EventKind::Updated => &mut self.updated,
            EventKind::Returned => &mut self.renewed,
            EventKind::Released => &mut self.released,
            EventKind::Lapsed => &mut self.lapsed,
            EventKind::Gone => &mut self.gone,
            EventKind::TakenOver { .. } => &mut self.takeovers,
            EventKind::TakeoverRefused { .. } => &mut self.takeovers_refused,
        };
        *total += 1;
    }
}
