//! The handle to the table: what the rest of a scraper calls.

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{Semaphore, broadcast, mpsc, oneshot, watch},
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    Counts, Damage, Lease, NotLoaded, RegistryConfig, RegistryError, RegistryEvent, Store, Totals,
    table::{Claims, ClockStep, Effects, Table},
    writer::{self, Batch, Health, Start, Waiter},
};
use crate::{
    identity::PublicKey,
    wire::{Alias, AliasOutcome, AliasStatus, Register, Registered},
};

/// The alias table of a scraper, shared by all that ask it. Cheap to clone.
///
/// A new one answers [`NotLoaded`] and [`RegistryError::NotReady`] until [`run`](Self::run) has read its store.
#[derive(Clone, Debug)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: RegistryConfig,
    state: RwLock<State>,
    /// Room in the writer's queue; the sweep needs none, as it cannot queue more than the table holds.
    slots: Arc<Semaphore>,
    health: Arc<Health>,
    changes: watch::Sender<u64>,
    events: broadcast::Sender<RegistryEvent>,
}

/// The lock is held for a step of the table and to queue its changes, so that both have one order; never over an await.
#[derive(Debug, Default)]
struct State {
    table: Option<Table>,
    phase: Phase,
    generation: u64,
    totals: Totals,
    /// Until when leases that the store had lost may come back.
    incomplete_until: Option<Instant>,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    New,
    Loading,
    Serving(mpsc::UnboundedSender<Batch>),
    Stopped,
}

/// Every lease at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The generation that it shows, as of [`Registry::changes`], which may reach it a moment later.
    pub generation: u64,
    /// The leases, in the order of their aliases.
    pub leases: Vec<Arc<Lease>>,
}

impl Registry {
    /// A registry that has not loaded its table.
    pub fn new(config: RegistryConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                state: RwLock::default(),
                slots: Arc::new(Semaphore::new(QUEUE)),
                health: Arc::default(),
                changes: watch::Sender::new(0),
                events: broadcast::Sender::new(EVENTS),
            }),
        }
    }

    /// Loads the table from the store, then keeps it: sweeps every second, and writes plain renewals every three.
    /// Runs until `stop` fires, then writes what is left. The store lives in a thread of its own, which has ended
    /// when this returns. If the future is dropped, the thread writes what is left all the same.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the store cannot be read, or not written at the end;
    /// [`RegistryError::AlreadyRunning`] on a second call.
    pub async fn run(&self, store: Box<dyn Store>, stop: CancellationToken) -> Result<(), RegistryError> {
        let running = Running::begin(self)?;
        let (queue, inbox) = mpsc::unbounded_channel();
        let mut writer = writer::spawn(store, inbox, self.shared.config.clone(), Arc::clone(&self.shared.health))
            .map_err(RegistryError::Thread)?;
        tokio::select! {
            () = stop.cancelled() => drop(queue),
            start = &mut writer.started => {
                let start = start.map_err(|_| RegistryError::Stopped)?;
                self.serve(start.map_err(|error| RegistryError::Store(Arc::new(error)))?, queue);
            }
        }
        let mut sweep = every(SWEEP_EVERY);
        let mut flush = every(FLUSH_EVERY);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = &mut writer.ended => return Err(RegistryError::Stopped),
                _ = sweep.tick() => self.sweep(SystemTime::now()),
                _ = flush.tick() => self.flush(),
            }
        }
        drop(running);
        writer.ended.await.map_err(|_| RegistryError::Stopped)?.map_err(RegistryError::Store)
    }

    /// True once the table is known.
    pub fn is_loaded(&self) -> bool {
        self.read().table.is_some()
    }

    /// True once the table is known and may be listed. A store that had lost leases makes it incomplete at first: their
    /// clients must have had the time to register again ([`RegistryConfig::start_grace`]).
    pub fn is_complete(&self) -> bool {
        let state = self.read();
        state.table.is_some() && state.incomplete_until.is_none_or(|end| Instant::now() >= end)
    }

    /// True while the last write to the store failed. What is listed may then be more than what is stored.
    pub fn store_failing(&self) -> bool {
        self.shared.health.failing.load(Ordering::Relaxed)
    }

    /// The limits and times it was made with.
    pub fn config(&self) -> &RegistryConfig {
        &self.shared.config
    }

    /// States the whole set of a peer's targets: each claim is granted or refused by itself, aliases that it held and
    /// was not granted again are released. Returns once all of that is on disk; a registration that changes nothing
    /// but the leases' ends does not wait for its own write, and is granted while the store fails. Dropping the future
    /// undoes nothing.
    ///
    /// `holder_is_linked` tells whether a peer has a link now. It is called under the table's lock: it must be quick and
    /// must not call the registry.
    ///
    /// # Errors
    /// [`RegistryError`]; nothing is then acknowledged. [`RegistryError::reply`] is what the peer is told.
    pub async fn register(
        &self,
        peer: PublicKey,
        register: &Register,
        holder_is_linked: impl Fn(&PublicKey) -> bool,
        now: SystemTime,
    ) -> Result<Registered, RegistryError> {
        let config = &self.shared.config;
        let claims = Claims::check(register, config)?;
        let lease_ms = u64::try_from(config.lease.as_millis()).unwrap_or(u64::MAX);
        let outcomes = match self.store_failing() {
            true => self.renew(peer, claims, now)?,
            false => self.change(|table| table.register(peer, claims, holder_is_linked, now)).await?,
        };
        Ok(Registered { lease_ms, outcomes })
    }

    /// How aliases stand, for a peer that would claim them; changes nothing. `holder_is_linked` is as for
    /// [`register`](Self::register).
    ///
    /// # Errors
    /// [`RegistryError::NotReady`] while it cannot be known; [`RegistryError::TooManyClaims`] for more than a peer may have.
    pub fn alias_statuses(
        &self,
        aliases: &[String],
        holder_is_linked: impl Fn(&PublicKey) -> bool,
        now: SystemTime,
    ) -> Result<Vec<AliasStatus>, RegistryError> {
        let (count, limit) = (aliases.len(), self.shared.config.max_per_peer);
        if count > limit {
            return Err(RegistryError::TooManyClaims { count, limit });
        }
        let state = self.read();
        let table = state.table.as_ref().ok_or(RegistryError::NotReady)?;
        Ok(aliases.iter().map(|alias| table.status(alias, &holder_is_linked, now)).collect())
    }

    /// Gives up every alias of the peer. Returns once that is on disk.
    ///
    /// # Errors
    /// [`RegistryError`] as for [`register`](Self::register).
    pub async fn release_peer(&self, peer: PublicKey) -> Result<(), RegistryError> {
        self.change(|table| ((), table.release_peer(&peer))).await
    }

    /// Frees an alias, whoever holds it; false if nobody did. Returns once that is on disk. A holder that is still
    /// there registers it again when it renews.
    ///
    /// # Errors
    /// [`RegistryError`] as for [`register`](Self::register).
    pub async fn release(&self, alias: &Alias) -> Result<bool, RegistryError> {
        self.change(|table| {
            let effects = table.release(alias);
            (!effects.events.is_empty(), effects)
        })
        .await
    }

    /// The lease of an alias, lapsed or not.
    ///
    /// # Errors
    /// [`NotLoaded`] while it cannot be known.
    pub fn lookup(&self, alias: &str) -> Result<Option<Arc<Lease>>, NotLoaded> {
        self.read().table.as_ref().map(|table| table.lookup(alias)).ok_or(NotLoaded)
    }

    /// Every lease, lapsed ones included. Costs a pointer's copy per lease; take one per change, not per request.
    ///
    /// # Errors
    /// [`NotLoaded`] while it cannot be known.
    pub fn snapshot(&self) -> Result<Snapshot, NotLoaded> {
        let state = self.read();
        let table = state.table.as_ref().ok_or(NotLoaded)?;
        Ok(Snapshot { generation: state.generation, leases: table.leases() })
    }

    /// How many leases and peers there are, as of the last sweep; zeros until the table is loaded.
    pub fn counts(&self) -> Counts {
        self.read().table.as_ref().map(Table::counts).unwrap_or_default()
    }

    /// How often things happened since the start.
    pub fn totals(&self) -> Totals {
        let store_failures = self.shared.health.failures.load(Ordering::Relaxed);
        Totals { store_failures, ..self.read().totals }
    }

    /// A generation that moves when the table was loaded and whenever what `/sd` shows changes, so not on a plain
    /// renewal. 0 until the table is loaded.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// What happens to aliases from now on. Whoever falls 1024 events behind misses the oldest, and is told so.
    pub fn events(&self) -> broadcast::Receiver<RegistryEvent> {
        self.shared.events.subscribe()
    }

    /// Takes every lease that is due to its next step: active to lapsed, lapsed to gone. [`run`](Self::run) calls it
    /// every second. When the clock was set, or the process stood still, leases that ran before are first given the time
    /// to be renewed. While the store fails nothing is done: the pause that this makes is one of those.
    pub fn sweep(&self, now: SystemTime) {
        if self.store_failing() {
            return;
        }
        let mut state = self.write();
        let Some(table) = &mut state.table else { return };
        let effects = table.sweep(now);
        let news = self.publish(&mut state, effects, None);
        let complete = state.incomplete_until.take_if(|end| Instant::now() >= *end).is_some();
        drop(state);
        self.tell(news);
        if complete {
            tracing::info!("the table of aliases counts as complete again");
        }
    }

    /// Makes a step of the table, queues what it changed, and waits until the writer answers for it.
    async fn change<T>(&self, step: impl FnOnce(&mut Table) -> (T, Effects)) -> Result<T, RegistryError> {
        self.serving(&self.read().phase)?;
        let slot = Arc::clone(&self.shared.slots).acquire_owned().await.map_err(|_| RegistryError::Stopped)?;
        // From here to the answer nothing awaits, so a caller that gives up does so before the step or after it.
        let (ack, answer) = oneshot::channel();
        let (value, news) = {
            let mut state = self.write();
            self.serving(&state.phase)?;
            let (value, effects) = step(state.table.as_mut().ok_or(RegistryError::NotReady)?);
            (value, self.publish(&mut state, effects, Some(Waiter { ack, _slot: slot })))
        };
        self.tell(news);
        answer.await.map_err(|_| RegistryError::Stopped)?.map_err(RegistryError::Store)?;
        Ok(value)
    }

    /// A registration while the store fails. Leases that are claimed go on, even if the rest is refused.
    fn renew(&self, peer: PublicKey, claims: Claims, now: SystemTime) -> Result<Vec<AliasOutcome>, RegistryError> {
        let mut state = self.write();
        match self.serving(&state.phase) {
            Ok(()) | Err(RegistryError::StoreFailing) => {}
            Err(error) => return Err(error),
        }
        let written = self.shared.health.written.load(Ordering::Acquire);
        let table = state.table.as_mut().ok_or(RegistryError::NotReady)?;
        let (outcomes, effects) = table.renew(peer, claims, written, now);
        let news = self.publish(&mut state, effects, None);
        drop(state);
        self.tell(news);
        outcomes.ok_or(RegistryError::StoreFailing)
    }

    /// Refuses while nothing can be kept.
    fn serving(&self, phase: &Phase) -> Result<(), RegistryError> {
        match phase {
            Phase::New | Phase::Loading => Err(RegistryError::NotReady),
            Phase::Stopped => Err(RegistryError::Stopped),
            Phase::Serving(_) if self.store_failing() => Err(RegistryError::StoreFailing),
            Phase::Serving(_) => Ok(()),
        }
    }

    fn serve(&self, start: Start, queue: mpsc::UnboundedSender<Batch>) {
        let Start { table, effects, unreadable, damage, complete_at } = start;
        let Counts { active, lapsed, .. } = table.counts();
        tracing::info!(active, lapsed, unreadable, "registry loaded");
        if let Some(Damage { noted, found }) = damage {
            let noted = noted.map(tracing::field::display);
            let wait_seconds = complete_at.saturating_duration_since(Instant::now()).as_secs();
            tracing::error!(
                noted,
                found,
                wait_seconds,
                "registry store was damaged and has lost aliases: /sd answers 503 until their clients had the time to \
                 register again"
            );
        }
        let mut state = self.write();
        state.totals.store_damaged = u64::from(damage.is_some());
        state.incomplete_until = damage.map(|_| complete_at);
        state.table = Some(table);
        state.phase = Phase::Serving(queue);
        state.generation += 1;
        state.totals.unreadable_records = unreadable;
        let news = self.publish(&mut state, effects, None);
        drop(state);
        self.tell(news);
    }

    /// Asks the writer to write what it only holds so far: renewals, and whatever failed before. Not if its queue is
    /// full, as it has not come to the last time's yet.
    fn flush(&self) {
        let Ok(slot) = Arc::clone(&self.shared.slots).try_acquire_owned() else { return };
        if let Phase::Serving(queue) = &self.read().phase {
            let waiter = Waiter { ack: oneshot::channel().0, _slot: slot };
            let _ = queue.send(Batch { durable: true, waiter: Some(waiter), ..Batch::default() });
        }
    }

    /// Counts what a step did and queues its changes, in the order of the steps. What is returned is to be told once
    /// the lock is free.
    fn publish(&self, state: &mut State, effects: Effects, waiter: Option<Waiter>) -> News {
        state.generation += u64::from(effects.are_visible());
        state.totals.renewed += effects.renewed;
        for event in &effects.events {
            state.totals.count(event.kind);
            // An error means that nobody listens.
            let _ = self.shared.events.send(event.clone());
        }
        if let Phase::Serving(queue) = &state.phase
            && (waiter.is_some() || !effects.changes.is_empty())
        {
            let (durable, step) = (effects.are_durable(), effects.step);
            let batch = Batch { changes: effects.changes, durable, step, waiter };
            // If the writer has died the waiter is dropped with the batch, which is its answer.
            let _ = queue.send(batch);
        }
        News { generation: state.generation, events: effects.events, clock: effects.clock }
    }

    /// Moves the generation and logs. Not under the lock: a log may block, and so may whoever looks at the generation.
    fn tell(&self, news: News) {
        self.shared.changes.send_if_modified(|generation| {
            let newer = news.generation > *generation;
            *generation = news.generation.max(*generation);
            newer
        });
        news.clock.into_iter().for_each(ClockStep::log);
        news.events.iter().for_each(RegistryEvent::log);
    }

    // No step panics half-way, so a poisoned lock still guards a whole table.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.shared.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the writer's queue when [`Registry::run`] ends, or is dropped.
struct Running<'a>(&'a Registry);

impl<'a> Running<'a> {
    fn begin(registry: &'a Registry) -> Result<Self, RegistryError> {
        let mut state = registry.write();
        if !matches!(state.phase, Phase::New) {
            return Err(RegistryError::AlreadyRunning);
        }
        state.phase = Phase::Loading;
        Ok(Self(registry))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.write().phase = Phase::Stopped;
    }
}

/// What is to be told about a step.
struct News {
    generation: u64,
    events: Vec<RegistryEvent>,
    clock: Option<ClockStep>,
}

fn every(period: Duration) -> time::Interval {
    let mut interval = time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The most that a `kill -9` can take from plain renewals.
const FLUSH_EVERY: Duration = Duration::from_secs(3);

/// Registrations that may wait for the writer at once; further ones wait for a place.
const QUEUE: usize = 1024;

/// Events kept for a listener that is behind.
const EVENTS: usize = 1024;

#[cfg(test)]
mod tests;
