//! A registration from the wire, checked.

use std::sync::Arc;

use crate::{
    access::{Quota, Scope},
    identity::{PublicKey, SecretId},
    registry::{RegistryError, listing},
    wire::{AliasRefusal, Claim, Register, Target},
};

/// A checked registration, within the scope of the secret that was proved.
#[derive(Clone, Debug)]
pub(in crate::registry) struct Claims {
    pub(super) hostname: String,
    pub(super) targets: Vec<Result<Claimed, AliasRefusal>>,
    pub(super) quota: Quota,
    /// The secrets that the quota is of, beside the one that was proved.
    pub(super) kin: Arc<[SecretId]>,
}

/// A target that can be listed, and its bytes in the list.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    pub(super) target: Target,
    pub(super) bytes: u64,
}

impl Claims {
    pub(in crate::registry) fn check(
        peer: &PublicKey,
        register: &Register,
        scope: &Scope,
    ) -> Result<Self, RegistryError> {
        Target::check_name("hostname", &register.hostname).map_err(RegistryError::Hostname)?;
        let check = |claim: &Claim| {
            let target = claim.check().map_err(|_| AliasRefusal::Invalid)?;
            if !scope.admits(&target.alias) {
                return Err(AliasRefusal::OutOfScope);
            }
            let target = scope.mark(target).map_err(|_| AliasRefusal::Invalid)?;
            Ok(Claimed { bytes: listing::target_bytes(&target, peer, &register.hostname), target })
        };
        Ok(Self {
            hostname: register.hostname.clone(),
            targets: register.claims.iter().map(check).collect(),
            quota: scope.quota,
            kin: Arc::clone(&scope.kin),
        })
    }
}
