//! Bytes that a registration may add to the http_sd list.
//!
//! What a table holds it keeps, also where an earlier version or a higher limit let it grow past a budget: a claim whose
//! alias costs its holder no more than before is never refused.

use super::RegistryConfig;
use crate::{
    access::Quota,
    telemetry::Limit,
    wire::{AliasOutcome, AliasRefusal},
};

/// The bytes that are left to one registration.
#[derive(Debug)]
pub(super) struct Budget {
    per_alias: u64,
    peer: u64,
    /// Of the secret's share of the table.
    share: u64,
    /// Of the secret's own quota.
    quota: u64,
    table: u64,
}

/// Bytes that one alias takes already, or that are taken already in all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    pub(super) by_peer: u64,
    pub(super) by_secret: u64,
    /// Of the secrets of one name, without what is the peer's by another one.
    pub(super) by_quota: u64,
    pub(super) by_table: u64,
}

impl Budget {
    pub(super) fn new(config: &RegistryConfig, quota: Quota, taken: Taken) -> Self {
        let share = config.max_secret_bytes.unwrap_or(config.max_table_bytes);
        let quota = quota.max_bytes.unwrap_or(u64::MAX);
        Self {
            per_alias: config.max_alias_bytes,
            peer: config.max_peer_bytes.saturating_sub(taken.by_peer),
            share: share.saturating_sub(taken.by_secret),
            quota: quota.saturating_sub(taken.by_quota),
            table: config.max_table_bytes.saturating_sub(taken.by_table),
        }
    }

    /// Takes `bytes` for an alias that has `taken` some already. The error is the limit that would be passed; nothing is
    /// taken then.
    pub(super) fn take(&mut self, bytes: u64, taken: Taken) -> Result<(), Limit> {
        let [by_peer, by_secret, by_quota, by_table] =
            [taken.by_peer, taken.by_secret, taken.by_quota, taken.by_table].map(|taken| bytes.saturating_sub(taken));
        match by_peer {
            _ if by_quota > self.quota => return Err(Limit::SecretBytes),
            0 => {
                self.quota -= by_quota;
                return Ok(());
            }
            _ if bytes > self.per_alias => return Err(Limit::AliasBytes),
            _ if by_peer > self.peer => return Err(Limit::PeerBytes),
            _ if by_table > self.table => return Err(Limit::TableBytes),
            _ if by_secret > self.share => return Err(Limit::SecretBytes),
            _ => {}
        }
        self.peer -= by_peer;
        self.share -= by_secret;
        self.quota -= by_quota;
        self.table -= by_table;
        Ok(())
    }
}

/// The outcome of a claim that a limit refuses, in codes that clients of all versions read. An alias that is too large
/// needs its operator; for the rest room may come.
pub(super) fn refusal(limit: Limit) -> AliasOutcome {
    AliasOutcome::Refused(match limit {
        Limit::AliasBytes => AliasRefusal::Invalid,
        _ => AliasRefusal::Full,
    })
}
