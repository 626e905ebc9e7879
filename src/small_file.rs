//! Files named by settings, read whole.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    path::Path,
};

use zeroize::Zeroizing;

/// Reads the file; also returns the metadata of the opened file. Blocks.
///
/// # Errors
/// The operating system's; `FileTooLarge` beyond `limit`; `InvalidInput` for a pipe or device, which could block for
/// ever.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<(Zeroizing<Vec<u8>>, Metadata)> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
    }
    Ok((bytes, metadata))
}
