//! A claim on an alias, with an end.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    identity::{PublicKey, SecretId},
    wire::{Alias, Labels, Target},
};

/// Longest span that is added to a time: longer ones could overflow.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// One alias, its holder and its end. Times are wall-clock times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) alias: Alias,
    pub(crate) peer: PublicKey,
    /// The kind of service; may be empty.
    pub(crate) service: String,
    /// The host of the peer, by the peer's own account.
    pub(crate) hostname: String,
    pub(crate) labels: Labels,
    /// False for a target that is scraped by its path and stands in no list.
    pub(crate) listed: bool,
    /// True if the holder keeps its key across restarts.
    pub(crate) kept: bool,
    /// The secret that the holder has proved; none in a lease stored by an earlier version.
    pub(crate) secret: Option<SecretId>,
    /// The lease of the kept key that the alias was taken from, which may take the alias back.
    pub(crate) former: Option<Arc<Self>>,
    /// Since when this peer holds the alias.
    pub(crate) registered_at: SystemTime,
    pub(crate) renewed_at: SystemTime,
    /// When the lease lapses unless it is renewed.
    pub(crate) expires_at: SystemTime,
}

impl Lease {
    /// Active before its end, lapsed from then on.
    pub(crate) fn state(&self, now: SystemTime) -> LeaseState {
        if now < self.expires_at { LeaseState::Active } else { LeaseState::Lapsed }
    }

    /// True if the list in `/sd` has the same for both.
    pub(super) fn is_listed_as(&self, other: &Self) -> bool {
        self.alias == other.alias
            && self.peer == other.peer
            && self.service == other.service
            && self.hostname == other.hostname
            && self.labels == other.labels
            && self.listed == other.listed
    }

    /// True if the lease lists what `target` on `hostname` claims.
    pub(super) fn matches(&self, target: &Target, hostname: &str) -> bool {
        self.service == target.service
            && self.hostname == hostname
            && self.labels == target.labels
            && self.listed == target.listed
    }
}

#[cfg(test)]
impl Lease {
    /// A lease of 10 min of which tests say what is otherwise.
    pub(super) fn sample(alias: &str) -> Self {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        Self {
            alias: alias.parse().expect("an alias"),
            peer: crate::identity::KeyPair::from_seed(&[7; 32]).public(),
            service: "web".into(),
            hostname: "h1".into(),
            labels: Labels::default(),
            listed: true,
            kept: true,
            secret: Some(SecretId([0xab; 8])),
            former: None,
            registered_at: at,
            renewed_at: at,
            expires_at: at + Duration::from_secs(600),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LeaseState {
    Active,
    /// The lease was not renewed in time. It stays listed until the retention has passed.
    Lapsed,
}

impl LeaseState {
    /// `active` or `lapsed`, as in labels and JSON.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Lapsed => "lapsed",
        }
    }
}

/// `at + by`. A span past a century counts as a century, so no setting overflows or panics.
pub(super) fn later(at: SystemTime, by: Duration) -> SystemTime {
    at.checked_add(by.min(CENTURY)).unwrap_or(at)
}
