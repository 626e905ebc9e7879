//! The settings of the table.

use std::time::Duration;

use crate::access::AliasPolicy;

/// Most time after damage until the table counts as complete. Any clock can add a year.
const MAX_DAMAGE_GRACE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Limits and times of a scraper's alias table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistryConfig {
    /// Life of a registration that is not renewed; clients renew at a third of it. Default 10 min.
    pub lease: Duration,
    /// How long a lapsed lease stays listed before it is gone. Default 3 h.
    pub retention: Duration,
    /// When another peer may take an alias that is held. Default [`AliasPolicy::Live`].
    pub policy: AliasPolicy,
    /// Most aliases held at once, lapsed ones included; the next new one is refused. Default 100 000.
    pub max_targets: usize,
    /// Most claims in one registration, and so most aliases of a peer. Default 5000.
    pub max_per_peer: usize,
    /// Most aliases registered with one secret; the next new one is refused. Default `max_targets` divided by the number of
    /// secrets, of which the registration API's token is one: with one secret the whole table.
    pub max_per_secret: Option<usize>,
    /// How long a holder must be away until another peer may take its alias ([`AliasPolicy::Live`]): without a link, or,
    /// if the holder keeps its key, past the end of its lease. Default 60 s.
    pub takeover_grace: Duration,
    /// Most bytes of an alias in `/sd`: its group as JSON, without the address to scrape. Labels are listed twice. An
    /// ordinary alias takes some 700 bytes. Default 4 KiB.
    pub max_alias_bytes: u64,
    /// Most bytes of a peer's aliases in `/sd`, and of a beacon. Default 8 MiB: `max_per_peer` aliases of 1677 bytes.
    pub max_peer_bytes: u64,
    /// Most bytes in `/sd` of the aliases registered with one secret. Default `max_table_bytes` divided by the number of
    /// secrets, of which the registration API's token is one.
    pub max_secret_bytes: Option<u64>,
    /// Most bytes of all aliases in `/sd`; the scraper holds them in memory. Default 96 MiB: `max_targets` aliases of
    /// 1006 bytes.
    pub max_table_bytes: u64,
    /// How long holders count as linked after the table was loaded: their links are not up again yet, and another peer
    /// must not take their aliases. After damage of the store, the table counts as incomplete for this long, or for a
    /// third of a lease if that is longer. Default 60 s.
    pub start_grace: Duration,
    /// How much longer than `lease` a stored lease runs: it is written again only when a renewal would end later. Not zero for
    /// a store that scrapers share, as each write is a message to each.
    pub(crate) slack: Duration,
    /// How old the table may be at most, if it is a copy of a shared store that cannot be reached.
    pub(crate) max_stale: Option<Duration>,
}

impl RegistryConfig {
    /// With a share of the table for each of so many secrets and tokens, where no other limit is set.
    pub(crate) fn shared_by(self, secrets: usize) -> Self {
        let secrets = secrets.max(1);
        let max_per_secret = self.max_per_secret.or(Some(self.max_targets.div_ceil(secrets)));
        let max_secret_bytes = self.max_secret_bytes.or(Some(self.max_table_bytes.div_ceil(secrets as u64)));
        Self { max_per_secret, max_secret_bytes, ..self }
    }

    /// How long clients may need to register again after the store has lost leases.
    pub(super) fn damage_grace(&self) -> Duration {
        self.start_grace.max(self.lease / 3).min(MAX_DAMAGE_GRACE)
    }
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10 * 60),
            retention: Duration::from_secs(3 * 60 * 60),
            policy: AliasPolicy::default(),
            max_targets: 100_000,
            max_per_peer: 5000,
            max_per_secret: None,
            takeover_grace: Duration::from_secs(60),
            max_alias_bytes: 4 << 10,
            max_peer_bytes: 8 << 20,
            max_secret_bytes: None,
            max_table_bytes: 96 << 20,
            start_grace: Duration::from_secs(60),
            slack: Duration::ZERO,
            max_stale: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before: each secret could fill the whole table.
    #[test]
    fn secrets_share_the_table_unless_a_limit_is_set() {
        let limits = |config: RegistryConfig, secrets| {
            let config = config.shared_by(secrets);
            (config.max_per_secret, config.max_secret_bytes)
        };
        let config = RegistryConfig { max_targets: 100, max_table_bytes: 1000, ..RegistryConfig::default() };
        assert_eq!(limits(config.clone(), 1), (Some(100), Some(1000)));
        assert_eq!(limits(config.clone(), 3), (Some(34), Some(334)));
        let set = RegistryConfig { max_per_secret: Some(90), max_secret_bytes: Some(900), ..config };
        assert_eq!(limits(set, 3), (Some(90), Some(900)));
    }
}
