//! Files with passwords, tokens and private keys: read when needed, never printed.

use std::{
    io,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{
    private_file::{self, ExposedFile},
    small_file,
};

/// Most bytes of a secret: more than any token or key has.
const MAX_LEN: u64 = 64 * 1024;

/// Why such a file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretFileError {
    /// Others could read or change the file.
    #[error(transparent)]
    Exposed(#[from] ExposedFile),
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
    private_file::check(path, &metadata)?;
    Ok(bytes)
}
