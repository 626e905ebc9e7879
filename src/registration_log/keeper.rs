//! Writes the log.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Seek, SeekFrom},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use super::{
    LOG_DIR,
    entry::{Entry, Hash, Holder, What, Why},
    files::LogFiles,
};
use crate::{
    atomic_file,
    identity::{KeyPair, PublicKey, SecretId},
    registry::{Cause, EventKind, Journal, JournalEntry},
};

/// Between two heads, if there is something to sign. What was written since the last one may be lost by a power cut.
const SIGN_EVERY: Duration = Duration::from_secs(10);
/// Most bytes of a file.
const MAX_FILE: u64 = 8 << 20;
/// The whole log has so many files or more, so that what is dropped is a small part.
const FILES: u64 = 8;
/// More bytes than any line has.
const MAX_LINE: u64 = 4096;

/// The kind of an address, which tells less than the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressKind {
    Loopback,
    Private,
    Public,
    Relayed,
}

impl AddressKind {
    /// Of a peer that is linked without a relay.
    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            ip if ip.is_loopback() => Self::Loopback,
            IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() || is_shared(ip) => Self::Private,
            IpAddr::V6(ip) if ip.is_unique_local() || ip.is_unicast_link_local() => Self::Private,
            _ => Self::Public,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::Public => "public",
            Self::Relayed => "relayed",
        }
    }
}

/// Of a provider's NAT (RFC 6598).
fn is_shared(ip: std::net::Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && (64..128).contains(&b)
}

/// A question to others.
type Ask<Q, A> = Box<dyn Fn(&Q) -> Option<A> + Send>;

/// What the table does not know.
pub(crate) struct Resolve {
    /// What a secret is called.
    pub(crate) name_of: Ask<SecretId, String>,
    /// From where a peer is linked.
    pub(crate) address_of: Ask<PublicKey, AddressKind>,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct LogCounts {
    pub(crate) written: AtomicU64,
    pub(crate) lost: AtomicU64,
}

/// The log of a scraper that runs.
pub(crate) struct Keeper {
    files: LogFiles,
    max_bytes: u64,
    key: KeyPair,
    resolve: Resolve,
    counts: Arc<LogCounts>,
    end: End,
    file: Option<Open>,
    /// Lines since the last head.
    unsigned: u64,
    signed_at: Instant,
    /// Entries that the log does not have yet know of.
    lost: u64,
}

/// The end of the chain.
#[derive(Clone, Copy, Default)]
struct End {
    /// The number of the last entry.
    seq: u64,
    hash: Hash,
}

struct Open {
    file: File,
    path: PathBuf,
    len: u64,
}

/// How a log was found.
#[derive(Default)]
struct Found {
    end: End,
    file: Option<Open>,
    torn: bool,
    broken: bool,
}

impl Keeper {
    /// Goes on with the log in the data directory, or begins one. At most `max_bytes` are kept. Blocks.
    pub(crate) fn open(
        data_dir: &std::path::Path,
        max_bytes: u64,
        key: KeyPair,
        resolve: Resolve,
        counts: Arc<LogCounts>,
    ) -> io::Result<Self> {
        let files = LogFiles(data_dir.join(LOG_DIR));
        match DirBuilder::new().mode(0o700).create(&files.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let Found { end, file, torn, broken } = found(&files)?;
        if torn {
            tracing::info!(
                entry = end.seq + 1,
                "the last entry of the registration log was not whole, and was cut off"
            );
        }
        if broken {
            tracing::error!(
                directory = %files.0.display(),
                "the registration log does not end as it was written: somebody has changed it; narthex log verify says where"
            );
        }
        let (unsigned, signed_at, lost) = (0, Instant::now(), 0);
        let mut keeper = Self { files, max_bytes, key, resolve, counts, end, file, unsigned, signed_at, lost };
        let started = What::Started { narthex: env!("CARGO_PKG_VERSION").to_owned(), torn, broken };
        keeper.append(vec![(SystemTime::now(), started)])?;
        keeper.sign()?;
        Ok(keeper)
    }

    /// Writes entries behind each other: all of them, or none.
    fn append(&mut self, entries: Vec<(SystemTime, What)>) -> io::Result<()> {
        let (mut end, mut lines, count) = (self.end, String::new(), entries.len() as u64);
        for (at, what) in entries {
            let at = time_text(at);
            let line = Entry { seq: end.seq + 1, at, prev: end.hash, what }.line();
            end = End { seq: end.seq + 1, hash: Hash::of(line.as_bytes()) };
            lines += &line;
            lines.push('\n');
        }
        self.write_lines(&lines)?;
        self.end = end;
        self.unsigned += count;
        self.counts.written.fetch_add(count, Relaxed);
        Ok(())
    }

    /// Signs what was written, and has it synced.
    fn sign(&mut self) -> io::Result<()> {
        let line = Entry::signed(self.end.seq + 1, time_text(SystemTime::now()), self.end.hash, &self.key);
        self.write_lines(&format!("{line}\n"))?;
        self.end = End { seq: self.end.seq + 1, hash: Hash::of(line.as_bytes()) };
        self.counts.written.fetch_add(1, Relaxed);
        if let Some(open) = &self.file {
            open.file.sync_data()?;
            if !open.is_there() {
                tracing::error!(file = %open.path.display(), "a file of the registration log was removed while it was written");
                self.file = None;
            }
        }
        (self.unsigned, self.signed_at) = (0, Instant::now());
        Ok(())
    }

    fn write_lines(&mut self, lines: &str) -> io::Result<()> {
        let mut open = match self.file.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        // An error is one of these lines alone: the file is as before, or is left to the next start's look.
        open.file.write_all_at(lines.as_bytes(), open.len).inspect_err(|_| {
            let _ = open.file.set_len(open.len);
        })?;
        open.len += lines.len() as u64;
        self.file = Some(open);
        Ok(())
    }

    /// Begins the next file.
    fn begin(&self) -> io::Result<Open> {
        let path = self.files.path(self.end.seq + 1);
        // Lines of a write that failed are none of the chain.
        let file = File::options().write(true).create(true).truncate(true).mode(atomic_file::PRIVATE).open(&path)?;
        File::open(&self.files.0)?.sync_all()?;
        Ok(Open { file, path, len: 0 })
    }

    /// Closes a file that is long enough, after a head, and removes the oldest ones that are too much.
    fn rotate(&mut self) -> io::Result<()> {
        let longest = MAX_FILE.min(self.max_bytes / FILES);
        if self.file.as_ref().is_none_or(|open| open.len < longest) {
            return Ok(());
        }
        if self.unsigned > 0 {
            self.sign()?;
        }
        self.file = None;
        let files = self.files.list()?;
        let mut sizes = Vec::new();
        for file in files {
            sizes.push((fs::metadata(&file.path)?.len(), file.path));
        }
        let mut whole: u64 = sizes.iter().map(|(len, _)| len).sum();
        for (len, path) in sizes {
            if whole + longest <= self.max_bytes {
                break;
            }
            fs::remove_file(&path)?;
            whole -= len;
        }
        Ok(())
    }

    fn what(&self, entry: &JournalEntry) -> What {
        let (alias, peer) = (entry.alias.to_string(), entry.peer.to_string());
        let name = |id: SecretId| (self.resolve.name_of)(&id).unwrap_or_else(|| id.to_string());
        let holder = |alias, peer| {
            let address = (self.resolve.address_of)(&entry.peer).map(|kind| kind.as_str().to_owned());
            Holder { alias, peer, secret: entry.secret.map(name), address }
        };
        match entry.kind {
            EventKind::Registered | EventKind::Updated => What::Registered(holder(alias, peer)),
            EventKind::Returned => What::Returned(holder(alias, peer)),
            EventKind::TakenOver { from } => What::TakenOver { by: holder(alias, peer), from: from.to_string() },
            EventKind::Lapsed => What::Lapsed { alias, peer },
            EventKind::Gone => What::Gone { alias, peer },
            EventKind::Released | EventKind::TakeoverRefused { .. } => {
                What::Released { alias, peer, why: why(entry.cause) }
            }
        }
    }

    fn try_write(&mut self, entries: &[JournalEntry]) -> io::Result<()> {
        let mut lines = Vec::new();
        if self.lost > 0 {
            lines.push((SystemTime::now(), What::Lost { entries: self.lost }));
        }
        lines.extend(entries.iter().map(|entry| (entry.at, self.what(entry))));
        if !lines.is_empty() {
            self.append(lines)?;
            if self.lost > 0 {
                tracing::info!(lost = self.lost, "the registration log is written again");
            }
            self.lost = 0;
        }
        Ok(())
    }

    /// What is no entry: it may fail, and is done again.
    fn keep_up(&mut self) -> io::Result<()> {
        if self.unsigned > 0 && self.signed_at.elapsed() >= SIGN_EVERY {
            self.sign()?;
        }
        self.rotate()
    }
}

impl Journal for Keeper {
    fn write(&mut self, entries: Vec<JournalEntry>) {
        let was_failing = self.lost > 0;
        let written = self.try_write(&entries);
        if written.is_err() {
            self.lost += entries.len() as u64;
            self.counts.lost.fetch_add(entries.len() as u64, Relaxed);
        }
        if let Err(error) = written.and_then(|()| self.keep_up())
            && !was_failing
        {
            tracing::error!(%error, directory = %self.files.0.display(), "cannot write the registration log");
        }
    }

    fn close(&mut self) {
        if self.unsigned > 0
            && let Err(error) = self.sign()
        {
            tracing::error!(%error, directory = %self.files.0.display(), "cannot write the end of the registration log");
        }
    }
}

impl Open {
    /// False if the file has another name now, or none.
    fn is_there(&self) -> bool {
        let same = |there: fs::Metadata| self.file.metadata().is_ok_and(|ours| ours.ino() == there.ino());
        fs::metadata(&self.path).is_ok_and(same)
    }
}

/// The end of the log of before. A last line without an end is cut off: it was never acknowledged.
fn found(files: &LogFiles) -> io::Result<Found> {
    // A file that was begun and not written has nothing to say.
    for last in files.list()?.iter().rev() {
        let mut file = File::options().read(true).write(true).open(&last.path)?;
        let len = file.metadata()?.len();
        let from = len.saturating_sub(2 * MAX_LINE);
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        Read::by_ref(&mut file).take(2 * MAX_LINE).read_to_end(&mut tail)?;
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let is_torn = whole < tail.len();
        if whole == 0 {
            if from == 0 {
                if is_torn {
                    file.set_len(0)?;
                }
                if last.first > 1 {
                    continue;
                }
                return Ok(Found {
                    file: Some(Open { file, path: last.path.clone(), len: 0 }),
                    torn: is_torn,
                    ..Found::default()
                });
            }
            return Ok(Found {
                end: End { seq: last.first, hash: Hash::of(&tail) },
                file: None,
                torn: false,
                broken: true,
            });
        }
        let line = &tail[..whole - 1];
        let line = line.rsplit(|byte| *byte == b'\n').next().unwrap_or(line);
        let hash = Hash::of(line);
        let entry: Option<Entry> = serde_json::from_slice(line).ok();
        let Some(entry) = entry else {
            // Nothing can be said behind it but that it is so: the next file's name leaves room for what it may have been.
            return Ok(Found { end: End { seq: last.first + len, hash }, file: None, torn: is_torn, broken: true });
        };
        let len = from + whole as u64;
        if is_torn {
            file.set_len(len)?;
        }
        let open = Open { file, path: last.path.clone(), len };
        return Ok(Found { end: End { seq: entry.seq, hash }, file: Some(open), torn: is_torn, broken: false });
    }
    Ok(Found::default())
}

fn why(cause: Cause) -> Why {
    match cause {
        Cause::Peer | Cause::Time => Why::Holder,
        Cause::Operator => Why::Operator,
        Cause::Right => Why::Revoked,
        Cause::Elsewhere => Why::Elsewhere,
        Cause::Damage => Why::Damage,
    }
}

fn time_text(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

#[cfg(test)]
mod tests;
