//! The secrets of a scraper, by their ids: those from files, which are replaced as a whole, and those of tickets, which come and
//! go one by one.
//!
//! A ticket may end, and may be for some keys only: both bound who may *join*. A key that has used
//! the ticket in time may go on using it until the ticket is revoked, so each first use is written down before it counts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::Path,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::SystemTime,
};

use tokio::{sync::Mutex, task};

use super::{
    IssuedTicket, NamedSecret, Scope, SecretName, SecretNameError, TicketFileError,
    secret_ids::SecretIds,
    ticket_files::{TICKET_DIR, TicketFiles},
};
use crate::identity::{PublicKey, SecretId, SharedSecret};

/// Most tickets at once.
const MAX_TICKETS: usize = 10_000;
/// Most keys that one ticket is used with, where they are noted.
pub(crate) const MAX_KEYS: usize = 100_000;

/// Every secret that a client may prove. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Secrets(Arc<Shared>);

struct Shared {
    fixed: RwLock<Fixed>,
    files: TicketFiles,
    tickets: RwLock<Tickets>,
    ids: SecretIds,
    /// Those that were ours before.
    former: RwLock<BTreeSet<SecretId>>,
    /// Held while the files are written.
    writing: Mutex<()>,
}

/// The secrets from files.
type Fixed = HashMap<SecretId, Arc<FixedSecret>>;

struct FixedSecret {
    given: NamedSecret,
    scope: Arc<Scope>,
}

/// The tickets by the ids of their secrets.
type Tickets = BTreeMap<SecretId, Issued>;

/// A ticket as its scraper knows it.
#[derive(Clone)]
pub(super) struct Issued {
    pub(super) name: SecretName,
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
    pub(crate) name: SecretName,
    pub(crate) scope: Scope,
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) uses: Option<u32>,
}

impl Grant {
    /// Everything, for everybody, for ever.
    pub(crate) fn of_everything(name: SecretName) -> Self {
        Self { name, scope: Scope::default(), expires_at: None, uses: None }
    }
}

/// Why a client may not use a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The secret is none of ours, or not any more.
    #[error("its shared secret is none of ours")]
    Unknown,
    /// The secret's time has not come.
    #[error("its shared secret may not be used yet")]
    NotYet,
    /// The secret's time is over, or the ticket's time to join.
    #[error("its ticket or shared secret has expired")]
    Expired,
    /// As many other keys as may have used the ticket.
    #[error("its ticket was used by as many other keys as may use it")]
    UsedUp,
    /// The first use could not be written down.
    #[error("its first use of a ticket cannot be written to the disk")]
    Unwritten,
    /// The peer file says so.
    #[error("its key may not register")]
    BlockedKey,
}

/// Why there is no new ticket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// A name that could not be shown or typed.
    #[error(transparent)]
    Name(#[from] SecretNameError),
    /// The name is another ticket's, or another secret's.
    #[error("there is a ticket or a secret of that name: revoke it first, or give another name")]
    Exists,
    /// As many as a scraper keeps.
    #[error("there are {MAX_TICKETS} tickets already: revoke some first")]
    TooMany,
    /// The scraper has no address, and no node by which it is found.
    #[error("nobody could find this scraper: give an address, or the scraper a bootstrap node")]
    Nowhere,
    /// With so many places, or such long ones, nobody would take it.
    #[error("the ticket would be longer than 16 KiB: name fewer addresses and keys")]
    TooLong,
    /// It could not be written down.
    #[error("cannot write the tickets to the disk")]
    Io(#[from] io::Error),
}

/// Why secrets from files are not taken in the place of those before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnfitSecrets {
    /// Users of the HTTP side see targets by the names of secrets.
    #[error("a ticket and a secret from a file have the name {0}: give the secret another one, or revoke the ticket")]
    Name(SecretName),
}

impl Secrets {
    /// The secrets from files, and the tickets in the data directory. Blocks.
    ///
    /// # Errors
    /// [`TicketFileError`] for a ticket that is there and cannot be read as a whole.
    pub(crate) fn open(given: Vec<NamedSecret>, data_dir: &Path) -> Result<Self, TicketFileError> {
        let (files, ids) = (TicketFiles(data_dir.join(TICKET_DIR)), SecretIds::below(data_dir));
        let tickets = files.read()?;
        let tickets: Tickets = tickets.into_iter().map(|issued| (issued.secret.id(), issued)).collect();
        let fixed = fixed(given);
        if let Some(name) = shared_name(&fixed, &tickets) {
            return Err(UnfitSecrets::Name(name).into());
        }
        let failed = |source| TicketFileError::Ids { path: ids.path().to_owned(), source };
        let before = ids.read().map_err(failed)?;
        let now: BTreeSet<_> = fixed.keys().chain(tickets.keys()).copied().collect();
        let former = before.difference(&now).copied().collect();
        if !now.is_subset(&before)
            && let Err(error) = ids.write(&now.union(&before).copied().collect())
        {
            // A full disk keeps no scraper from its start.
            tracing::error!(%error, file = %ids.path().display(), "cannot note new secrets");
        }
        Ok(Self(Arc::new(Shared {
            fixed: RwLock::new(fixed),
            files,
            tickets: RwLock::new(tickets),
            ids,
            former: RwLock::new(former),
            writing: Mutex::default(),
        })))
    }

    /// The secret that a client names, if this client might use it.
    pub(crate) fn find(&self, id: SecretId, peer: &PublicKey, now: SystemTime) -> Result<SharedSecret, Refused> {
        if let Some(fixed) = self.fixed(&id) {
            return fixed.given.is_open(now).map(|()| fixed.given.secret.clone());
        }
        let tickets = self.read();
        let issued = tickets.get(&id).ok_or(Refused::Unknown)?;
        issued.is_open_to(peer, now).map(|_| issued.secret.clone())
    }

    /// What the client, who has proved the secret, may do with it. Its first use of a ticket is on the disk then, also if the
    /// caller does not wait for it.
    pub(crate) async fn admit(&self, id: SecretId, peer: &PublicKey, now: SystemTime) -> Result<Arc<Scope>, Refused> {
        if let Some(fixed) = self.fixed(&id) {
            return fixed.given.is_open(now).map(|()| Arc::clone(&fixed.scope));
        }
        if let (scope, Use::Known) = self.used(id, peer, now)? {
            return Ok(scope);
        }
        let (this, peer) = (self.clone(), *peer);
        detached(async move { this.use_first(id, peer, now).await }).await.unwrap_or(Err(Refused::Unwritten))
    }

    async fn use_first(&self, id: SecretId, peer: PublicKey, now: SystemTime) -> Result<Arc<Scope>, Refused> {
        let _writing = self.0.writing.lock().await;
        let (scope, Use::First) = self.used(id, &peer, now)? else {
            return self.used(id, &peer, now).map(|used| used.0);
        };
        let name = self.name_of(&id).ok_or(Refused::Unknown)?;
        self.on_disk(move |files| files.add_key(&name, &peer)).await.map_err(|error| {
            tracing::error!(%error, directory = %self.0.files.0.display(), "cannot write the first use of a ticket");
            Refused::Unwritten
        })?;
        if let Some(issued) = self.write().get_mut(&id) {
            issued.keys.insert(peer);
        }
        Ok(scope)
    }

    fn used(&self, id: SecretId, peer: &PublicKey, now: SystemTime) -> Result<(Arc<Scope>, Use), Refused> {
        let tickets = self.read();
        let issued = tickets.get(&id).ok_or(Refused::Unknown)?;
        Ok((Arc::clone(&issued.scope), issued.is_open_to(peer, now)?))
    }

    /// What may be registered with this secret, by those who use it already. None if it may not be used any more, or is none
    /// of ours.
    pub(super) fn scope(&self, id: &SecretId, now: SystemTime) -> Option<Arc<Scope>> {
        match self.fixed(id) {
            Some(fixed) => fixed.given.is_open(now).ok().map(|()| Arc::clone(&fixed.scope)),
            None => self.read().get(id).map(|issued| Arc::clone(&issued.scope)),
        }
    }

    /// True if it is one of ours, or was one, whether or not its time has come.
    pub(super) fn was_known(&self, id: &SecretId) -> bool {
        self.fixed(id).is_some() || self.read().contains_key(id) || self.former().contains(id)
    }

    /// Forgets on the disk what was ours before: nothing is left of it.
    pub(crate) async fn forget_former(&self) -> io::Result<()> {
        let _writing = self.0.writing.lock().await;
        let fixed: BTreeSet<_> = self.read_fixed().keys().copied().collect();
        let now: BTreeSet<_> = fixed.into_iter().chain(self.read().keys().copied()).collect();
        let ids = self.0.ids.clone();
        blocking(move || if ids.read()? == now { Ok(()) } else { ids.write(&now) }).await
    }

    /// What the secret is called.
    pub(crate) fn name_of(&self, id: &SecretId) -> Option<SecretName> {
        let fixed = self.fixed(id).map(|fixed| fixed.given.name.clone());
        fixed.or_else(|| self.read().get(id).map(|issued| issued.name.clone()))
    }

    /// Puts these in the place of all secrets from files.
    pub(super) async fn replace(&self, given: Vec<NamedSecret>) -> Result<(), UnfitSecrets> {
        let _writing = self.0.writing.lock().await;
        let new = fixed(given);
        if let Some(name) = shared_name(&new, &self.read()) {
            return Err(UnfitSecrets::Name(name));
        }
        let before: BTreeSet<_> = self.read_fixed().keys().copied().collect();
        let now: BTreeSet<_> = new.keys().copied().collect();
        let (ids, added) = (self.0.ids.clone(), now.difference(&before).copied().collect::<BTreeSet<_>>());
        if !added.is_empty()
            && let Err(error) = blocking(move || ids.add(&added)).await
        {
            // A full disk must not keep a secret in force. What is registered with the new ones would outlive their end if that
            // comes while the scraper is down.
            tracing::error!(%error, file = %self.0.ids.path().display(), "cannot note new secrets");
        }
        *self.0.fixed.write().unwrap_or_else(PoisonError::into_inner) = new;
        let mut former = self.0.former.write().unwrap_or_else(PoisonError::into_inner);
        former.extend(before);
        former.retain(|id| !now.contains(id));
        Ok(())
    }

    /// The next instant at which a secret from a file begins or ends.
    pub(super) fn next_change(&self, now: SystemTime) -> Option<SystemTime> {
        let fixed = self.read_fixed();
        let times = fixed.values().flat_map(|fixed| [fixed.given.not_before, fixed.given.not_after]);
        times.flatten().filter(|at| *at > now).min()
    }

    fn fixed(&self, id: &SecretId) -> Option<Arc<FixedSecret>> {
        self.read_fixed().get(id).cloned()
    }

    /// Makes a ticket's secret. It is on the disk when this returns.
    pub(crate) async fn issue(&self, grant: Grant, now: SystemTime) -> Result<SharedSecret, IssueError> {
        let this = self.clone();
        detached(async move { this.issue_next(grant, now).await }).await?
    }

    async fn issue_next(&self, grant: Grant, now: SystemTime) -> Result<SharedSecret, IssueError> {
        let _writing = self.0.writing.lock().await;
        {
            let tickets = self.read();
            if tickets.values().any(|issued| issued.name == grant.name) || self.is_fixed(&grant.name) {
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
        let (on_disk, ids) = (issued.clone(), self.0.ids.clone());
        self.on_disk(move |files| ids.add(&[id].into()).and_then(|()| files.create(&on_disk))).await.map_err(
            |error| match error.kind() {
                io::ErrorKind::AlreadyExists => IssueError::Exists,
                _ => error.into(),
            },
        )?;
        self.write().insert(id, issued);
        Ok(secret)
    }

    /// Ends a ticket: nobody may use it from the first moment on. Then its file is removed, which may fail.
    pub(super) async fn revoke(&self, name: &SecretName) -> Revoked {
        let _writing = self.0.writing.lock().await;
        let id = {
            let mut tickets = self.write();
            let id = tickets.iter().find_map(|(id, issued)| (issued.name == *name).then_some(*id));
            id.inspect(|id| drop(tickets.remove(id)))
        };
        self.0.former.write().unwrap_or_else(PoisonError::into_inner).extend(id);
        let name = name.clone();
        Revoked { id, removed: self.on_disk(move |files| files.remove(&name)).await }
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

    /// Changes the files. The caller holds `writing`.
    async fn on_disk<T: Send + 'static>(
        &self,
        change: impl FnOnce(&TicketFiles) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let files = self.0.files.clone();
        blocking(move || change(&files)).await
    }

    fn is_fixed(&self, name: &SecretName) -> bool {
        self.read_fixed().values().any(|fixed| fixed.given.name == *name)
    }

    fn former(&self) -> RwLockReadGuard<'_, BTreeSet<SecretId>> {
        self.0.former.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_fixed(&self) -> RwLockReadGuard<'_, Fixed> {
        self.0.fixed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tickets> {
        self.0.tickets.write().unwrap_or_else(PoisonError::into_inner)
    }

    // A change is one step, so what is behind a poisoned lock is whole.
    fn read(&self) -> RwLockReadGuard<'_, Tickets> {
        self.0.tickets.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a ticket that was to end.
pub(super) struct Revoked {
    /// The id of its secret, if there was such a ticket.
    pub(super) id: Option<SecretId>,
    /// Whether there was a file of it.
    pub(super) removed: io::Result<bool>,
}

/// Goes on to its end, also if the caller goes away: what is half done on the disk and in memory would not agree.
pub(crate) async fn detached<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
    tokio::spawn(work).await.map_err(io::Error::other)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn fixed(given: Vec<NamedSecret>) -> Fixed {
    let mut named: HashMap<SecretName, Vec<SecretId>> = HashMap::new();
    for secret in &given {
        named.entry(secret.name.clone()).or_default().push(secret.secret.id());
    }
    let fixed = |given: NamedSecret| {
        let several = named.get(&given.name).filter(|ids| ids.len() > 1);
        let kin = several.map_or_else(Arc::default, |ids| Arc::from(&**ids));
        FixedSecret { scope: Arc::new(Scope { kin, ..given.scope.clone() }), given }
    };
    given.into_iter().map(|given| (given.secret.id(), Arc::new(fixed(given)))).collect()
}

/// A name of both a secret and a ticket.
fn shared_name(fixed: &Fixed, tickets: &Tickets) -> Option<SecretName> {
    let is_fixed = |name: &SecretName| fixed.values().any(|fixed| fixed.given.name == *name);
    tickets.values().map(|issued| &issued.name).find(|name| is_fixed(name)).cloned()
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
