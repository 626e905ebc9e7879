//! A claim on an alias, with an end.

use std::time::{Duration, SystemTime};

use crate::{
    identity::PublicKey,
    wire::{Alias, Labels, Target},
};

/// One alias, who holds it and until when. Times are wall-clock times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The name it is listed under.
    pub alias: Alias,
    /// Who holds it.
    pub peer: PublicKey,
    /// What kind of service it is; may be empty.
    pub service: String,
    /// The host the peer runs on, as it says itself.
    pub hostname: String,
    /// The target's own labels.
    pub labels: Labels,
    /// Since when this peer holds it.
    pub registered_at: SystemTime,
    /// When the peer last registered it.
    pub renewed_at: SystemTime,
    /// When it lapses unless it is renewed.
    pub expires_at: SystemTime,
}

impl Lease {
    /// Whether it still runs.
    pub fn state(&self, now: SystemTime) -> LeaseState {
        if now < self.expires_at { LeaseState::Active } else { LeaseState::Lapsed }
    }

    /// True if listing it would show what `target` on `hostname` asks for.
    pub(super) fn shows(&self, target: &Target, hostname: &str) -> bool {
        self.service == target.service && self.hostname == hostname && self.labels == target.labels
    }
}

/// Where a lease stands. One that is gone is not in the table any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseState {
    /// It runs.
    Active,
    /// It was not renewed in time. Still listed, until the retention has passed.
    Lapsed,
}

impl LeaseState {
    /// `active` or `lapsed`, as it stands in labels and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Lapsed => "lapsed",
        }
    }
}

/// `at + by`, where "for ever" (any span past a century) neither overflows nor panics.
pub(super) fn later(at: SystemTime, by: Duration) -> SystemTime {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    at.checked_add(by.min(CENTURY)).unwrap_or(at)
}
