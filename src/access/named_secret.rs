//! A shared secret as a scraper is given it: with a name, a time, and what may be done with it.

use std::{fmt, time::SystemTime};

use super::{Refused, Scope, SecretName};
use crate::identity::SharedSecret;

/// A shared secret that clients may prove. Several may have one name: while one replaces another, the tenant stays the same.
#[derive(Clone, PartialEq, Eq)]
pub struct NamedSecret {
    pub(crate) name: SecretName,
    pub(crate) secret: SharedSecret,
    pub(crate) scope: Scope,
    /// From when on it may be used.
    pub(crate) not_before: Option<SystemTime>,
    /// Until when it may be used. What was registered with it ends then.
    pub(crate) not_after: Option<SystemTime>,
}

impl NamedSecret {
    /// A secret that may do everything, at any time.
    pub fn new(name: SecretName, secret: SharedSecret) -> Self {
        Self { name, secret, scope: Scope::default(), not_before: None, not_after: None }
    }

    /// Whether it may be used now.
    pub(super) fn is_open(&self, now: SystemTime) -> Result<(), Refused> {
        if self.not_before.is_some_and(|from| now < from) {
            return Err(Refused::NotYet);
        }
        if self.not_after.is_some_and(|until| until <= now) {
            return Err(Refused::Expired);
        }
        Ok(())
    }
}

/// A secret that may do everything; its id is its name.
impl From<SharedSecret> for NamedSecret {
    fn from(secret: SharedSecret) -> Self {
        let name = secret.id().to_string().parse().expect("16 hex digits are a name");
        Self::new(name, secret)
    }
}

impl fmt::Debug for NamedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NamedSecret({})", self.name)
    }
}
