//! Writes the log.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Seek, SeekFrom},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use super::{
    LOG_DIR,
    entry::{Entry, Hash, Holder, What, Why},
    files::{LogFile, LogFiles, MAX_SEQ},
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
    /// None until the log of before was read.
    end: Option<End>,
    file: Option<Open>,
    /// Lines since the last head.
    unsigned: u64,
    signed_at: Instant,
    /// Entries that could not be written, which the log is to say.
    lost: u64,
    /// Whether the last attempt failed, which is logged once.
    is_failing: bool,
}

/// The end of the chain.
#[derive(Clone, Copy, Default)]
struct End {
    /// The number of the last entry.
    seq: u64,
    hash: Hash,
}

impl End {
    /// Behind this line.
    fn then(self, line: &str) -> Self {
        Self { seq: self.seq + 1, hash: Hash::of(line.as_bytes()) }
    }
}

struct Open {
    file: File,
    path: PathBuf,
    len: u64,
    /// True if there may be a part of a line behind `len`.
    is_torn: bool,
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
    /// Goes on with the log in the data directory, or begins one. At most `max_bytes` are kept. A disk that cannot be written is
    /// said in the log of the process, and tried again. Blocks.
    pub(crate) fn open(
        data_dir: &Path,
        max_bytes: u64,
        key: KeyPair,
        resolve: Resolve,
        counts: Arc<LogCounts>,
    ) -> Self {
        let mut keeper = Self {
            files: LogFiles(data_dir.join(LOG_DIR)),
            max_bytes,
            key,
            resolve,
            counts,
            end: None,
            file: None,
            unsigned: 0,
            signed_at: Instant::now(),
            lost: 0,
            is_failing: false,
        };
        keeper.write(Vec::new());
        keeper
    }

    /// The end of the chain, after a look at what there was.
    fn end(&mut self) -> io::Result<End> {
        if let Some(end) = self.end {
            return Ok(end);
        }
        self.make_directory()?;
        let Found { end, file, torn, broken } = found(&self.files)?;
        if torn {
            tracing::info!(
                entry = end.seq + 1,
                "the last entry of the registration log was not whole, and was cut off"
            );
        }
        if broken {
            tracing::error!(
                directory = %self.files.0.display(),
                "the registration log does not end as it was written: somebody has changed it; narthex log verify says where"
            );
        }
        (self.end, self.file) = (Some(end), file);
        let started = What::Started { narthex: env!("CARGO_PKG_VERSION").to_owned(), torn, broken };
        let appended = self.append(vec![(SystemTime::now(), started)]).and_then(|()| self.sign());
        if appended.is_err() {
            self.end = None;
        }
        appended.and_then(|()| self.end())
    }

    /// Writes entries behind each other: all of them, or none.
    fn append(&mut self, entries: Vec<(SystemTime, What)>) -> io::Result<()> {
        let count = entries.len() as u64;
        let (mut end, mut lines) = (self.end()?, String::new());
        for (at, what) in entries {
            let line = Entry { seq: end.seq + 1, at: time_text(at), prev: end.hash, what }.line();
            end = end.then(&line);
            lines += &line;
            lines.push('\n');
        }
        self.write_lines(&lines, end)?;
        self.unsigned += count;
        self.counts.written.fetch_add(count, Relaxed);
        Ok(())
    }

    /// Signs what was written, and has it synced.
    fn sign(&mut self) -> io::Result<()> {
        let end = self.end()?;
        let line = Entry::signed(end.seq + 1, time_text(SystemTime::now()), end.hash, &self.key);
        self.write_lines(&format!("{line}\n"), end.then(&line))?;
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

    /// Writes lines, whose last one is the `end`. After an error the file is as before, or is made so by the next attempt.
    fn write_lines(&mut self, lines: &str, end: End) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(self.begin()?);
        }
        let Some(open) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        if open.is_torn {
            open.file.set_len(open.len)?;
        }
        open.is_torn = true;
        open.file.write_all_at(lines.as_bytes(), open.len)?;
        open.is_torn = false;
        open.len += lines.len() as u64;
        self.end = Some(end);
        Ok(())
    }

    /// Begins the next file, which must not be there.
    fn begin(&self) -> io::Result<Open> {
        let path = self.files.path(self.end.unwrap_or_default().seq + 1);
        self.make_directory()?;
        let file = File::options().write(true).create_new(true).mode(atomic_file::PRIVATE).open(&path)?;
        // Not every file system syncs a directory; without it a power cut may take the file.
        let _ = File::open(&self.files.0).and_then(|directory| directory.sync_all());
        Ok(Open { file, path, len: 0, is_torn: false })
    }

    fn make_directory(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.files.0) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
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
        let mut sizes = Vec::new();
        for file in self.files.list()? {
            sizes.push((fs::metadata(&file.path)?.len(), file.path));
        }
        let mut whole: u64 = sizes.iter().map(|(len, _)| len).sum();
        // The newest one is what the next start goes on from.
        sizes.pop();
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
            EventKind::SecretChanged => What::SecretChanged(holder(alias, peer)),
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
        self.end()?;
        let mut lines = Vec::new();
        if self.lost > 0 {
            lines.push((SystemTime::now(), What::Lost { entries: self.lost }));
        }
        lines.extend(entries.iter().map(|entry| (entry.at, self.what(entry))));
        if !lines.is_empty() {
            self.append(lines)?;
        }
        self.lost = 0;
        Ok(())
    }

    /// What is no entry: it may fail, and is done again.
    fn keep_up(&mut self) -> io::Result<()> {
        if self.unsigned > 0 && self.signed_at.elapsed() >= SIGN_EVERY {
            self.sign()?;
        }
        self.rotate()
    }

    /// Logs the first of several failures, and their end.
    fn say(&mut self, outcome: io::Result<()>) {
        let directory = self.files.0.display();
        match outcome {
            Err(ref error) if !self.is_failing => {
                tracing::error!(%error, %directory, "cannot write the registration log")
            }
            Ok(()) if self.is_failing => tracing::info!(%directory, "the registration log is written again"),
            _ => {}
        }
        self.is_failing = outcome.is_err();
    }
}

impl Journal for Keeper {
    fn write(&mut self, entries: Vec<JournalEntry>) {
        let written = self.try_write(&entries);
        if written.is_err() {
            self.lost += entries.len() as u64;
            self.counts.lost.fetch_add(entries.len() as u64, Relaxed);
        }
        let outcome = written.and_then(|()| self.keep_up());
        self.say(outcome);
    }

    fn close(&mut self) {
        let outcome = if self.unsigned > 0 { self.sign() } else { Ok(()) };
        self.say(outcome);
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
    let mut begun: Option<(u64, Open)> = None;
    let mut torn = false;
    for LogFile { first, path } in files.list()?.into_iter().rev() {
        let (file, last) = last_line(&path)?;
        let Last { line, whole, is_torn, is_long } = last;
        torn |= is_torn;
        if is_torn {
            file.set_len(whole)?;
        }
        let open = Open { file, path, len: whole, is_torn: false };
        let Some(line) = line else {
            // A file that was begun and not written says nothing.
            begun = Some((first, open));
            continue;
        };
        let (hash, entry) = (Hash::of(&line), serde_json::from_slice::<Entry>(&line).ok());
        let Some(entry) = entry.filter(|entry| !is_long && entry.seq < MAX_SEQ) else {
            // What comes after it has a file whose name leaves room for whatever that may have been.
            return Ok(Found { end: End { seq: first + whole, hash }, file: None, torn, broken: true });
        };
        let next = begun.filter(|(first, _)| *first == entry.seq + 1).map(|(_, open)| open);
        return Ok(Found { end: End { seq: entry.seq, hash }, file: next.or(Some(open)), torn, broken: false });
    }
    let file = begun.filter(|(first, _)| *first == 1).map(|(_, open)| open);
    Ok(Found { file, torn, ..Found::default() })
}

/// The end of a file.
struct Last {
    /// Its last whole line, if there is one.
    line: Option<Vec<u8>>,
    /// The bytes up to its end.
    whole: u64,
    /// True if a part of a line is behind it.
    is_torn: bool,
    /// True if there is no line end where every line has one.
    is_long: bool,
}

fn last_line(path: &Path) -> io::Result<(File, Last)> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let from = file.metadata()?.len().saturating_sub(2 * MAX_LINE);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    Read::by_ref(&mut file).take(2 * MAX_LINE).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else {
        let (is_long, read) = (from > 0, tail.len() as u64);
        let whole = if is_long { from + read } else { 0 };
        let line = is_long.then_some(tail);
        return Ok((file, Last { line, whole, is_torn: !is_long && read > 0, is_long }));
    };
    let is_torn = end + 1 < tail.len();
    let line = tail[..end].rsplit(|byte| *byte == b'\n').next().unwrap_or_default().to_vec();
    Ok((file, Last { line: Some(line), whole: from + end as u64 + 1, is_torn, is_long: false }))
}

fn why(cause: Cause) -> Why {
    match cause {
        Cause::Peer | Cause::Time => Why::Holder,
        Cause::Operator => Why::Operator,
        Cause::Key => Why::Blocked,
        Cause::Secret => Why::Revoked,
        Cause::Elsewhere => Why::Elsewhere,
    }
}

fn time_text(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

#[cfg(test)]
mod tests;
