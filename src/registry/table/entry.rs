//! An alias in the table, and what is counted for a secret.

use std::{sync::Arc, time::Duration};

use crate::registry::{Lease, Registrant, listing};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) lease: Arc<Lease>,
    /// True once a sweep has marked the lease as lapsed.
    pub(super) lapsed: bool,
    /// The registration that last changed what is listed; 0 if the lease was loaded.
    pub(super) step: u64,
    /// Of the alias in the http_sd list.
    pub(super) bytes: u64,
    /// What the lease got beyond its end since it was renewed, as nobody watched for a while.
    pub(super) given: Duration,
}

/// What is registered with one secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OfSecret {
    pub(super) aliases: usize,
    pub(super) bytes: u64,
}

impl Entry {
    pub(super) fn new(lease: Arc<Lease>, lapsed: bool, step: u64) -> Self {
        Self { bytes: listing::lease_bytes(&lease), lease, lapsed, step, given: Duration::ZERO }
    }

    /// True if the alias takes nothing more of the share of the secret: its own, or the peer's that replaces its secret.
    pub(super) fn counts_for(&self, by: &Registrant) -> bool {
        self.lease.peer == by.peer || self.lease.secret == Some(by.secret)
    }
}
