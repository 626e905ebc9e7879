//! A token that callers of an HTTP API must show, kept in a file.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use blake2::{Blake2s256, Digest};
use http::{HeaderMap, header};
use subtle::ConstantTimeEq;
use tokio::task;

use crate::{
    secret_file::{self, SecretFileError},
    telemetry::Chain,
};

/// The file of a token. It is read for every request, so a rotated token counts at once.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
    /// True while it cannot be read, which is logged once.
    is_unreadable: AtomicBool,
}

impl TokenFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, is_unreadable: AtomicBool::new(false) }
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
        let path = self.path.clone();
        let token = task::spawn_blocking(move || read(path)).await.expect("reading a file does not panic");
        let was_unreadable = self.is_unreadable.swap(token.is_err(), Ordering::Relaxed);
        if let Err(error) = &token
            && !was_unreadable
        {
            tracing::warn!(error = %Chain(error), "the token of an HTTP API cannot be read: its callers get 503");
        }
        Ok(token?.ct_eq(&digest(shown)).into())
    }

    /// Why the file cannot be used now, if so. Blocks.
    pub(crate) fn check(&self) -> Result<(), SecretFileError> {
        read(self.path.clone()).map(drop)
    }
}

/// True if what was shown is the token. How long this takes says nothing about it.
#[cfg(feature = "cli")]
pub(crate) fn is_token(token: &[u8], shown: &[u8]) -> bool {
    digest(token).ct_eq(&digest(shown)).into()
}

/// The digest of the token: all of them have one length.
pub(super) fn read(path: PathBuf) -> Result<[u8; 32], SecretFileError> {
    let token = secret_file::read(&path)?;
    match token.trim_ascii() {
        b"" => Err(SecretFileError::Content { path }),
        token if token.iter().any(u8::is_ascii_control) => Err(SecretFileError::Content { path }),
        token => Ok(digest(token)),
    }
}

/// Of the bytes of a token.
pub(super) fn digest(token: &[u8]) -> [u8; 32] {
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
        assert!(matches!(shown("two").await, Err(SecretFileError::Exposed(_))));
    }

    /// Before: at the lobby's API each request had a line.
    #[cfg(feature = "cli")]
    #[tokio::test]
    async fn a_token_that_cannot_be_read_is_logged_once_until_it_can_be() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, log) = (directory.path().join("token"), directory.path().join("log"));
        let lines = std::sync::Arc::new(fs::File::create(&log).expect("made"));
        let _guard = tracing::subscriber::set_default(tracing_subscriber::fmt().with_writer(lines).finish());
        let file = TokenFile::new(path.clone());
        for _ in 0..2 {
            assert!(file.is(b"one").await.is_err() && file.is(b"one").await.is_err());
            fs::write(&path, "one").expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
            assert!(!file.is(b"two").await.expect("read"));
            fs::remove_file(&path).expect("removed");
        }
        let log = fs::read_to_string(log).expect("text");
        assert_eq!(log.matches("the token of an HTTP API cannot be read").count(), 2, "{log}");
    }
}
