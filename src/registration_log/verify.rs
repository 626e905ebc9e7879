//! Whether a log is as it was written.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::PathBuf,
};

use super::{
    entry::{self, Entry, Hash, What},
    files::{LogFile, LogFiles},
};
use crate::identity::PublicKey;

/// More bytes than any line has.
const MAX_LINE: u64 = 64 << 10;

/// A log whose lines belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verified {
    /// The first entry that is kept; not 1 if earlier files were dropped.
    pub(crate) first: u64,
    /// The last entry, and the hash of its line.
    pub(crate) last: u64,
    /// How many heads there are.
    pub(crate) heads: u64,
    /// Those who have signed them, in that order.
    pub(crate) keys: Vec<PublicKey>,
    /// The last head, its hash and its time.
    pub(crate) head: Option<(u64, Hash, String)>,
    /// True if the last line has no end: it is being written, or the scraper has crashed.
    pub(crate) is_torn: bool,
    /// Entries that the scraper itself says it has not written.
    pub(crate) lost: u64,
}

/// Why a log is not as it was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error("cannot read {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} has no registration log", path.display())]
    Empty { path: PathBuf },
    #[error("the log is broken: {} line {line}: {why}", path.display())]
    Broken { path: PathBuf, line: u64, why: String },
    #[error("the log is broken: nothing in it is signed")]
    Unsigned,
    #[error("the log has no entry {seq} with that hash: {why}")]
    Pinned { seq: u64, why: &'static str },
}

/// Reads the log in `directory`. Each head must be signed by one of `keys`, or by the key
/// that it names if there is none; `pinned` is an entry with its hash that must be there. Blocks.
pub(crate) fn verify(
    directory: &LogFiles,
    keys: &[PublicKey],
    pinned: Option<(u64, Hash)>,
) -> Result<Verified, VerifyError> {
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |source| VerifyError::Io { path, source }
    };
    let files = directory.list().map_err(failed(&directory.0))?;
    let mut state = State::default();
    let mut found = Verified::default();
    let mut is_pinned = false;
    let count = files.len();
    for (number, LogFile { first, path }) in files.into_iter().enumerate() {
        let mut reader = match File::open(&path) {
            // The scraper has dropped its oldest file meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound && found.first == 0 => continue,
            opened => BufReader::new(opened.map_err(failed(&path))?),
        };
        let mut bytes = Vec::new();
        for line in 1.. {
            let broken = |why: String| VerifyError::Broken { path: path.clone(), line, why };
            bytes.clear();
            let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes).map_err(failed(&path))?;
            if read == 0 {
                break;
            }
            if bytes.pop() != Some(b'\n') {
                if number + 1 == count && (read as u64) < MAX_LINE {
                    found.is_torn = true;
                    break;
                }
                return Err(broken("the line has no end".to_owned()));
            }
            let text = std::str::from_utf8(&bytes).map_err(|_| broken("it is no text".to_owned()))?;
            let entry: Entry =
                serde_json::from_str(text).map_err(|_| broken("it is no entry of this log".to_owned()))?;
            if line == 1 && entry.seq != first {
                return Err(broken(format!("it is entry {}, and the file's name says {first}", entry.seq)));
            }
            state.follow(&entry, text).map_err(broken)?;
            if let What::Head { key, .. } = &entry.what {
                let key: PublicKey = key.parse().map_err(|_| broken("its key is none".to_owned()))?;
                if !keys.is_empty() && !keys.contains(&key) {
                    return Err(broken(format!("it is signed by {key}, which is not the scraper's key")));
                }
                if !entry::is_signed_by(text, &key) {
                    return Err(broken("its signature does not fit".to_owned()));
                }
                if !found.keys.contains(&key) {
                    found.keys.push(key);
                }
                found.heads += 1;
                found.head = Some((entry.seq, state.hash, entry.at.clone()));
            }
            if let What::Lost { entries } = entry.what {
                found.lost += entries;
            }
            if found.first == 0 {
                found.first = entry.seq;
            }
            found.last = entry.seq;
            is_pinned |= pinned == Some((entry.seq, state.hash));
        }
    }
    if found.first == 0 {
        return Err(VerifyError::Empty { path: directory.0.clone() });
    }
    if found.heads == 0 {
        return Err(VerifyError::Unsigned);
    }
    if let Some((seq, _)) = pinned
        && !is_pinned
    {
        let why = match seq {
            seq if seq < found.first => "it begins later, as earlier files were dropped",
            seq if seq > found.last => "it ends before, so something was cut off",
            _ => "another entry stands there, so it was written anew",
        };
        return Err(VerifyError::Pinned { seq, why });
    }
    Ok(found)
}

/// Hands each line on with its entry, if it is one, and whatever the others say. Blocks.
pub(crate) fn each_line(
    directory: &LogFiles,
    mut each: impl FnMut(&LogFile, u64, &str, Option<Entry>),
) -> io::Result<()> {
    for file in directory.list()? {
        let mut reader = BufReader::new(File::open(&file.path)?);
        let mut bytes = Vec::new();
        for line in 1.. {
            bytes.clear();
            if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes)? == 0 {
                break;
            }
            // What has no end is being written.
            if bytes.pop() == Some(b'\n') {
                let text = String::from_utf8_lossy(&bytes);
                each(&file, line, &text, serde_json::from_str(&text).ok());
            }
        }
    }
    Ok(())
}

/// The line before.
#[derive(Default)]
struct State {
    seq: u64,
    hash: Hash,
    is_begun: bool,
}

impl State {
    fn follow(&mut self, entry: &Entry, line: &str) -> Result<(), String> {
        if self.is_begun && self.seq.checked_add(1) != Some(entry.seq) {
            return Err(format!("entry {} follows entry {}", entry.seq, self.seq));
        }
        if !self.is_begun && entry.seq == 1 && entry.prev != Hash::default() {
            return Err("the first entry names one before it".to_owned());
        }
        if self.is_begun && entry.prev != self.hash {
            return Err("the line before is not the one that was there when this was written".to_owned());
        }
        if matches!(entry.what, What::Started { broken: true, .. }) {
            return Err("the scraper found the lines before changed when it started".to_owned());
        }
        *self = Self { seq: entry.seq, hash: Hash::of(line.as_bytes()), is_begun: true };
        Ok(())
    }
}
