//! Who looks at the table, and which of its targets are there for them.

use std::{collections::HashMap, sync::Arc};

use crate::{
    access::{TargetScope, User},
    identity::SecretId,
    registry::{Lease, Listing, Registry},
};

use super::sd_list::Listed;

/// A user whose request is answered. What the user does not see is to them as if it were not there.
#[derive(Clone)]
pub(super) struct Viewer {
    user: Arc<User>,
    registry: Registry,
}

/// What a viewer sees of many targets.
pub(super) struct Sight<'a> {
    viewer: &'a Viewer,
    /// Whether targets of a secret are seen.
    secrets: HashMap<SecretId, bool>,
}

impl Viewer {
    pub(super) fn new(user: Arc<User>, registry: &Registry) -> Self {
        Self { user, registry: registry.clone() }
    }

    /// False for one who sees everything.
    pub(super) fn is_scoped(&self) -> bool {
        self.user.scope.is_some()
    }

    pub(super) fn sees(&self, lease: &Lease) -> bool {
        self.sight().lease(lease)
    }

    pub(super) fn sight(&self) -> Sight<'_> {
        Sight { viewer: self, secrets: HashMap::new() }
    }
}

impl Sight<'_> {
    pub(super) fn lease(&mut self, lease: &Lease) -> bool {
        let Some(TargetScope { secrets, labels }) = &self.viewer.user.scope else { return true };
        let has_label = |(name, value): (&String, &String)| Listing::label(lease, name) == value;
        labels.iter().all(has_label) && (secrets.is_empty() || lease.secret.is_some_and(|id| self.secret(id, lease)))
    }

    /// Whoever has proved no secret, as a beacon's caller, is not seen by a scope that names secrets.
    pub(super) fn listed(&mut self, listed: &Listed) -> bool {
        match (listed, &self.viewer.user.scope) {
            (_, None) => true,
            (Listed::Alias { lease, .. }, _) => self.lease(lease),
            (Listed::Beacon { group, .. }, Some(TargetScope { secrets, labels })) => {
                secrets.is_empty() && labels.iter().all(|(name, value)| group.label(name) == value)
            }
        }
    }

    fn secret(&mut self, id: SecretId, lease: &Lease) -> bool {
        let Viewer { user, registry } = self.viewer;
        let is_named = || {
            let scope = user.scope.as_ref()?;
            Some(scope.secrets.contains(registry.secret_name(lease)?.as_str()))
        };
        *self.secrets.entry(id).or_insert_with(|| is_named().unwrap_or(false))
    }
}
