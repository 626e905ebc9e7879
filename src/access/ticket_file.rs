//! The tickets of a scraper on the disk: one JSON file in its data directory, for its owner alone.
//!
//! The file is replaced as a whole and synced before a ticket is printed or used for the first time, so that no crash forgets
//! a ticket, its end, or who joined by it.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{AliasGlob, Scope, secrets::Issued};
use crate::{
    atomic_file,
    identity::{PublicKey, SharedSecret},
    private_file::{self, ExposedFile},
    small_file,
    wire::Labels,
};

/// The file's name in the data directory.
pub(crate) const TICKET_FILE: &str = "tickets.json";
/// Most bytes: ten thousand tickets with a hundred keys each.
const MAX_LEN: u64 = 64 << 20;
/// The version of the format.
const VERSION: u32 = 1;

/// Why the tickets could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TicketFileError {
    /// The operating system's error.
    #[error("cannot read the tickets in {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system reports.
        source: io::Error,
    },
    /// Others could read the secrets.
    #[error(transparent)]
    Exposed(#[from] ExposedFile),
    /// Something else, or of a later version.
    #[error("{} holds no tickets that this narthex reads: {why}; put it aside to start without them", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The place, without its text.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Contents {
    version: u32,
    tickets: Vec<Stored>,
}

/// A ticket on the disk; times are seconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    name: String,
    secret: Zeroizing<String>,
    aliases: Vec<AliasGlob>,
    labels: BTreeMap<String, String>,
    max_aliases: Option<usize>,
    created_at: u64,
    expires_at: Option<u64>,
    uses: Option<u32>,
    keys: Vec<PublicKey>,
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

/// Reads the tickets; none if there is no file. Blocks.
pub(super) fn read(path: &Path) -> Result<Vec<Issued>, TicketFileError> {
    let (bytes, metadata) = match small_file::read(path, MAX_LEN) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(|source| TicketFileError::Io { path: path.to_owned(), source })?,
    };
    private_file::check(path, &metadata)?;
    let unread = |why: String| TicketFileError::Content { path: path.to_owned(), why };
    let at = |error: serde_json::Error| unread(format!("line {} column {}", error.line(), error.column()));
    let contents: Contents = serde_json::from_slice(&bytes).map_err(at)?;
    if contents.version != VERSION {
        return Err(unread(format!("it is of version {}", contents.version)));
    }
    let issued = contents.tickets.into_iter().map(|stored| {
        let name = stored.name.clone();
        Issued::try_from(stored).map_err(|what| unread(format!("ticket {name:?} has a bad {what}")))
    });
    issued.collect()
}

/// Replaces the file. Blocks until it is synced.
pub(super) fn write<'a>(path: &Path, tickets: impl Iterator<Item = &'a Issued>) -> io::Result<()> {
    let contents = Contents { version: VERSION, tickets: tickets.map(Stored::from).collect() };
    let mut bytes = Zeroizing::new(serde_json::to_vec_pretty(&contents)?);
    bytes.push(b'\n');
    if bytes.len() as u64 > MAX_LEN {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    atomic_file::replace(path, &bytes, atomic_file::PRIVATE)
}

impl From<&Issued> for Stored {
    fn from(issued: &Issued) -> Self {
        Self {
            name: issued.name.clone(),
            secret: issued.secret.expose_text(),
            aliases: issued.scope.aliases.clone(),
            labels: labels(&issued.scope),
            max_aliases: issued.scope.max_aliases,
            created_at: seconds(issued.created_at),
            expires_at: issued.expires_at.map(seconds),
            uses: issued.uses,
            keys: issued.keys.iter().copied().collect(),
        }
    }
}

impl TryFrom<Stored> for Issued {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, &'static str> {
        let secret: SharedSecret = stored.secret.parse().map_err(|_| "secret")?;
        let mut labels = Labels::default();
        for (name, value) in stored.labels {
            labels.insert(name, value).map_err(|_| "label")?;
        }
        let scope = Scope { aliases: stored.aliases, labels, max_aliases: stored.max_aliases };
        let time = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or("time");
        Ok(Self {
            name: stored.name,
            secret,
            scope: scope.into(),
            created_at: time(stored.created_at)?,
            expires_at: stored.expires_at.map(time).transpose()?,
            uses: stored.uses,
            keys: stored.keys.into_iter().collect(),
        })
    }
}

impl From<&Issued> for IssuedTicket {
    fn from(issued: &Issued) -> Self {
        let time = |at| humantime::format_rfc3339_seconds(at).to_string();
        Self {
            name: issued.name.clone(),
            secret: issued.secret.id().to_string(),
            aliases: issued.scope.aliases.clone(),
            labels: labels(&issued.scope),
            max_aliases: issued.scope.max_aliases,
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
