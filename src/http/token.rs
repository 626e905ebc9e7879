//! A token that callers of an HTTP API must show, kept in a file.

use std::path::PathBuf;

use blake2::{Blake2s256, Digest};
use http::{HeaderMap, header};
use subtle::ConstantTimeEq;
use tokio::task;

use crate::secret_file::{self, SecretFileError};

/// The file of a token. It is read for every request, so a rotated token counts at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenFile(PathBuf);

impl TokenFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// True if the value of the request's `Authorization` is the token. How long the comparison takes says nothing about it.
    pub(crate) async fn is_shown(&self, headers: &HeaderMap) -> Result<bool, SecretFileError> {
        match headers.get(header::AUTHORIZATION) {
            Some(shown) => self.is(shown.as_bytes()).await,
            None => Ok(false),
        }
    }

    /// True if this is the token.
    pub(crate) async fn is(&self, shown: &[u8]) -> Result<bool, SecretFileError> {
        let file = self.0.clone();
        let token = task::spawn_blocking(move || read(file)).await.expect("reading a file does not panic")?;
        Ok(token.ct_eq(&digest(shown)).into())
    }

    /// Why the file cannot be used now, if so. Blocks.
    pub(crate) fn check(&self) -> Result<(), SecretFileError> {
        read(self.0.clone()).map(drop)
    }
}

/// True if what was shown is the token. How long this takes says nothing about it.
#[cfg(feature = "cli")]
pub(crate) fn is_token(token: &[u8], shown: &[u8]) -> bool {
    digest(token).ct_eq(&digest(shown)).into()
}

/// The digest of the token: all of them have one length.
fn read(path: PathBuf) -> Result<[u8; 32], SecretFileError> {
    let token = secret_file::read(&path)?;
    match token.trim_ascii() {
        b"" => Err(SecretFileError::Content { path }),
        token if token.iter().any(u8::is_ascii_control) => Err(SecretFileError::Content { path }),
        token => Ok(digest(token)),
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Blake2s256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[tokio::test]
    async fn the_token_of_the_file_as_of_now_is_taken_and_no_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        let file = TokenFile::new(path.clone());
        assert!(matches!(file.check(), Err(SecretFileError::Io { .. })));
        let write = |token: &str| {
            fs::write(&path, token).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        };
        let shown = async |token: &str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, token.parse().expect("a value"))]);
            file.is_shown(&headers).await
        };
        write("one\n");
        assert!(shown("one").await.expect("read"));
        for wrong in ["", "on", "onee", "two", "Bearer one"] {
            assert!(!shown(wrong).await.expect("read"), "{wrong}");
        }
        assert!(!file.is_shown(&HeaderMap::new()).await.expect("read"));
        write("two");
        assert!(shown("two").await.expect("read") && !shown("one").await.expect("read"));
        for unfit in [" \n", "one\ntwo\n"] {
            write(unfit);
            assert!(matches!(shown("").await, Err(SecretFileError::Content { .. })), "{unfit:?} admits nobody");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        assert!(matches!(shown("two").await, Err(SecretFileError::Mode { .. })));
    }
}
