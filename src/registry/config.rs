//! What an operator can set about the table.

use std::{fmt, str::FromStr, time::Duration};

/// Limits and times of a [`Registry`](super::Registry).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Life of a registration that is not renewed; clients renew at a third of it. Default 10 min.
    pub lease: Duration,
    /// How long a lapsed lease stays listed before it is gone. Default 3 h.
    pub retention: Duration,
    /// When another peer may take an alias that is held. Default [`AliasPolicy::Live`].
    pub policy: AliasPolicy,
    /// Most aliases held at once, lapsed ones included; the next new one is refused. Default 100 000.
    pub max_targets: usize,
    /// Most claims in one registration, and so most aliases of a peer. Default 256.
    pub max_per_peer: usize,
    /// After the table was loaded, holders count as linked for so long: nobody has reconnected yet, and their aliases
    /// must not fall to whoever comes first. If the store was damaged, the table counts as incomplete for so long, or for
    /// a third of a lease if that is longer. Default 60 s.
    pub start_grace: Duration,
}

impl RegistryConfig {
    /// How long clients may need to register again what a store has lost. At most a year, which any clock can add.
    pub(super) fn damage_grace(&self) -> Duration {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        self.start_grace.max(self.lease / 3).min(YEAR)
    }
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10 * 60),
            retention: Duration::from_secs(3 * 60 * 60),
            policy: AliasPolicy::default(),
            max_targets: 100_000,
            max_per_peer: 256,
            start_grace: Duration::from_secs(60),
        }
    }
}

/// When another peer, with a valid secret, may take an alias that is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AliasPolicy {
    /// Once the holder's lease has lapsed or its link is down.
    #[default]
    Live,
    /// Not before the lease is gone or released.
    Pinned,
    /// At any time: the last one wins.
    Overwrite,
}

impl fmt::Display for AliasPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Pinned => "pinned",
            Self::Overwrite => "overwrite",
        })
    }
}

impl FromStr for AliasPolicy {
    type Err = AliasPolicyError;

    fn from_str(text: &str) -> Result<Self, AliasPolicyError> {
        match text {
            "live" => Ok(Self::Live),
            "pinned" => Ok(Self::Pinned),
            "overwrite" => Ok(Self::Overwrite),
            _ => Err(AliasPolicyError),
        }
    }
}

/// The text is no [`AliasPolicy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of live, pinned, overwrite")]
pub struct AliasPolicyError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_reads_as_it_is_written() {
        for policy in [AliasPolicy::Live, AliasPolicy::Pinned, AliasPolicy::Overwrite] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert_eq!("Live".parse::<AliasPolicy>(), Err(AliasPolicyError));
    }
}
