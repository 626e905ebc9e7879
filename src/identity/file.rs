//! Key and secret files: a comment with the kind, a line of text, readable by the owner and a group of ours at most.
//!
//! The comment may be missing. It keeps a key from being used as a secret: a scraper's private key handed to a whole
//! fleet as its secret would no longer be private.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use zeroize::Zeroizing;

use super::{KeyError, KeyPair, SharedSecret, text};
use crate::{
    atomic_file,
    private_file::{self, ExposedFile},
    small_file,
};

/// Most bytes of a key file, which has some 80.
const MAX_LEN: u64 = 1024;

/// Why a key or secret file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// Others could read or change the file.
    #[error(transparent)]
    Exposed(#[from] ExposedFile),
    /// The file exists already. Keys and secrets are never overwritten.
    #[error("{} exists already and is never overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file holds a key where a secret was wanted, or a secret where a key was wanted.
    #[error("{} holds a {found}, not a {wanted}", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// The kind that the comment names.
        found: &'static str,
        /// The kind that was wanted.
        wanted: &'static str,
    },
    /// The file holds something else.
    #[error("{} does not hold a key or secret", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The fault in the file's text.
        source: KeyError,
    },
    /// The file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

/// Reads a key pair that [`create_key`] wrote.
///
/// # Errors
/// [`KeyFileError`] if it is missing, readable by others, or holds something else.
pub fn load_key(path: &Path) -> Result<KeyPair, KeyFileError> {
    let text = read_private(path, MAX_LEN)?;
    let line = line_of(Kind::Key, path, &text)?;
    let seed = text::parse(line).map_err(|source| KeyFileError::Content { path: path.to_owned(), source })?;
    Ok(KeyPair::from_seed(&seed))
}

/// Writes the key pair to a new file of mode 0600. Creates its directory (mode 0700) where there is none.
///
/// # Errors
/// [`KeyFileError::Exists`] rather than overwriting; [`KeyFileError::Io`].
pub fn create_key(path: &Path, key: &KeyPair) -> Result<(), KeyFileError> {
    create_private(path, Kind::Key, &Zeroizing::new(text::to_z_base_32(&key.seed())))
}

/// Reads the key at `path`, or creates one if the file is missing.
///
/// # Errors
/// As [`load_key`] and [`create_key`].
pub fn load_or_create_key(path: &Path) -> Result<KeyPair, KeyFileError> {
    match load_key(path) {
        Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate();
            match create_key(path, &key) {
                // Another process has created one meanwhile.
                Err(KeyFileError::Exists { .. }) => load_key(path),
                created => created.map(|()| key),
            }
        }
        loaded => loaded,
    }
}

/// Reads a shared secret that [`create_secret`] wrote.
///
/// # Errors
/// As [`load_key`].
pub fn load_secret(path: &Path) -> Result<SharedSecret, KeyFileError> {
    let text = read_private(path, MAX_LEN)?;
    SharedSecret::from_str(line_of(Kind::Secret, path, &text)?)
        .map_err(|source| KeyFileError::Content { path: path.to_owned(), source })
}

/// Writes the secret to a new file of mode 0600.
///
/// # Errors
/// As [`create_key`].
pub fn create_secret(path: &Path, secret: &SharedSecret) -> Result<(), KeyFileError> {
    create_private(path, Kind::Secret, &secret.expose_text())
}

/// The kind of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Key,
    Secret,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Key => "private key",
            Self::Secret => "shared secret",
        }
    }

    fn comment(self) -> String {
        format!("# narthex {}", self.name())
    }
}

/// The line that is no comment. An error if the comment names the other kind.
fn line_of<'a>(wanted: Kind, path: &Path, text: &'a str) -> Result<&'a str, KeyFileError> {
    let other = if wanted == Kind::Key { Kind::Secret } else { Kind::Key };
    if text.lines().any(|line| line.trim() == other.comment()) {
        let (found, wanted) = (other.name(), wanted.name());
        return Err(KeyFileError::Kind { path: path.to_owned(), found, wanted });
    }
    Ok(text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default())
}

/// Reads a text of so many bytes at most that only its owner may read.
pub(crate) fn read_private(path: &Path, most: u64) -> Result<Zeroizing<String>, KeyFileError> {
    let failed = |source| KeyFileError::Io { action: "read", path: path.to_owned(), source };
    let opened = small_file::open(path).map_err(failed)?;
    private_file::check(path, &opened.metadata)?;
    let bytes = opened.read(most).map_err(failed)?;
    Ok(Zeroizing::new(small_file::text(&bytes).map_err(failed)?.to_owned()))
}

fn create_private(path: &Path, kind: Kind, text: &str) -> Result<(), KeyFileError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: path.to_owned() },
        _ => KeyFileError::Io { action: "write", path: path.to_owned(), source },
    };
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty() && !directory.exists())
    {
        fs::create_dir_all(directory).map_err(failed)?;
        fs::set_permissions(directory, Permissions::from_mode(0o700)).map_err(failed)?;
    }
    let content = Zeroizing::new(format!("{}\n{text}\n", kind.comment()));
    atomic_file::create(path, content.as_bytes(), atomic_file::PRIVATE).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path in a directory that goes away with the test.
    fn file(name: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join(name);
        (dir, path)
    }

    #[test]
    fn a_key_file_is_private_and_reads_back() {
        let (_dir, path) = file("made/on/the/way.key");
        let key = KeyPair::generate();
        create_key(&path, &key).expect("writes");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(load_key(&path).expect("reads").public(), key.public());
    }

    #[test]
    fn a_key_file_is_never_overwritten() {
        let (_dir, path) = file("a.key");
        create_key(&path, &KeyPair::generate()).expect("writes");
        assert!(matches!(create_key(&path, &KeyPair::generate()), Err(KeyFileError::Exists { .. })));
    }

    #[test]
    fn a_file_others_can_read_is_refused_with_the_chmod_that_mends_it() {
        let (_dir, path) = file("fleet.secret");
        create_secret(&path, &SharedSecret::generate()).expect("writes");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("chmod");
        let error = load_secret(&path).expect_err("refused").to_string();
        assert!(error.contains("0644") && error.contains(&format!("chmod 600 {}", path.display())), "{error}");
    }

    #[test]
    fn a_missing_key_is_made_and_then_kept() {
        let (_dir, path) = file("agent.key");
        let made = load_or_create_key(&path).expect("makes").public();
        assert_eq!(load_or_create_key(&path).expect("keeps").public(), made);
    }

    #[test]
    fn processes_that_start_at_once_get_one_key() {
        let (_dir, path) = file("agent.key");
        let load = || load_or_create_key(&path).expect("loads or creates").public();
        let keys: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    }

    #[test]
    fn a_key_is_not_taken_for_a_secret_nor_the_other_way_round() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (key, secret) = (dir.path().join("a.key"), dir.path().join("a.secret"));
        create_key(&key, &KeyPair::generate()).expect("writes");
        create_secret(&secret, &SharedSecret::generate()).expect("writes");
        assert!(matches!(load_secret(&key), Err(KeyFileError::Kind { .. })));
        assert!(matches!(load_key(&secret), Err(KeyFileError::Kind { .. })));
    }

    #[test]
    fn a_file_without_the_comment_is_read() {
        let (_dir, path) = file("bare.secret");
        create_secret(&path, &SharedSecret::from_bytes([1; 32])).expect("writes");
        fs::write(&path, format!("{}\n", "01".repeat(32))).expect("writes");
        assert_eq!(load_secret(&path).expect("reads"), SharedSecret::from_bytes([1; 32]));
    }

    #[test]
    fn a_broken_file_is_named_without_its_content() {
        let (_dir, path) = file("x.key");
        create_private(&path, Kind::Key, "hunter2").expect("writes");
        let error = load_key(&path).expect_err("refused");
        assert!(error.to_string().contains("x.key") && !format!("{error:?}").contains("hunter2"));
    }
}
