//! The tickets of a scraper on the disk: a file for each in one directory, for its owner alone.
//!
//! `NAME.ticket` begins with a line of JSON, which is written once. A line with a key follows for each client that joined, where
//! that matters: a first use costs one line, however many there were. Both are synced before a ticket is printed, and before a
//! use counts, so that no crash forgets a ticket, its end, or who joined by it. A last line without an end was never
//! acknowledged, and is cut off.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{AliasGlob, Quota, Scope, SecretName, UnfitSecrets, secrets::Issued};
use crate::{
    atomic_file,
    identity::{PublicKey, SharedSecret},
    private_file::{self, ExposedFile},
    small_file,
    wire::Labels,
};

/// The directory's name in the data directory.
pub(super) const TICKET_DIR: &str = "tickets";
/// How the name of a ticket's file ends.
const SUFFIX: &str = ".ticket";
/// Most bytes of a file: a hundred thousand keys and more.
const MAX_LEN: u64 = 16 << 20;
/// More bytes than a line with a key has.
const LINE: u64 = 128;
/// The version of the format.
const VERSION: u32 = 1;

/// Why the tickets could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TicketFileError {
    /// The operating system's error.
    #[error("cannot read the tickets in {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system reports.
        source: io::Error,
    },
    /// The file of the ids of all secrets.
    #[error("cannot read {}", path.display())]
    Ids {
        /// The file.
        path: PathBuf,
        /// What the operating system reports.
        source: io::Error,
    },
    /// A ticket that cannot be beside a secret from a file.
    #[error(transparent)]
    Unfit(#[from] UnfitSecrets),
    /// Others could read the secrets.
    #[error(transparent)]
    Exposed(#[from] ExposedFile),
    /// A ticket of a later narthex.
    #[error("{} is a ticket of version {version}: run the narthex that made it, or a later one", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in it.
        version: u32,
    },
    /// Something else.
    #[error("{} holds no ticket that narthex reads: {why}; put this file aside to start without that ticket", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The place, without its text.
        why: String,
    },
}

/// What every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The first line; times are seconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    secret: Zeroizing<String>,
    aliases: Vec<AliasGlob>,
    labels: BTreeMap<String, String>,
    max_aliases: Option<usize>,
    created_at: u64,
    expires_at: Option<u64>,
    uses: Option<u32>,
}

/// What may be shown of a ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IssuedTicket {
    pub(crate) name: String,
    /// The id of its secret, as logs and the API name secrets.
    pub(crate) secret: String,
    pub(crate) aliases: Vec<AliasGlob>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) max_aliases: Option<usize>,
    /// RFC 3339, as the next.
    pub(crate) created_at: String,
    /// Until when a key may use it for the first time.
    pub(crate) expires_at: Option<String>,
    /// How many keys may use it.
    pub(crate) uses: Option<u32>,
    /// Those that have. Not counted for a ticket that anybody may use at any time.
    pub(crate) keys: Vec<PublicKey>,
}

/// The directory of the tickets.
#[derive(Clone, Debug)]
pub(super) struct TicketFiles(pub(super) PathBuf);

impl TicketFiles {
    /// Reads the tickets; none if there is no directory. Blocks.
    pub(super) fn read(&self) -> Result<Vec<Issued>, TicketFileError> {
        let failed = |source| TicketFileError::Io { path: self.0.clone(), source };
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let (mut tickets, mut secrets) = (Vec::new(), BTreeSet::new());
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(SUFFIX));
            // Files being written begin with a dot, which a ticket's name may too.
            let Some(Ok(name)) = name.map(str::parse::<SecretName>) else { continue };
            let issued = read(&path, name)?;
            if !secrets.insert(issued.secret.id()) {
                let why = "its secret is that of another ticket".to_owned();
                return Err(TicketFileError::Content { path, why });
            }
            tickets.push(issued);
        }
        Ok(tickets)
    }

    /// Writes a new ticket. Blocks until it is synced.
    pub(super) fn create(&self, ticket: &Issued) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut line = Zeroizing::new(serde_json::to_vec(&Stored::from(ticket))?);
        line.push(b'\n');
        atomic_file::create(&self.file(&ticket.name), &line, atomic_file::PRIVATE)
    }

    /// Writes that a key has used the ticket. Blocks until it is synced.
    pub(super) fn add_key(&self, name: &SecretName, key: &PublicKey) -> io::Result<()> {
        let mut file = File::options().read(true).write(true).open(self.file(name))?;
        let whole = cut_torn_line(&mut file)?;
        file.seek(SeekFrom::Start(whole))?;
        file.write_all(format!("{key}\n").as_bytes())?;
        file.sync_data()
    }

    /// Removes a ticket; false if there is none. Blocks until that is synced.
    pub(super) fn remove(&self, name: &SecretName) -> io::Result<bool> {
        match fs::remove_file(self.file(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            removed => removed?,
        }
        File::open(&self.0)?.sync_all().map(|()| true)
    }

    fn file(&self, name: &SecretName) -> PathBuf {
        self.0.join(format!("{name}{SUFFIX}"))
    }
}

/// Cuts off what a crash or a full disk left of a line; the bytes that remain.
fn cut_torn_line(file: &mut File) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let from = len.saturating_sub(LINE);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    Read::take(&mut *file, LINE).read_to_end(&mut tail)?;
    match tail.iter().rposition(|byte| *byte == b'\n') {
        Some(at) if from + at as u64 + 1 == len => Ok(len),
        Some(at) => file.set_len(from + at as u64 + 1).map(|()| from + at as u64 + 1),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn read(path: &Path, name: SecretName) -> Result<Issued, TicketFileError> {
    let failed = |source| TicketFileError::Io { path: path.to_owned(), source };
    let (bytes, metadata) = small_file::read(path, MAX_LEN).map_err(failed)?;
    private_file::check(path, &metadata)?;
    let unread = |why: String| TicketFileError::Content { path: path.to_owned(), why };
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let first = lines.next().ok_or_else(|| unread("its first line is not whole".to_owned()))?;
    let at = |error: serde_json::Error| unread(format!("line 1 column {}", error.column()));
    let Versioned { version } = serde_json::from_slice(first).map_err(at)?;
    if version != VERSION {
        return Err(TicketFileError::Version { path: path.to_owned(), version });
    }
    let stored: Stored = serde_json::from_slice(first).map_err(at)?;
    let mut issued = stored.issued(name).map_err(|what| unread(format!("it has a bad {what}")))?;
    for (number, line) in lines.enumerate() {
        let key = std::str::from_utf8(line).ok().and_then(|line| line.trim_end().parse().ok());
        issued.keys.insert(key.ok_or_else(|| unread(format!("line {} is no key", number + 2)))?);
    }
    Ok(issued)
}

impl From<&Issued> for Stored {
    fn from(issued: &Issued) -> Self {
        Self {
            version: VERSION,
            secret: issued.secret.expose_text(),
            aliases: issued.scope.aliases.clone(),
            labels: labels(&issued.scope),
            max_aliases: issued.scope.quota.max_aliases,
            created_at: seconds(issued.created_at),
            expires_at: issued.expires_at.map(seconds),
            uses: issued.uses,
        }
    }
}

impl Stored {
    /// The ticket, without those who joined; an error names the field that is no good.
    fn issued(self, name: SecretName) -> Result<Issued, &'static str> {
        let stored = self;
        let secret: SharedSecret = stored.secret.parse().map_err(|_| "secret")?;
        let mut labels = Labels::default();
        for (name, value) in stored.labels {
            labels.insert(name, value).map_err(|_| "label")?;
        }
        let scope = Scope {
            aliases: stored.aliases,
            labels,
            quota: Quota { max_aliases: stored.max_aliases, ..Quota::default() },
            ..Scope::default()
        };
        let time = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or("time");
        Ok(Issued {
            name,
            secret,
            scope: scope.into(),
            created_at: time(stored.created_at)?,
            expires_at: stored.expires_at.map(time).transpose()?,
            uses: stored.uses,
            keys: BTreeSet::new(),
        })
    }
}

impl From<&Issued> for IssuedTicket {
    fn from(issued: &Issued) -> Self {
        let time = |at| humantime::format_rfc3339_seconds(at).to_string();
        Self {
            name: issued.name.to_string(),
            secret: issued.secret.id().to_string(),
            aliases: issued.scope.aliases.clone(),
            labels: labels(&issued.scope),
            max_aliases: issued.scope.quota.max_aliases,
            created_at: time(issued.created_at),
            expires_at: issued.expires_at.map(time),
            uses: issued.uses,
            keys: issued.keys.iter().copied().collect(),
        }
    }
}

fn labels(scope: &Scope) -> BTreeMap<String, String> {
    scope.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
