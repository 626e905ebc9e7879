//! A registration from the wire, checked.

use crate::{
    identity::PublicKey,
    registry::{RegistryError, listing},
    wire::{Register, Target},
};

/// A checked registration. An invalid claim is `None`.
#[derive(Clone, Debug)]
pub(in crate::registry) struct Claims {
    pub(super) hostname: String,
    pub(super) targets: Vec<Option<Claimed>>,
}

/// A target that can be listed, and its bytes in the list.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    pub(super) target: Target,
    pub(super) bytes: u64,
}

impl Claims {
    pub(in crate::registry) fn check(peer: &PublicKey, register: &Register) -> Result<Self, RegistryError> {
        Target::check_name("hostname", &register.hostname).map_err(RegistryError::Hostname)?;
        let targets = register.claims.iter().map(|claim| {
            let target = claim.check().ok()?;
            Some(Claimed { bytes: listing::target_bytes(&target, peer, &register.hostname), target })
        });
        Ok(Self { hostname: register.hostname.clone(), targets: targets.collect() })
    }
}
