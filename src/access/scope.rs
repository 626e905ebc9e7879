//! What one who has proved a secret may register.

use super::AliasGlob;
use crate::wire::{Alias, Labels, Target, TargetError};

/// The bounds of a secret. The default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// The aliases that may be registered; all if there is no pattern.
    pub(crate) aliases: Vec<AliasGlob>,
    /// Labels of each target, whatever the client says.
    pub(crate) labels: Labels,
    /// Most aliases that all who have the secret may hold together.
    pub(crate) max_aliases: Option<usize>,
}

impl Scope {
    /// True if the alias is within the bounds.
    pub(crate) fn admits(&self, alias: &Alias) -> bool {
        self.aliases.is_empty() || self.aliases.iter().any(|glob| glob.fits(alias.as_str()))
    }

    /// The target with the labels that are not the client's to choose.
    ///
    /// # Errors
    /// [`TargetError::TooManyLabels`] if they do not fit beside the client's.
    pub(crate) fn mark(&self, mut target: Target) -> Result<Target, TargetError> {
        for (name, value) in self.labels.iter() {
            target.labels.insert(name, value)?;
        }
        Ok(target)
    }
}
