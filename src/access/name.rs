//! Names of secrets and tickets, which stand in lists, logs and commands.

use std::{fmt, str::FromStr, sync::Arc};

/// Most characters of a name.
const MAX_LEN: usize = 64;

/// What a secret or a ticket is called: 1 to 64 of `A-Z a-z 0-9 . _ -`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(Arc<str>);

/// The text is no [`SecretName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name of a secret is 1 to 64 of A-Z a-z 0-9 . _ -")]
pub struct SecretNameError;

impl SecretName {
    /// Bytes of the longest one.
    pub(crate) const MAX_LEN: usize = MAX_LEN;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = SecretNameError;

    fn from_str(text: &str) -> Result<Self, SecretNameError> {
        let is_fit = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        match (1..=MAX_LEN).contains(&text.len()) && text.bytes().all(is_fit) {
            true => Ok(Self(text.into())),
            false => Err(SecretNameError),
        }
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
