//! When an alias may change hands.

use std::{fmt, str::FromStr};

/// When another peer, with a valid secret, may take an alias that is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AliasPolicy {
    /// Once the holder has been without a link for [`RegistryConfig::takeover_grace`](crate::scraper::RegistryConfig::takeover_grace), or its lease has lapsed. From a
    /// holder that keeps its key, only that grace after its lease has lapsed; this holder takes the alias back when it
    /// returns within the retention.
    #[default]
    Live,
    /// Once the lease is gone or released.
    Pinned,
    /// At any time: the last claim wins.
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

/// The text names no [`AliasPolicy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of live, pinned, overwrite")]
#[non_exhaustive]
pub struct AliasPolicyError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_parsed_as_it_is_printed() {
        for policy in [AliasPolicy::Live, AliasPolicy::Pinned, AliasPolicy::Overwrite] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert_eq!("Live".parse::<AliasPolicy>(), Err(AliasPolicyError));
    }
}
