//! The log lines about registrations that peers can cause: each kind has a rate of its own, so that strangers do not silence
//! what concerns those who hold the secret.

use std::num::NonZeroU32;

use crate::{
    access::Refused,
    identity::{PublicKey, SecretId},
    registry::RegistryError,
    telemetry::{Chain, LogRate},
};

/// Lines of a kind: first ones of peers, and further ones of all.
const LINES_PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).expect("thirty is not zero");

pub(super) struct Warnings {
    refused_secrets: LogRate,
    copied_keys: LogRate,
    failures: LogRate,
}

impl Warnings {
    pub(super) fn new() -> Self {
        let rate = || LogRate::new(LINES_PER_MINUTE);
        Self { refused_secrets: rate(), copied_keys: rate(), failures: rate() }
    }

    /// `address` gives the peer's.
    pub(super) fn refused_secret(
        &self,
        peer: PublicKey,
        secret: SecretId,
        why: Refused,
        address: impl FnOnce() -> Option<String>,
    ) {
        if let Some(left_out) = self.refused_secrets.line(&peer) {
            match why {
                Refused::Unknown => {
                    tracing::warn!(%peer, address = address(), %secret, left_out, "a peer's shared secret is none of ours");
                }
                why => {
                    tracing::warn!(%peer, address = address(), %secret, %why, left_out, "refused a peer with a ticket")
                }
            }
        }
    }

    /// `holder` gives the address of the process that holds the key.
    pub(super) fn copied_key(&self, peer: PublicKey, holder: impl FnOnce() -> Option<String>) {
        if let Some(left_out) = self.copied_keys.line(&peer) {
            let holder = holder().unwrap_or_default();
            tracing::warn!(%peer, holder, left_out, "refused a second process with the key of one that is linked: was it copied?");
        }
    }

    pub(super) fn failed(&self, peer: PublicKey, error: &RegistryError) {
        if let Some(left_out) = self.failures.line(&peer) {
            tracing::warn!(%peer, error = %Chain(error), left_out, "could not register a peer");
        }
    }

    /// Drops the rates of peers that have been silent for a while.
    pub(super) fn forget_old(&self) {
        [&self.refused_secrets, &self.copied_keys, &self.failures].into_iter().for_each(LogRate::forget_old);
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;
    use crate::identity::{KeyPair, SharedSecret};

    /// Before: thirty lines about strangers within a minute silenced the line about a copied key.
    #[test]
    fn strangers_do_not_silence_the_line_about_a_copied_key() {
        let log = tempfile::NamedTempFile::new().expect("a temporary file");
        let writer = Arc::new(log.reopen().expect("opens"));
        let subscriber = tracing_subscriber::fmt().with_writer(writer).finish();
        tracing::subscriber::with_default(subscriber, || {
            let (warnings, secret) = (Warnings::new(), SharedSecret::generate().id());
            for _ in 0..100 {
                warnings.refused_secret(KeyPair::generate().public(), secret, Refused::Unknown, || None);
            }
            warnings.copied_key(KeyPair::generate().public(), || None);
            warnings.failed(KeyPair::generate().public(), &RegistryError::StoreFailing);
        });
        let log = fs::read_to_string(log.path()).expect("text");
        let lines = |text| log.lines().filter(|line| line.contains(text)).count();
        assert_eq!((lines("none of ours"), lines("was it copied?"), lines("could not register")), (60, 1, 1), "{log}");
    }
}
