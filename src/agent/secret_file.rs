//! Files with passwords, tokens and private keys: read when they are needed, and never shown.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::small_file;

/// Why such a file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretFileError {
    /// Anybody on the machine could read or change it. A group may: Kubernetes gives secrets to one (`fsGroup`).
    #[error("{} may be read by everybody (mode {mode:04o}); mend it with: chmod o-rwx {}", path.display(), path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is empty, or holds what no header takes.
    #[error("{} is empty or holds characters that no header takes", path.display())]
    Content {
        /// The file.
        path: PathBuf,
    },
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// The file's bytes. Blocks.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let read = small_file::read(path, MAX_LEN);
    let (bytes, metadata) = read.map_err(|source| SecretFileError::Io { path: path.to_owned(), source })?;
    // The mode of the file that was read, not of whatever the path names a moment later.
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(SecretFileError::Mode { path: path.to_owned(), mode });
    }
    Ok(bytes)
}

/// More than any token or key.
const MAX_LEN: u64 = 64 * 1024;
