//! The handle to the table, for the rest of a scraper.

mod adopt;
mod run;
mod step;

use std::{
    collections::BTreeSet,
    fmt, mem,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime},
};

use tokio::sync::{Semaphore, broadcast, mpsc, watch};

use super::{
    Beacon, BeaconName, Cause, Contents, Counts, Journal, Kept, Lease, Name, NotLoaded, Presence, Registrant,
    RegistryConfig, RegistryError, RegistryEvent, Totals,
    event_log::EventLog,
    health::Health,
    shared::Position,
    table::{Claims, Table},
    wall_clock::WallClock,
    writer::Batch,
};
use crate::{
    access::{Scope, SecretName},
    identity::{PublicKey, SecretId},
    telemetry::{Limit, Refusals},
    wire::{Alias, AliasStatus, Register, Registered},
};

/// Registrations in the writer's queue. Further ones wait, so that peers cannot make the queue grow.
const QUEUE: usize = 1024;

/// Events kept for a slow subscriber.
const EVENTS: usize = 1024;

/// The alias table of a scraper. Cheap to clone.
///
/// Until [`run`](Self::run) has read the store, all requests end with [`NotLoaded`] or [`RegistryError::NotReady`].
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    shared: Arc<Shared>,
}

/// The name of a secret, if it is known.
type NameOf = dyn Fn(&SecretId) -> Option<SecretName> + Send + Sync;

struct Shared {
    config: RegistryConfig,
    clock: WallClock,
    refusals: Arc<Refusals>,
    state: RwLock<State>,
    /// Free slots of the writer's queue. The sweep needs none: it queues no more than the table holds.
    slots: Arc<Semaphore>,
    health: Arc<Health>,
    changes: watch::Sender<u64>,
    events: broadcast::Sender<RegistryEvent>,
    name_of: OnceLock<Box<NameOf>>,
    log: EventLog,
    /// Until the writer has it.
    journal: Mutex<Option<Box<dyn Journal>>>,
    is_journaled: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).field("health", &self.health).finish_non_exhaustive()
    }
}

/// The table and the writer's queue are under one lock, so that both see changes in one order. The lock is never held
/// over an await.
#[derive(Debug, Default)]
struct State {
    table: Option<Table>,
    phase: Phase,
    generation: u64,
    totals: Totals,
    /// Set after damage of the store, until its losses are made up for.
    recovery: Option<Recovery>,
    /// How far the table is in the changes of a shared store.
    position: Position,
}

/// What the table waits for after damage of the store.
#[derive(Debug)]
struct Recovery {
    /// What there was, and is not there again or in doubt: without one the table may be listed. `None` if nobody knows.
    awaited: Option<BTreeSet<Name>>,
    /// When clients had the time to register again. Whatever is in doubt is dropped then.
    until: Instant,
}

impl Recovery {
    fn is_complete(&self) -> bool {
        self.awaited.as_ref().is_some_and(BTreeSet::is_empty)
    }
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    New,
    Loading,
    Serving(mpsc::UnboundedSender<Batch>),
    Stopped,
}

/// Everything in the table at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The table's generation. [`Registry::changes`] may report it a moment later.
    pub(crate) generation: u64,
    /// The leases in the order of their aliases, the beacons in that of their kinds and keys.
    pub(crate) contents: Contents,
}

impl Registry {
    /// Creates a registry that has not loaded its table. What its limits refuse is counted in `refusals`.
    pub(crate) fn new(config: RegistryConfig, refusals: Arc<Refusals>) -> Self {
        Self::with_clock(config, refusals, WallClock::default())
    }

    fn with_clock(config: RegistryConfig, refusals: Arc<Refusals>, clock: WallClock) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                clock,
                refusals,
                state: RwLock::default(),
                slots: Arc::new(Semaphore::new(QUEUE)),
                health: Arc::default(),
                changes: watch::Sender::new(0),
                events: broadcast::Sender::new(EVENTS),
                name_of: OnceLock::new(),
                log: EventLog::new(),
                journal: Mutex::default(),
                is_journaled: AtomicBool::new(false),
            }),
        }
    }

    /// Has the log name the addresses of peers, which `address_of` knows.
    pub(crate) fn locate_by(&self, address_of: impl Fn(&PublicKey) -> Option<String> + Send + Sync + 'static) {
        self.shared.log.locate_by(Box::new(address_of));
    }

    /// Has the journal written from the load on: before [`run`](Self::run).
    pub(crate) fn journal_in(&self, journal: Box<dyn Journal>) {
        *self.shared.journal.lock().unwrap_or_else(PoisonError::into_inner) = Some(journal);
        self.shared.is_journaled.store(true, Ordering::Release);
    }

    /// Has the list and the log name secrets, as `name_of` does.
    pub(crate) fn name_secrets_by(&self, name_of: impl Fn(&SecretId) -> Option<SecretName> + Send + Sync + 'static) {
        let _ = self.shared.name_of.set(Box::new(name_of));
    }

    /// What the secret is called that a lease was registered with, if that is known here.
    pub(crate) fn secret_name(&self, lease: &Lease) -> Option<SecretName> {
        self.shared.name_of.get().and_then(|name_of| name_of(lease.secret.as_ref()?))
    }

    /// Has the list made anew, as names of secrets have changed.
    pub(crate) fn names_have_changed(&self) {
        let mut state = self.write();
        if state.table.is_some() {
            state.generation += 1;
            let generation = state.generation;
            drop(state);
            self.shared.changes.send_if_modified(|known| mem::replace(known, generation.max(*known)) < generation);
        }
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.read().table.is_some()
    }

    /// True once the table was loaded and may be listed. After damage of the store, the aliases that were noted must be there
    /// again first, or clients have had the time to register again ([`RegistryConfig::start_grace`]). A shared store must
    /// have been reached lately ([`RegistryConfig::max_stale`]).
    pub(crate) fn is_complete(&self) -> bool {
        let state = self.read();
        state.table.is_some() && !self.is_stale() && state.recovery.as_ref().is_none_or(Recovery::is_complete)
    }

    /// True if other scrapers share the store.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.config.max_stale.is_some()
    }

    /// True if a shared store was last reached so long ago that the table says nothing any more.
    pub(crate) fn is_stale(&self) -> bool {
        let is_old = |most| self.shared.health.age(SystemTime::now()) > most;
        self.shared.config.max_stale.is_some_and(is_old)
    }

    /// True while the last write to the store failed, or hangs. The list may then contain more than the store.
    pub(crate) fn store_failing(&self) -> bool {
        self.shared.health.is_failing()
    }

    /// Registers the whole set of a peer's targets: grants or refuses each claim by itself, and releases the aliases
    /// that the peer held and was not granted again. Returns once all changes are on disk. A plain renewal does not
    /// wait for its write, and is granted while the store fails. Dropping the future undoes nothing.
    ///
    /// `presence` returns whether a peer has a link. It is called under the table's lock, so it must be
    /// quick and must not call the registry. What is not within the `scope` is refused. An error acknowledges nothing; its answer is [`RegistryError::reply`].
    pub(crate) async fn register(
        &self,
        by: &Registrant,
        register: &Register,
        scope: &Scope,
        presence: impl Fn(&PublicKey) -> Presence,
        now: SystemTime,
    ) -> Result<Registered, RegistryError> {
        let config = &self.shared.config;
        self.check_count(register.claims.len(), &by.peer)?;
        let claims = Claims::check(&by.peer, register, scope)?;
        let lease_ms = u64::try_from(config.lease.as_millis()).unwrap_or(u64::MAX);
        let outcomes = match self.store_failing() {
            true => self.renew(by.peer, claims, now)?,
            false => self.change(Cause::Peer, |table| table.register(by, claims.clone(), &presence, now)).await?,
        };
        Ok(Registered { lease_ms, outcomes })
    }

    /// The status of aliases for a peer that would claim them. Changes nothing. `presence` is as for
    /// [`register`](Self::register).
    pub(crate) fn alias_statuses(
        &self,
        peer: &PublicKey,
        aliases: &[String],
        presence: impl Fn(&PublicKey) -> Presence,
        now: SystemTime,
    ) -> Result<Vec<AliasStatus>, RegistryError> {
        self.check_count(aliases.len(), peer)?;
        let state = self.read();
        let table = state.table.as_ref().ok_or(RegistryError::NotReady)?;
        Ok(aliases.iter().map(|alias| table.status(alias, &presence, now)).collect())
    }

    /// Releases every alias of the peer, and returns how many there were. Returns once the change is on disk.
    pub(crate) async fn release_peer(&self, peer: PublicKey, now: SystemTime) -> Result<usize, RegistryError> {
        self.change(Cause::Peer, |table| {
            let effects = table.release_peer(&peer, now);
            (effects.events.len(), effects)
        })
        .await
    }

    /// Releases every alias whose lease is `meant`, and returns how many there were. Otherwise as [`release`](Self::release).
    /// `meant` is called under the table's lock.
    pub(crate) async fn release_all(
        &self,
        cause: Cause,
        meant: impl Fn(&Lease) -> bool,
    ) -> Result<usize, RegistryError> {
        self.change(cause, |table| {
            let effects = table.release_all(&meant);
            (effects.events.len(), effects)
        })
        .await
    }

    /// Releases an alias, whoever holds it; false if nobody does. Returns once the change is on disk. A holder that
    /// still runs registers the alias again at its next renewal.
    pub(crate) async fn release(&self, alias: &Alias) -> Result<bool, RegistryError> {
        self.change(Cause::Operator, |table| {
            let effects = table.release(alias);
            (!effects.events.is_empty(), effects)
        })
        .await
    }

    /// The lease of an alias, active or lapsed.
    pub(crate) fn lookup(&self, alias: &str) -> Result<Option<Arc<Lease>>, NotLoaded> {
        self.read().table.as_ref().map(|table| table.lookup(alias)).ok_or(NotLoaded)
    }

    /// True if the peer holds an alias, active or lapsed; false before the load.
    pub(crate) fn is_holder(&self, peer: &PublicKey) -> bool {
        self.read().table.as_ref().is_some_and(|table| table.is_holder(peer))
    }

    /// Since when the peer holds any alias.
    pub(crate) fn holder_since(&self, peer: &PublicKey) -> Option<SystemTime> {
        self.read().table.as_ref()?.holder_since(peer)
    }

    /// Every lease, lapsed ones included. Copies a pointer per lease: take one per change, not per request.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, NotLoaded> {
        let state = self.read();
        let table = state.table.as_ref().ok_or(NotLoaded)?;
        let contents = Contents { leases: table.certain_leases(), beacons: table.beacons() };
        Ok(Snapshot { generation: state.generation, contents })
    }

    /// Keeps a beacon, in place of the one of its name, unless it would exceed a limit. Returns once the change is on disk.
    pub(crate) async fn register_beacon(&self, beacon: Beacon) -> Result<Result<Kept, Limit>, RegistryError> {
        let name = beacon.name.clone();
        let kept = self.change(Cause::Peer, |table| table.register_beacon(beacon.clone())).await?;
        if let Err(limit) = kept {
            self.shared.refusals.count(limit, format_args!("beacon {name}"));
        }
        Ok(kept)
    }

    /// Forgets a beacon; false if there is none. Returns once the change is on disk.
    pub(crate) async fn unregister_beacon(&self, name: &BeaconName) -> Result<bool, RegistryError> {
        self.change(Cause::Peer, |table| table.unregister_beacon(name)).await
    }

    pub(crate) fn beacon(&self, name: &BeaconName) -> Result<Option<Arc<Beacon>>, NotLoaded> {
        self.read().table.as_ref().map(|table| table.beacon(name)).ok_or(NotLoaded)
    }

    /// The beacons of a kind, in the order of their keys; `None` if there was none since the load.
    pub(crate) fn beacons_of(&self, kind: &str) -> Result<Option<Vec<Arc<Beacon>>>, NotLoaded> {
        self.read().table.as_ref().map(|table| table.beacons_of(kind)).ok_or(NotLoaded)
    }

    /// Numbers of leases and peers, as of the last sweep; zeros before the load.
    pub(crate) fn counts(&self) -> Counts {
        self.read().table.as_ref().map(Table::counts).unwrap_or_default()
    }

    /// Bytes of all aliases in the http_sd list, without the address to scrape; 0 before the load.
    pub(crate) fn table_bytes(&self) -> u64 {
        self.read().table.as_ref().map_or(0, Table::bytes)
    }

    pub(crate) fn totals(&self) -> Totals {
        let store_failures = self.shared.health.failures.load(Ordering::Relaxed);
        Totals { store_failures, ..self.read().totals }
    }

    /// The table's generation. It grows with the load and with each change of the list in `/sd`, not with plain renewals.
    /// 0 before the load.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Subscribes to events of aliases. A subscriber that is too slow misses the oldest.
    pub(crate) fn events(&self) -> broadcast::Receiver<RegistryEvent> {
        self.shared.events.subscribe()
    }

    /// An error if a request names more aliases than a peer may have.
    fn check_count(&self, count: usize, peer: &PublicKey) -> Result<(), RegistryError> {
        let limit = self.shared.config.max_per_peer;
        if count > limit {
            self.shared.refusals.count(Limit::AliasesPerPeer, peer);
            return Err(RegistryError::TooManyClaims { count, limit });
        }
        Ok(())
    }

    // No step panics half-way, so the table behind a poisoned lock is consistent.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.shared.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
