//! Files with passwords, tokens and private keys: read when needed, never printed.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::small_file;

/// Most bytes of a secret: more than any token or key has.
const MAX_LEN: u64 = 64 * 1024;

/// Why such a file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretFileError {
    /// Anybody on the machine could read or change the file. A group may: Kubernetes gives secrets to a group (`fsGroup`).
    #[error("{} may be read by everybody (mode {mode:04o}); mend it with: chmod o-rwx {}", path.display(), path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is empty, or has characters that no header can have.
    #[error("{} is empty or holds characters that no header takes", path.display())]
    Content {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

/// Reads the file. Blocks.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let read = small_file::read(path, MAX_LEN);
    let (bytes, metadata) = read.map_err(|source| SecretFileError::Io { path: path.to_owned(), source })?;
    // The mode of the opened file: the path may name another one by now.
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(SecretFileError::Mode { path: path.to_owned(), mode });
    }
    Ok(bytes)
}
