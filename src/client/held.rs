//! What a scraper may hold for us: the release at the end depends on that.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use super::targets::TargetSet;
use crate::wire::{Alias, AliasOutcome, Registered};

/// The aliases that one scraper has granted, or may have.
#[derive(Clone, Default)]
pub(super) struct Held {
    /// What was asked for last, until the answer is known. A registration that broke off may have been granted.
    asked: Option<TargetSet>,
    /// True while an answer may come.
    waiting: bool,
    granted: BTreeSet<Alias>,
    /// The end of the lease, as far as that is known.
    until: Option<Instant>,
}

impl Held {
    /// A registration is sent.
    pub(super) fn asked(&mut self, set: &TargetSet) {
        (self.asked, self.waiting) = (Some(set.clone()), true);
    }

    /// The scraper has answered.
    pub(super) fn answered(&mut self, set: &TargetSet, registered: &Registered) {
        let outcomes = set.keys().zip(&registered.outcomes);
        let granted = outcomes.filter(|(_, outcome)| matches!(outcome, AliasOutcome::Granted { .. }));
        *self = Self {
            granted: granted.map(|(alias, _)| alias.clone()).collect(),
            until: Instant::now().checked_add(Duration::from_millis(registered.lease_ms)),
            ..Self::default()
        };
    }

    /// The scraper has granted nothing new.
    pub(super) fn refused(&mut self) {
        (self.asked, self.waiting) = (None, false);
    }

    /// No answer will come.
    pub(super) fn broke_off(&mut self) {
        self.waiting = false;
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// The aliases, none if the scraper holds nothing for us.
    pub(super) fn aliases(&self) -> BTreeSet<&Alias> {
        self.granted.iter().chain(self.asked.iter().flat_map(|set| set.keys())).collect()
    }

    /// How long the lease lasts, as far as that is known.
    pub(super) fn left(&self) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(Instant::now()))
    }
}
