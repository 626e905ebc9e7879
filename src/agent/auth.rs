//! Authorization at an exporter: a password or a token from a file.

use std::{io, path::PathBuf};

use data_encoding::BASE64;
use http::HeaderValue;
use tokio::task;
use zeroize::Zeroizing;

use crate::secret_file::{self, SecretFileError};

/// How the agent authenticates itself to an exporter. The file is read for every pull, so a rotated secret is used at
/// once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Auth {
    /// `Authorization: Basic`.
    Basic {
        /// The user's name, without a colon.
        username: String,
        /// The password's file.
        password_file: PathBuf,
    },
    /// `Authorization: Bearer`.
    Bearer {
        /// The token's file.
        token_file: PathBuf,
    },
}

impl Auth {
    /// The value of `Authorization`, from the file as of now.
    pub(super) async fn header(&self) -> Result<HeaderValue, SecretFileError> {
        let auth = self.clone();
        let read = task::spawn_blocking(move || auth.header_blocking()).await;
        read.unwrap_or_else(|panic| {
            Err(SecretFileError::Io { path: self.file().clone(), source: io::Error::other(panic) })
        })
    }

    /// Why the file cannot be used now, if so. Blocks.
    #[cfg(feature = "cli")]
    pub(super) fn unusable(&self) -> Option<SecretFileError> {
        self.header_blocking().err()
    }

    fn file(&self) -> &PathBuf {
        match self {
            Self::Basic { password_file, .. } => password_file,
            Self::Bearer { token_file } => token_file,
        }
    }

    fn header_blocking(&self) -> Result<HeaderValue, SecretFileError> {
        let unfit = || SecretFileError::Content { path: self.file().clone() };
        let secret = secret_file::read(self.file())?;
        let secret = secret.trim_ascii_end();
        if secret.is_empty() {
            return Err(unfit());
        }
        let value = match self {
            Self::Basic { username, .. } => basic(username, secret),
            Self::Bearer { .. } => credentials("Bearer", secret),
        };
        value.ok_or_else(unfit)
    }
}

/// The value of `Authorization` for a password (RFC 7617). None if it cannot be sent.
pub(crate) fn basic(username: &str, password: &[u8]) -> Option<HeaderValue> {
    let pair = Zeroizing::new([username.as_bytes(), b":", password].concat());
    credentials("Basic", Zeroizing::new(BASE64.encode(&pair)).as_bytes())
}

/// The same for what a scheme such as `Bearer` shows as it is (RFC 6750).
pub(crate) fn credentials(scheme: &str, credentials: &[u8]) -> Option<HeaderValue> {
    let text = Zeroizing::new([scheme.as_bytes(), b" ", credentials].concat());
    let mut value = HeaderValue::from_bytes(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
        process::Command,
    };

    use super::*;

    #[test]
    fn a_password_is_read_afresh_and_only_from_a_private_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("password");
        let write = |text: &str, mode| {
            fs::write(&file, text).expect("writes");
            fs::set_permissions(&file, Permissions::from_mode(mode)).expect("chmod");
        };
        let basic = Auth::Basic { username: "Aladdin".into(), password_file: file.clone() };
        write("open sesame\n", 0o640);
        // RFC 7617, section 2.
        assert_eq!(basic.header_blocking().expect("fine"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let bearer = Auth::Bearer { token_file: file.clone() };
        write("token-1\r\n", 0o600);
        assert_eq!(bearer.header_blocking().expect("fine"), "Bearer token-1");
        write("token-2", 0o600);
        let header = bearer.header_blocking().expect("fine");
        assert_eq!(header, "Bearer token-2");
        assert!(!format!("{header:?}").contains("token"), "kept out of debug output");

        write("hunter2", 0o644);
        let error = bearer.header_blocking().expect_err("open to everybody").to_string();
        assert!(error.contains("mode 0644") && error.contains("chmod 600") && !error.contains("hunter2"), "{error}");
        for unfit in ["", "\n", "a\nb"] {
            write(unfit, 0o600);
            assert!(matches!(bearer.header_blocking(), Err(SecretFileError::Content { .. })), "{unfit:?}");
        }
        write(&"a".repeat(70_000), 0o600);
        assert!(matches!(bearer.header_blocking(), Err(SecretFileError::Io { .. })));
        fs::remove_file(&file).expect("removes");
        let made = Command::new("mkfifo").args(["-m", "600"]).arg(&file).status().expect("mkfifo runs");
        assert!(made.success());
        let Err(SecretFileError::Io { source, .. }) = bearer.header_blocking() else { panic!("a pipe") };
        assert_eq!(source.to_string(), "not a regular file");
    }
}
