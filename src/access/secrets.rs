//! The secrets of a scraper, by their ids: those from files, which stay as they are, and those of tickets, which come and go.
//!
//! A ticket may end, and may be for some keys only: both bound who may *join*. A key that has used
//! the ticket in time may go on using it until the ticket is revoked, so each first use is written down before it counts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::SystemTime,
};

use tokio::{sync::Mutex, task};

use super::{IssuedTicket, Scope, TicketFileError, ticket_file};
use crate::identity::{PublicKey, SecretId, SharedSecret};

/// Most tickets at once.
const MAX_TICKETS: usize = 10_000;
/// Most keys that one ticket is used with, where they are counted.
const MAX_KEYS: usize = 10_000;
/// Most characters of a ticket's name.
const MAX_NAME: usize = 64;

/// Every secret that a client may prove. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Secrets(Arc<Shared>);

struct Shared {
    fixed: HashMap<SecretId, SharedSecret>,
    file: PathBuf,
    tickets: RwLock<Tickets>,
    /// Held while the file is written.
    writing: Mutex<()>,
}

/// The tickets by the ids of their secrets.
type Tickets = BTreeMap<SecretId, Issued>;

/// A ticket as its scraper knows it.
#[derive(Clone)]
pub(super) struct Issued {
    pub(super) name: String,
    pub(super) secret: SharedSecret,
    pub(super) scope: Arc<Scope>,
    pub(super) created_at: SystemTime,
    /// Until when a key may use it for the first time.
    pub(super) expires_at: Option<SystemTime>,
    /// How many keys may use it.
    pub(super) uses: Option<u32>,
    /// Those that have, if that matters.
    pub(super) keys: BTreeSet<PublicKey>,
}

/// What a new ticket grants.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) name: String,
    pub(crate) scope: Scope,
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) uses: Option<u32>,
}

impl Grant {
    /// Everything, for everybody, for ever.
    pub(crate) fn of_everything(name: &str) -> Self {
        Self { name: name.to_owned(), scope: Scope::default(), expires_at: None, uses: None }
    }
}

/// Why a client may not use a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The secret is none of ours, or not any more.
    #[error("its shared secret is none of ours")]
    Unknown,
    /// The ticket's time to join is over.
    #[error("its ticket has expired")]
    Expired,
    /// As many other keys as may have used the ticket.
    #[error("its ticket was used by another key already")]
    UsedUp,
    /// The first use could not be written down.
    #[error("its first use of a ticket cannot be written to the disk")]
    Unwritten,
}

/// Why there is no new ticket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// A name that could not be shown or typed.
    #[error("a ticket's name is 1 to 64 of A-Z a-z 0-9 . _ -")]
    Name,
    /// The name is another ticket's.
    #[error("there is a ticket of that name: revoke it first, or give another name")]
    Exists,
    /// As many as a scraper keeps.
    #[error("there are {MAX_TICKETS} tickets already: revoke some first")]
    TooMany,
    /// The scraper has no address, and no node by which it is found.
    #[error("nobody could find this scraper: give an address, or the scraper a bootstrap node")]
    Nowhere,
    /// It could not be written down.
    #[error("cannot write the tickets to the disk")]
    Io(#[from] io::Error),
}

impl Secrets {
    /// The secrets from files, and the tickets in `file`. Blocks.
    ///
    /// # Errors
    /// [`TicketFileError`] for a file that is there and cannot be read as a whole.
    pub(crate) fn open(fixed: Vec<SharedSecret>, file: PathBuf) -> Result<Self, TicketFileError> {
        let tickets = ticket_file::read(&file)?;
        let tickets = tickets.into_iter().map(|issued| (issued.secret.id(), issued)).collect();
        Ok(Self(Arc::new(Shared {
            fixed: fixed.into_iter().map(|secret| (secret.id(), secret)).collect(),
            file,
            tickets: RwLock::new(tickets),
            writing: Mutex::default(),
        })))
    }

    /// The secret that a client names, if this client might use it.
    pub(crate) fn find(&self, id: SecretId, peer: &PublicKey, now: SystemTime) -> Result<SharedSecret, Refused> {
        if let Some(secret) = self.0.fixed.get(&id) {
            return Ok(secret.clone());
        }
        let tickets = self.read();
        let issued = tickets.get(&id).ok_or(Refused::Unknown)?;
        issued.is_open_to(peer, now).map(|_| issued.secret.clone())
    }

    /// What the client, who has proved the secret, may do with it. Its first use of a ticket is on the disk then.
    pub(crate) async fn admit(&self, id: SecretId, peer: &PublicKey, now: SystemTime) -> Result<Arc<Scope>, Refused> {
        if self.0.fixed.contains_key(&id) {
            return Ok(Arc::default());
        }
        let known = || {
            let tickets = self.read();
            let issued = tickets.get(&id).ok_or(Refused::Unknown)?;
            Ok((Arc::clone(&issued.scope), issued.is_open_to(peer, now)?))
        };
        if let (scope, Use::Known) = known()? {
            return Ok(scope);
        }
        let writing = self.0.writing.lock().await;
        let (scope, first) = known()?; // others may have come meanwhile
        if first == Use::First {
            let add = |tickets: &mut Tickets| tickets.get_mut(&id).is_some_and(|issued| issued.keys.insert(*peer));
            self.change(add).await.map_err(|error| {
                tracing::error!(%error, file = %self.0.file.display(), "cannot write the tickets");
                Refused::Unwritten
            })?;
        }
        drop(writing);
        Ok(scope)
    }

    /// The name of a secret, if it has one.
    pub(crate) fn name_of(&self, id: &SecretId) -> Option<Arc<str>> {
        self.read().get(id).map(|issued| Arc::from(issued.name.as_str()))
    }

    /// True if clients may still prove this secret.
    pub(crate) fn is_known(&self, id: &SecretId) -> bool {
        self.0.fixed.contains_key(id) || self.read().contains_key(id)
    }

    /// Makes a ticket's secret. It is on the disk when this returns.
    pub(crate) async fn issue(&self, grant: Grant, now: SystemTime) -> Result<SharedSecret, IssueError> {
        let is_fit = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        if !(1..=MAX_NAME).contains(&grant.name.len()) || !grant.name.bytes().all(is_fit) {
            return Err(IssueError::Name);
        }
        let _writing = self.0.writing.lock().await;
        {
            let tickets = self.read();
            if tickets.values().any(|issued| issued.name == grant.name) {
                return Err(IssueError::Exists);
            }
            if tickets.len() >= MAX_TICKETS {
                return Err(IssueError::TooMany);
            }
        }
        let Grant { name, scope, expires_at, uses } = grant;
        let secret = SharedSecret::generate();
        let (id, scope, keys) = (secret.id(), Arc::new(scope), BTreeSet::new());
        let issued = Issued { name, secret: secret.clone(), scope, created_at: now, expires_at, uses, keys };
        self.change(|tickets| tickets.insert(id, issued.clone())).await?;
        Ok(secret)
    }

    /// Ends a ticket; the id of its secret, which is unknown from now on. None if there is no ticket of that name.
    pub(crate) async fn revoke(&self, name: &str) -> io::Result<Option<SecretId>> {
        let _writing = self.0.writing.lock().await;
        let named = |(id, issued): (&SecretId, &Issued)| (issued.name == name).then_some(*id);
        let found = self.read().iter().find_map(named);
        if let Some(id) = found {
            self.change(|tickets| tickets.remove(&id)).await?;
        }
        Ok(found)
    }

    /// How many tickets there are.
    pub(crate) fn tickets(&self) -> usize {
        self.read().len()
    }

    /// The tickets, in the order of their names.
    pub(crate) fn issued(&self) -> Vec<IssuedTicket> {
        let mut issued: Vec<IssuedTicket> = self.read().values().map(IssuedTicket::from).collect();
        issued.sort_by(|a, b| a.name.cmp(&b.name));
        issued
    }

    /// Changes the file and then what is known; nothing if the file cannot be written. The caller holds `writing`.
    async fn change<T>(&self, change: impl FnOnce(&mut Tickets) -> T) -> io::Result<()> {
        let mut changed = self.read().clone();
        change(&mut changed);
        let (file, to_write) = (self.0.file.clone(), changed.clone());
        task::spawn_blocking(move || ticket_file::write(&file, to_write.values()))
            .await
            .map_err(io::Error::other)??;
        *self.0.tickets.write().unwrap_or_else(PoisonError::into_inner) = changed;
        Ok(())
    }

    // A change is one assignment, so what is behind a poisoned lock is whole.
    fn read(&self) -> RwLockReadGuard<'_, Tickets> {
        self.0.tickets.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a use of a ticket is to be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Known,
    First,
}

impl Issued {
    fn is_open_to(&self, peer: &PublicKey, now: SystemTime) -> Result<Use, Refused> {
        let is_counted = self.uses.is_some() || self.expires_at.is_some();
        if !is_counted || self.keys.contains(peer) {
            return Ok(Use::Known);
        }
        if self.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(Refused::Expired);
        }
        let most = self.uses.map_or(MAX_KEYS, |uses| usize::try_from(uses).unwrap_or(MAX_KEYS).min(MAX_KEYS));
        if self.keys.len() >= most { Err(Refused::UsedUp) } else { Ok(Use::First) }
    }
}

#[cfg(test)]
mod tests;
