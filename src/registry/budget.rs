//! Bytes that a registration may add to the http_sd list.
//!
//! What a table holds it keeps, also where an earlier version or a higher limit let it grow past a budget: a claim whose
//! alias costs its holder no more than before is never refused.

use super::RegistryConfig;
use crate::{
    telemetry::Limit,
    wire::{AliasOutcome, AliasRefusal},
};

/// The bytes that are left to one registration.
#[derive(Debug)]
pub(super) struct Budget {
    per_alias: u64,
    peer: u64,
    table: u64,
}

impl Budget {
    /// For a peer that keeps aliases of `kept` bytes, in a table of `held` bytes.
    pub(super) fn new(config: &RegistryConfig, kept: u64, held: u64) -> Self {
        Self {
            per_alias: config.max_alias_bytes,
            peer: config.max_peer_bytes.saturating_sub(kept),
            table: config.max_table_bytes.saturating_sub(held),
        }
    }

    /// Takes `bytes` for an alias that costs the peer `own` bytes already, and the table `held`. The error is the limit
    /// that would be passed; nothing is taken then.
    pub(super) fn take(&mut self, bytes: u64, own: u64, held: u64) -> Result<(), Limit> {
        let (by_peer, by_table) = (bytes.saturating_sub(own), bytes.saturating_sub(held));
        match by_peer {
            0 => return Ok(()),
            _ if bytes > self.per_alias => return Err(Limit::AliasBytes),
            _ if by_peer > self.peer => return Err(Limit::PeerBytes),
            _ if by_table > self.table => return Err(Limit::TableBytes),
            _ => {}
        }
        self.peer -= by_peer;
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
