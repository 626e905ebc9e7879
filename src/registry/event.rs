//! Events of aliases: for subscribers, the log (`event_log`) and the counters.

use super::BeaconName;
use crate::{identity::PublicKey, wire::Alias};

/// An event of an alias.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistryEvent {
    /// The alias.
    pub alias: Alias,
    /// The peer that caused the event, or that held the lease.
    pub peer: PublicKey,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to an alias. A plain renewal is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A peer registered a free alias.
    Registered,
    /// The holder renewed the alias with another host name, service or labels.
    Updated,
    /// The holder renewed the alias with another secret or ticket, and maybe with other labels.
    SecretChanged,
    /// The holder renewed the alias after it had lapsed, and maybe changed it.
    Returned,
    /// The holder, or the operator, gave the alias up.
    Released,
    /// The alias was not renewed in time. It is still listed.
    Lapsed,
    /// The alias was lapsed for the whole retention and is no longer listed.
    Gone,
    /// The peer took the alias from another.
    TakenOver {
        /// The holder before.
        from: PublicKey,
    },
    /// The peer claimed the alias, but the alias policy protects its holder. Nothing changed.
    TakeoverRefused {
        /// The holder.
        holder: PublicKey,
    },
}

impl EventKind {
    /// True if the event changes what `/sd` lists.
    pub(super) fn is_visible(self) -> bool {
        !matches!(self, Self::TakeoverRefused { .. })
    }

    /// True if the event must be on disk before it is acknowledged. A restart finds lapses and ends again: they follow
    /// from the stored times.
    pub(super) fn is_durable(self) -> bool {
        match self {
            Self::Registered
            | Self::Updated
            | Self::SecretChanged
            | Self::Returned
            | Self::Released
            | Self::TakenOver { .. } => true,
            Self::Lapsed | Self::Gone | Self::TakeoverRefused { .. } => false,
        }
    }
}

/// An event of a beacon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BeaconEvent {
    pub(crate) name: BeaconName,
    pub(crate) kind: BeaconEventKind,
}

/// What happened to a beacon. Saying the same again is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BeaconEventKind {
    Registered,
    Updated,
    Unregistered,
    /// It had a lease, and was not registered again in time.
    Expired,
}

/// Counts of events since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) registered: u64,
    pub(crate) updated: u64,
    /// Plain renewals, ones of lapsed leases included.
    pub(crate) renewed: u64,
    pub(crate) released: u64,
    pub(crate) lapsed: u64,
    pub(crate) gone: u64,
    pub(crate) takeovers: u64,
    pub(crate) takeovers_refused: u64,
    pub(crate) unreadable_records: u64,
    /// Loads that found leases lost.
    pub(crate) store_damaged: u64,
    pub(crate) store_failures: u64,
    pub(crate) beacons_expired: u64,
}

impl Totals {
    pub(super) fn count(&mut self, kind: EventKind) {
        let total = match kind {
            EventKind::Registered => &mut self.registered,
            EventKind::Updated | EventKind::SecretChanged => &mut self.updated,
            EventKind::Returned => &mut self.renewed,
            EventKind::Released => &mut self.released,
            EventKind::Lapsed => &mut self.lapsed,
            EventKind::Gone => &mut self.gone,
            EventKind::TakenOver { .. } => &mut self.takeovers,
            EventKind::TakeoverRefused { .. } => &mut self.takeovers_refused,
        };
        *total += 1;
    }

    pub(super) fn count_beacon(&mut self, kind: BeaconEventKind) {
        self.beacons_expired += u64::from(kind == BeaconEventKind::Expired);
    }
}
