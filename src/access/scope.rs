//! What one who has proved a secret may register.

use std::sync::Arc;

use super::{AliasGlob, AliasPolicy};
use crate::{
    identity::SecretId,
    wire::{Alias, Labels, Target, TargetError},
};

/// The bounds of a secret. The default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// The aliases that may be registered; all if there is no pattern.
    pub(crate) aliases: Vec<AliasGlob>,
    /// Of these, the aliases that the client's key may hold; all if its key is under no rule.
    pub(crate) of_key: Option<Arc<[AliasGlob]>>,
    /// Labels of each target, whatever the client says.
    pub(crate) labels: Labels,
    /// The kind of service of each target, whatever the client says.
    pub(crate) service: Option<String>,
    pub(crate) quota: Quota,
    /// The secrets that the quota is of, together: those of one name, while one replaces another. None is the one that was
    /// proved alone.
    pub(crate) kin: Arc<[SecretId]>,
}

/// What holds among all who have one secret, beside the scraper's own limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quota {
    /// Most aliases that they may hold together.
    pub(crate) max_aliases: Option<usize>,
    /// Most bytes of these in `/sd`.
    pub(crate) max_bytes: Option<u64>,
    /// When one of them may take an alias from another. Between secrets the scraper's policy holds.
    pub(crate) policy: Option<AliasPolicy>,
}

impl Scope {
    /// True if the alias is within the bounds.
    pub(crate) fn admits(&self, alias: &Alias) -> bool {
        let fits = |globs: &[AliasGlob]| globs.iter().any(|glob| glob.fits(alias.as_str()));
        (self.aliases.is_empty() || fits(&self.aliases)) && self.of_key.as_deref().is_none_or(fits)
    }

    /// The target with what is not the client's to choose.
    ///
    /// # Errors
    /// [`TargetError::TooManyLabels`] if the labels do not fit beside the client's.
    pub(crate) fn mark(&self, mut target: Target) -> Result<Target, TargetError> {
        if let Some(service) = &self.service {
            target.service.clone_from(service);
        }
        for (name, value) in self.labels.iter() {
            target.labels.insert(name, value)?;
        }
        Ok(target)
    }
}
