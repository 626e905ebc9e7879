//! The thread that owns the store.
//!
//! One writer for everything: flushes that run side by side are slow, and in sled some 16 of them wait for one another
//! for ever. Whatever waits is taken as one group: one write, one flush, then every acknowledgement. Batches are taken
//! in the order in which the table made them, so whatever is acknowledged finds all that came before it on disk too.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{
    Change, Damage, Loaded, RegistryConfig, Store, StoreError,
    table::{Effects, Table},
};
use crate::wire::Alias;

/// Changes of one step of the table, on their way to the store.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
    /// Write now, rather than with the next group that must be.
    pub(super) durable: bool,
    /// The registration that made them.
    pub(super) step: u64,
    /// Who waits for it; they may have gone.
    pub(super) waiter: Option<Waiter>,
}

/// The end of a batch that a caller waits at.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) ack: oneshot::Sender<Ack>,
    /// A place in the queue, free again once the waiter was answered.
    pub(super) _slot: OwnedSemaphorePermit,
}

/// Whether everything up to this batch that must be on disk is there.
pub(super) type Ack = Result<(), Arc<StoreError>>;

/// What the store held.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) table: Table,
    pub(super) effects: Effects,
    pub(super) unreadable: u64,
    pub(super) damage: Option<Damage>,
    /// When the table counts as complete: now, unless the store was damaged.
    pub(super) complete_at: Instant,
}

/// How the store is doing.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// The last write failed.
    pub(super) failing: AtomicBool,
    /// Writes that failed.
    pub(super) failures: AtomicU64,
    /// The last registration that is on disk, with all before it.
    pub(super) written: AtomicU64,
}

/// A writer's ends.
#[derive(Debug)]
pub(super) struct Handle {
    /// Answered once, when the store was read.
    pub(super) started: oneshot::Receiver<Result<Start, StoreError>>,
    /// Answered when the queue was closed and everything is written; broken off if the thread panicked.
    pub(super) ended: oneshot::Receiver<Ack>,
}

/// Starts the thread. It reads the store, then writes what comes through `queue` until that is closed.
pub(super) fn spawn(
    mut store: Box<dyn Store>,
    queue: mpsc::UnboundedReceiver<Batch>,
    config: RegistryConfig,
    health: Arc<Health>,
) -> io::Result<Handle> {
    let (started, started_receiver) = oneshot::channel();
    let (ended, ended_receiver) = oneshot::channel();
    thread::Builder::new().name("narthex-registry".into()).spawn(move || {
        let end = match store.load() {
            Ok(Loaded { leases, unreadable, damage }) => {
                let wait = damage.map_or(Duration::ZERO, |_| config.damage_grace());
                let (table, effects) = Table::load(config, leases, SystemTime::now());
                let complete_at = Instant::now() + wait;
                // If nobody listens any more, the queue is closed too, and the writer ends at once.
                let _ = started.send(Ok(Start { table, effects, unreadable, damage, complete_at }));
                Writer::new(store, queue, health, complete_at).run()
            }
            Err(error) => {
                drop(store);
                let _ = started.send(Err(error));
                Ok(())
            }
        };
        let _ = ended.send(end);
    })?;
    Ok(Handle { started: started_receiver, ended: ended_receiver })
}

struct Writer {
    store: Box<dyn Store>,
    queue: mpsc::UnboundedReceiver<Batch>,
    health: Arc<Health>,
    /// What is not on disk yet, the last change of each alias. Kept after a failure: the table has it, so the disk must
    /// have it in the end.
    owed: BTreeMap<Alias, Change>,
    /// The last registration that is owed or written.
    step: u64,
    /// The last write failed, so that nothing is acknowledged without one that works.
    failed: bool,
    /// From when on the store may be told that it is complete.
    complete_at: Instant,
    /// When the next checkpoint is due.
    checkpoint_at: Instant,
}

/// Batches that are written at once.
#[derive(Default)]
struct Group {
    waiters: Vec<Waiter>,
    durable: bool,
}

impl Writer {
    fn new(
        store: Box<dyn Store>,
        queue: mpsc::UnboundedReceiver<Batch>,
        health: Arc<Health>,
        complete_at: Instant,
    ) -> Self {
        Self {
            store,
            queue,
            health,
            owed: BTreeMap::new(),
            step: 0,
            failed: false,
            complete_at,
            checkpoint_at: complete_at,
        }
    }

    fn run(mut self) -> Ack {
        while let Some(first) = self.queue.blocking_recv() {
            let mut group = Group::default();
            self.take(first, &mut group);
            while self.owed.len() < GROUP {
                match self.queue.try_recv() {
                    Ok(next) => self.take(next, &mut group),
                    Err(_) => break,
                }
            }
            // A store that failed is tried when somebody waits, and by each flush; not for every renewal.
            let is_due = match self.failed {
                true => !group.waiters.is_empty(),
                false => group.durable || self.owed.len() >= GROUP,
            };
            let result = if is_due { self.commit() } else { Ok(()) };
            for waiter in group.waiters {
                // A caller that gave up does not undo its lease.
                let _ = waiter.ack.send(result.clone());
            }
            // Nobody waits for it, and a flush comes by often enough.
            if is_due && result.is_ok() && Instant::now() >= self.checkpoint_at {
                self.checkpoint();
            }
        }
        let end = self.commit();
        if end.is_ok() && Instant::now() >= self.complete_at {
            self.checkpoint();
        }
        end
    }

    fn checkpoint(&mut self) {
        if let Err(error) = self.store.checkpoint() {
            // The last one still holds: it tells less, and nothing wrong.
            tracing::warn!(error = &error as &dyn std::error::Error, "registry store could not note how far it is");
        }
        self.checkpoint_at = Instant::now() + CHECKPOINT_EVERY;
    }

    fn take(&mut self, batch: Batch, group: &mut Group) {
        self.owed.extend(batch.changes.into_iter().map(|change| (change.alias().clone(), change)));
        self.step = self.step.max(batch.step);
        group.durable |= batch.durable;
        group.waiters.extend(batch.waiter);
    }

    fn commit(&mut self) -> Ack {
        if !self.owed.is_empty() {
            let changes: Vec<Change> = self.owed.values().cloned().collect();
            if let Err(error) = self.store.commit(&changes) {
                return Err(self.failed(error));
            }
            self.owed.clear();
        }
        self.failed = false;
        self.health.written.store(self.step, Ordering::Release);
        if self.health.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("registry store can be written again");
        }
        Ok(())
    }

    /// Notes a failure. What is owed stays owed: only a write that works makes the store good again.
    fn failed(&mut self, error: StoreError) -> Arc<StoreError> {
        self.failed = true;
        self.health.failures.fetch_add(1, Ordering::Relaxed);
        if !self.health.failing.swap(true, Ordering::Relaxed) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "registry store failed: until it can be written again leases are only renewed");
        }
        Arc::new(error)
    }
}

/// How much of what was acknowledged can be lost to damage before a load tells.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// Changes that make a group. More would keep the first waiters waiting and bring no more speed.
const GROUP: usize = 1024;
