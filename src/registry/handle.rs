//! The handle to the table, for the rest of a scraper.

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
    Counts, Damage, Holders, Lease, NotLoaded, Presence, Registrant, RegistryConfig, RegistryError, RegistryEvent,
    Store, Totals,
    event_log::EventLog,
    table::{Claims, ClockStep, Effects, Table},
    writer::{self, Batch, Health, Start, Waiter},
};
use crate::{
    identity::PublicKey,
    telemetry::{Limit, Refusals},
    wire::{Alias, AliasOutcome, AliasStatus, Register, Registered},
};

/// How often leases are checked for their end.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How often plain renewals are written: a `kill -9` loses at most those of this time.
const FLUSH_EVERY: Duration = Duration::from_secs(3);

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

#[derive(Debug)]
struct Shared {
    config: RegistryConfig,
    refusals: Arc<Refusals>,
    state: RwLock<State>,
    /// Free slots of the writer's queue. The sweep needs none: it queues no more than the table holds.
    slots: Arc<Semaphore>,
    health: Arc<Health>,
    changes: watch::Sender<u64>,
    events: broadcast::Sender<RegistryEvent>,
    log: EventLog,
}

/// The table and the writer's queue are under one lock, so that both see changes in one order. The lock is never held
/// over an await.
#[derive(Debug, Default)]
struct State {
    table: Option<Table>,
    phase: Phase,
    generation: u64,
    totals: Totals,
    /// When the table counts as complete after damage of the store.
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
pub(crate) struct Snapshot {
    /// The table's generation. [`Registry::changes`] may report it a moment later.
    pub(crate) generation: u64,
    /// The leases, in the order of their aliases.
    pub(crate) leases: Vec<Arc<Lease>>,
}

impl Registry {
    /// Creates a registry that has not loaded its table. What its limits refuse is counted in `refusals`.
    pub(crate) fn new(config: RegistryConfig, refusals: Arc<Refusals>) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                refusals,
                state: RwLock::default(),
                slots: Arc::new(Semaphore::new(QUEUE)),
                health: Arc::default(),
                changes: watch::Sender::new(0),
                events: broadcast::Sender::new(EVENTS),
                log: EventLog::new(),
            }),
        }
    }

    /// Loads the table from the store, then sweeps every second and writes plain renewals every three seconds. Runs
    /// until `stop` fires, then writes what is left. The store lives in its own thread, which has ended when this
    /// returns. If the future is dropped, the thread still writes what is left. A second call is an error.
    pub(crate) async fn run(&self, store: Box<dyn Store>, stop: CancellationToken) -> Result<(), RegistryError> {
        let running = Running::begin(self)?;
        let (queue, inbox) = mpsc::unbounded_channel();
        // Loading blocks, so the thread does that too.
        let mut writer = writer::spawn(store, inbox, self.shared.config.clone(), Arc::clone(&self.shared.health))
            .map_err(RegistryError::Thread)?;
        tokio::select! {
            () = stop.cancelled() => drop(queue),
            start = &mut writer.started => {
                let start = start.map_err(|_| RegistryError::Stopped)?;
                self.start_serving(start.map_err(|error| RegistryError::Store(Arc::new(error)))?, queue);
            }
        }
        let mut sweep = interval(SWEEP_EVERY);
        let mut flush = interval(FLUSH_EVERY);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = &mut writer.ended => return Err(RegistryError::Stopped),
                _ = sweep.tick() => self.sweep(SystemTime::now()),
                _ = flush.tick() => self.flush(),
            }
        }
        // Closes the queue: the writer writes what is left and ends.
        drop(running);
        writer.ended.await.map_err(|_| RegistryError::Stopped)?.map_err(RegistryError::Store)
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.read().table.is_some()
    }

    /// True once the table was loaded and may be listed. After damage of the store, clients must have had the time to
    /// register again first ([`RegistryConfig::start_grace`]).
    pub(crate) fn is_complete(&self) -> bool {
        let state = self.read();
        state.table.is_some() && state.incomplete_until.is_none_or(|end| Instant::now() >= end)
    }

    /// True while the last write to the store failed. The list may then contain more than the store.
    pub(crate) fn store_failing(&self) -> bool {
        self.shared.health.failing.load(Ordering::Relaxed)
    }

    /// Registers the whole set of a peer's targets: grants or refuses each claim by itself, and releases the aliases
    /// that the peer held and was not granted again. Returns once all changes are on disk. A plain renewal does not
    /// wait for its write, and is granted while the store fails. Dropping the future undoes nothing.
    ///
    /// `presence` returns whether a peer has a link. It is called under the table's lock, so it must be
    /// quick and must not call the registry. An error acknowledges nothing; its answer is [`RegistryError::reply`].
    pub(crate) async fn register(
        &self,
        by: &Registrant,
        register: &Register,
        presence: impl Fn(&PublicKey) -> Presence,
        now: SystemTime,
    ) -> Result<Registered, RegistryError> {
        let config = &self.shared.config;
        self.check_count(register.claims.len(), &by.peer)?;
        let claims = Claims::check(&by.peer, register)?;
        let lease_ms = u64::try_from(config.lease.as_millis()).unwrap_or(u64::MAX);
        let outcomes = match self.store_failing() {
            true => self.renew(by.peer, claims, now)?,
            false => self.change(|table| table.register(by, claims, presence, now)).await?,
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

    /// Releases every alias of the peer. Returns once the change is on disk.
    pub(crate) async fn release_peer(&self, peer: PublicKey, now: SystemTime) -> Result<(), RegistryError> {
        self.change(|table| ((), table.release_peer(&peer, now))).await
    }

    /// Releases every alias of these holders, and returns how many there were. Otherwise as [`release`](Self::release).
    pub(crate) async fn release_all(&self, holders: &Holders) -> Result<usize, RegistryError> {
        self.change(|table| {
            let effects = table.release_all(holders);
            (effects.events.len(), effects)
        })
        .await
    }

    /// Releases an alias, whoever holds it; false if nobody does. Returns once the change is on disk. A holder that
    /// still runs registers the alias again at its next renewal.
    pub(crate) async fn release(&self, alias: &Alias) -> Result<bool, RegistryError> {
        self.change(|table| {
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

    /// Every lease, lapsed ones included. Copies a pointer per lease: take one per change, not per request.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, NotLoaded> {
        let state = self.read();
        let table = state.table.as_ref().ok_or(NotLoaded)?;
        Ok(Snapshot { generation: state.generation, leases: table.leases() })
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

    /// Takes every lease that is due to its next state: active to lapsed, lapsed to gone. [`run`](Self::run) calls this
    /// every second. After a pause (the clock was set, or the process stood still), running leases first get the time
    /// to be renewed. While the store fails, nothing happens; the next sweep then sees a pause.
    fn sweep(&self, now: SystemTime) {
        self.shared.log.forget_old();
        if self.store_failing() {
            return;
        }
        let mut state = self.write();
        let Some(table) = &mut state.table else { return };
        let effects = table.sweep(now);
        let notification = self.publish(&mut state, effects, None);
        let complete = state.incomplete_until.take_if(|end| Instant::now() >= *end).is_some();
        drop(state);
        self.notify(notification);
        if complete {
            tracing::info!("the table of aliases counts as complete again");
        }
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

    /// Applies a step to the table, queues its changes, and waits until they are on disk.
    async fn change<T>(&self, step: impl FnOnce(&mut Table) -> (T, Effects)) -> Result<T, RegistryError> {
        self.check_serving(&self.read().phase)?;
        let slot = Arc::clone(&self.shared.slots).acquire_owned().await.map_err(|_| RegistryError::Stopped)?;
        // No await between here and the answer: a caller that gives up does so before the step or after.
        let (ack, answer) = oneshot::channel();
        let (value, notification) = {
            let mut state = self.write();
            self.check_serving(&state.phase)?;
            let (value, effects) = step(state.table.as_mut().ok_or(RegistryError::NotReady)?);
            (value, self.publish(&mut state, effects, Some(Waiter { ack, _slot: slot })))
        };
        self.notify(notification);
        answer.await.map_err(|_| RegistryError::Stopped)?.map_err(RegistryError::Store)?;
        Ok(value)
    }

    /// Registers while the store fails: extends the claimed leases, and refuses anything else.
    fn renew(&self, peer: PublicKey, claims: Claims, now: SystemTime) -> Result<Vec<AliasOutcome>, RegistryError> {
        let mut state = self.write();
        match self.check_serving(&state.phase) {
            Ok(()) | Err(RegistryError::StoreFailing) => {}
            Err(error) => return Err(error),
        }
        let written = self.shared.health.written.load(Ordering::Acquire);
        let table = state.table.as_mut().ok_or(RegistryError::NotReady)?;
        let (outcomes, effects) = table.renew(peer, claims, written, now);
        let notification = self.publish(&mut state, effects, None);
        drop(state);
        self.notify(notification);
        outcomes.ok_or(RegistryError::StoreFailing)
    }

    /// An error while changes cannot be stored.
    fn check_serving(&self, phase: &Phase) -> Result<(), RegistryError> {
        match phase {
            Phase::New | Phase::Loading => Err(RegistryError::NotReady),
            Phase::Stopped => Err(RegistryError::Stopped),
            Phase::Serving(_) if self.store_failing() => Err(RegistryError::StoreFailing),
            Phase::Serving(_) => Ok(()),
        }
    }

    fn start_serving(&self, start: Start, queue: mpsc::UnboundedSender<Batch>) {
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
        let notification = self.publish(&mut state, effects, None);
        drop(state);
        self.notify(notification);
    }

    /// Makes the writer write its plain renewals, and whatever failed before. If the queue is full, the previous flush is
    /// still in it.
    fn flush(&self) {
        let Ok(slot) = Arc::clone(&self.shared.slots).try_acquire_owned() else { return };
        if let Phase::Serving(queue) = &self.read().phase {
            let waiter = Waiter { ack: oneshot::channel().0, _slot: slot };
            let _ = queue.send(Batch { durable: true, waiter: Some(waiter), ..Batch::default() });
        }
    }

    /// Counts the effects of a step and queues its changes. The notification is for after the unlock.
    fn publish(&self, state: &mut State, effects: Effects, waiter: Option<Waiter>) -> Notification {
        state.generation += u64::from(effects.are_visible());
        state.totals.renewed += effects.renewed;
        for event in &effects.events {
            state.totals.count(event.kind);
            // An error means that there is no subscriber.
            let _ = self.shared.events.send(event.clone());
        }
        if let Phase::Serving(queue) = &state.phase
            && (waiter.is_some() || !effects.changes.is_empty())
        {
            let (durable, step) = (effects.are_durable(), effects.step);
            let batch = Batch { changes: effects.changes, durable, step, waiter };
            // If the writer has died, the waiter is dropped with the batch and its caller gets an error.
            let _ = queue.send(batch);
        }
        let Effects { events, clock, refused, .. } = effects;
        Notification { generation: state.generation, events, clock, refused }
    }

    /// Publishes the generation and logs. Not under the lock: logs and subscribers may block.
    fn notify(&self, notification: Notification) {
        self.shared.changes.send_if_modified(|generation| {
            // Two threads may come here in another order than they held the lock.
            let newer = notification.generation > *generation;
            *generation = notification.generation.max(*generation);
            newer
        });
        notification.clock.into_iter().for_each(ClockStep::log);
        self.shared.log.write(&notification.events);
        for (limit, alias) in notification.refused {
            self.shared.refusals.count(limit, format_args!("alias {alias}"));
        }
    }

    // No step panics half-way, so the table behind a poisoned lock is consistent.
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

/// What is published and logged about a step.
struct Notification {
    generation: u64,
    events: Vec<RegistryEvent>,
    clock: Option<ClockStep>,
    refused: Vec<(Limit, Alias)>,
}

fn interval(period: Duration) -> time::Interval {
    let mut interval = time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

#[cfg(test)]
mod tests;
