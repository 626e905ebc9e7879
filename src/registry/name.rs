//! What the store keeps something under.

use std::fmt;

use super::beacon::BeaconName;
use crate::wire::Alias;

/// An alias, or the kind and key of a beacon.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Name {
    Alias(Alias),
    Beacon(BeaconName),
}

impl Name {
    /// What has the name.
    #[cfg(feature = "cli")]
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Alias(_) => "alias",
            Self::Beacon(_) => "beacon",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alias(alias) => alias.fmt(f),
            Self::Beacon(name) => name.fmt(f),
        }
    }
}
