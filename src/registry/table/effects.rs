//! What a step did, for the store, for subscribers, for the log and for the counters.

use std::time::Duration;

use crate::{
    identity::PublicKey,
    registry::{BeaconEvent, BeaconEventKind, BeaconName, Change, EventKind, Note, RegistryEvent, budget},
    telemetry::Limit,
    wire::{Alias, AliasOutcome},
};

/// The effects of a step: to be stored, published and counted.
#[derive(Debug, Default)]
pub(in crate::registry) struct Effects {
    /// What was adopted of other scrapers, before the changes.
    pub(in crate::registry) notes: Vec<Note>,
    pub(in crate::registry) changes: Vec<Change>,
    pub(in crate::registry) events: Vec<RegistryEvent>,
    pub(in crate::registry) beacon_events: Vec<BeaconEvent>,
    /// Plain renewals, which are no events.
    pub(in crate::registry) renewed: u64,
    /// The clock's jump, if there was one.
    pub(in crate::registry) clock: Option<ClockStep>,
    /// True if a lease is listed again: the clock was set back, and the lease is not over, or it is in doubt no more.
    pub(in crate::registry) relisted: bool,
    /// Claims that a limit refused.
    pub(in crate::registry) refused: Vec<(Limit, Alias)>,
    /// The number of the registration; 0 for other steps.
    pub(in crate::registry) step: u64,
}

impl Effects {
    /// True if the list in `/sd` may have changed.
    pub(in crate::registry) fn are_visible(&self) -> bool {
        self.relisted || !self.beacon_events.is_empty() || self.events.iter().any(|event| event.kind.is_visible())
    }

    /// True if the changes must be on disk before they are acknowledged.
    pub(in crate::registry) fn are_durable(&self) -> bool {
        let is_durable = |event: &BeaconEvent| event.kind != BeaconEventKind::Expired;
        self.events.iter().any(|event| event.kind.is_durable()) || self.beacon_events.iter().any(is_durable)
    }

    pub(super) fn event(&mut self, alias: &Alias, peer: PublicKey, kind: EventKind) {
        self.events.push(RegistryEvent { alias: alias.clone(), peer, kind });
    }

    pub(super) fn beacon(&mut self, name: &BeaconName, kind: BeaconEventKind) {
        self.beacon_events.push(BeaconEvent { name: name.clone(), kind });
    }

    pub(super) fn refuse(&mut self, alias: Alias, limit: Limit) -> AliasOutcome {
        self.refused.push((limit, alias));
        budget::refusal(limit)
    }
}

/// A jump of the clock between two sweeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::registry) enum ClockStep {
    /// This much time passed at once.
    Ahead(Duration),
    /// The clock was set back by this much.
    Back(Duration),
}

impl ClockStep {
    pub(in crate::registry) fn log(self) {
        match self {
            Self::Ahead(by) => tracing::warn!(
                seconds = by.as_secs(),
                "leases were not watched for a while: running ones are given time to be renewed"
            ),
            Self::Back(by) => tracing::warn!(seconds = by.as_secs(), "the clock was set back: leases were shortened"),
        }
    }
}
