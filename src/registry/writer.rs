//! The thread that owns the store.
//!
//! There is one writer. All waiting batches become one group: one write, one sync, then every acknowledgement. Batches
//! come in the order of the table's steps, so an acknowledged change and all before are on disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    io, mem,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{
    Change, Damage, Foreign, Journal, JournalEntry, Loaded, Name, Note, RegistryConfig, SharedEvent, Store, StoreError,
    health::Health,
    table::{Effects, Table},
    wall_clock::WallClock,
};
use crate::telemetry::Chain;

/// How often the store is checkpointed: the most acknowledged changes that damage can take unnoticed.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// Most changes of a group. Larger groups would keep the first waiters waiting and would not be faster.
const GROUP: usize = 1024;

/// Changes of one step of the table, on their way to the store.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// What the changes, and those of later batches, are based on.
    pub(super) notes: Vec<Note>,
    pub(super) changes: Vec<Change>,
    pub(super) entries: Vec<JournalEntry>,
    /// Write at once. Other batches are written with the next durable one, or by the next flush.
    pub(super) durable: bool,
    /// The registration that made the changes.
    pub(super) step: u64,
    /// The caller that waits for the write, if any. The caller may have given up.
    pub(super) waiter: Option<Waiter>,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) ack: oneshot::Sender<Ack>,
    /// A slot of the queue, free again once the waiter was answered.
    pub(super) _slot: OwnedSemaphorePermit,
}

/// `Ok` once all durable changes up to the waiter's batch are on disk, or are not to be.
pub(super) type Ack = Result<Outcome, Arc<StoreError>>;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Written,
    /// Another scraper was first with one of its names, and the table has adopted what that one wrote.
    Overtaken,
}

#[derive(Debug)]
pub(super) struct Start {
    pub(super) table: Table,
    pub(super) effects: Effects,
    pub(super) unreadable: u64,
    pub(super) damage: Option<Damage>,
    pub(super) position: u64,
    pub(super) copied_at: Option<SystemTime>,
    pub(super) events: Option<mpsc::Receiver<SharedEvent>>,
}

#[derive(Debug)]
pub(super) struct Handle {
    /// Ready when the store was read.
    pub(super) started: oneshot::Receiver<Result<Start, StoreError>>,
    /// Ready when the queue was closed and everything is written; an error if the thread panicked.
    pub(super) ended: oneshot::Receiver<Result<(), Arc<StoreError>>>,
}

/// Starts the thread, which reads the store and then writes the batches of `queue` until the queue is closed. What other
/// scrapers have written in place of a change is handed to `adopt`, before the change is answered.
pub(super) fn spawn(
    (mut store, journal): (Box<dyn Store>, Option<Box<dyn Journal>>),
    queue: mpsc::UnboundedReceiver<Batch>,
    config: RegistryConfig,
    clock: WallClock,
    health: Arc<Health>,
    adopt: impl Fn(Vec<Foreign>) + Send + 'static,
) -> io::Result<Handle> {
    let (started, started_receiver) = oneshot::channel();
    let (ended, ended_receiver) = oneshot::channel();
    thread::Builder::new().name("narthex-registry".into()).spawn(move || {
        let end = match health.guarded(|| store.load()) {
            Ok(Loaded {
                contents,
                unconfirmed,
                unconfirmed_beacons,
                unreadable,
                damage,
                failure,
                position,
                copied_at,
            }) => {
                let events = store.shared_events();
                let (mut table, effects) = Table::load(config, contents, unconfirmed, clock.now());
                table.doubt_beacons(unconfirmed_beacons);
                health.complete.store(damage.is_none(), Ordering::Release);
                let checkpoint_at = Instant::now();
                let mut writer = Writer {
                    store,
                    journal,
                    entries: Vec::new(),
                    queue,
                    health,
                    adopt: Box::new(adopt),
                    unwritten: BTreeMap::new(),
                    step: 0,
                    failed: false,
                    checkpoint_at,
                    is_noted: true,
                };
                if let Some(error) = failure {
                    writer.failed(error);
                }
                // If the receiver is gone, the queue is closed too and the writer ends at once.
                let _ = started.send(Ok(Start { table, effects, unreadable, damage, position, copied_at, events }));
                writer.run()
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
    journal: Option<Box<dyn Journal>>,
    /// Those of the group.
    entries: Vec<JournalEntry>,
    queue: mpsc::UnboundedReceiver<Batch>,
    health: Arc<Health>,
    adopt: Box<dyn Fn(Vec<Foreign>) + Send>,
    /// The last change of each name that is not on disk yet. Kept after a failure, as the table has these changes.
    unwritten: BTreeMap<Name, Change>,
    step: u64,
    /// True while the last write has failed: nothing is acknowledged before a write succeeds.
    failed: bool,
    checkpoint_at: Instant,
    /// False while the last checkpoint has failed.
    is_noted: bool,
}

/// Batches that are written together.
#[derive(Default)]
struct Group {
    /// Each with the names of its changes.
    waiters: Vec<(Waiter, Vec<Name>)>,
    durable: bool,
    /// The names whose changes another scraper was faster with.
    overtaken: BTreeSet<Name>,
}

impl Group {
    fn outcome(&self, names: &[Name]) -> Outcome {
        match names.iter().any(|name| self.overtaken.contains(name)) {
            true => Outcome::Overtaken,
            false => Outcome::Written,
        }
    }
}

impl Writer {
    fn run(mut self) -> Result<(), Arc<StoreError>> {
        while let Some(first) = self.queue.blocking_recv() {
            let mut group = Group::default();
            self.take(first, &mut group);
            while self.unwritten.len() < GROUP {
                match self.queue.try_recv() {
                    Ok(next) => self.take(next, &mut group),
                    Err(_) => break,
                }
            }
            self.keep_journal();
            // A failed store is tried for each waiter, which includes each flush, and not for every renewal.
            let is_due = match self.failed {
                true => !group.waiters.is_empty(),
                false => group.durable || self.unwritten.len() >= GROUP,
            };
            let result = if is_due { self.commit(&mut group) } else { Ok(()) };
            for (waiter, names) in mem::take(&mut group.waiters) {
                // A caller that gave up does not undo its lease.
                let _ = waiter.ack.send(result.clone().map(|()| group.outcome(&names)));
            }
            // After the acknowledgements, as nobody waits for a checkpoint.
            if is_due && result.is_ok() && Instant::now() >= self.checkpoint_at && self.is_complete() {
                self.checkpoint();
            }
        }
        let end = self.commit(&mut Group::default());
        if let Some(journal) = &mut self.journal {
            // It says itself what went wrong.
            let _ = self.health.guarded(|| {
                journal.close();
                Ok(())
            });
        }
        if end.is_ok() && self.is_complete() {
            self.checkpoint();
        }
        end
    }

    /// Before the store: what is on disk was in the journal first.
    fn keep_journal(&mut self) {
        let entries = mem::take(&mut self.entries);
        if let Some(journal) = &mut self.journal {
            // It says itself what went wrong.
            let _ = self.health.guarded(|| {
                journal.write(entries);
                Ok(())
            });
        }
    }

    fn is_complete(&self) -> bool {
        self.health.complete.load(Ordering::Acquire)
    }

    fn checkpoint(&mut self) {
        let noted = self.health.guarded(|| self.store.checkpoint());
        let was_noted = mem::replace(&mut self.is_noted, noted.is_ok());
        if let Err(error) = noted
            && was_noted
        {
            // The previous checkpoint stays valid: the table may be ahead of it.
            tracing::warn!(error = %Chain(&error), "registry store could not note how far it is");
        }
        self.checkpoint_at = Instant::now() + CHECKPOINT_EVERY;
    }

    fn take(&mut self, batch: Batch, group: &mut Group) {
        for note in batch.notes {
            // A change from before was decided without knowing what the note says.
            if let Note::Adopted(Foreign { name, .. }) = &note
                && self.unwritten.remove(name).is_some()
            {
                group.overtaken.insert(name.clone());
            }
            self.store.note(note);
        }
        group.waiters.extend(batch.waiter.map(|waiter| (waiter, batch.changes.iter().map(Change::name).collect())));
        self.unwritten.extend(batch.changes.into_iter().map(|change| (change.name(), change)));
        self.entries.extend(batch.entries);
        self.step = self.step.max(batch.step);
        group.durable |= batch.durable;
    }

    fn commit(&mut self, group: &mut Group) -> Result<(), Arc<StoreError>> {
        let changes: Vec<Change> = self.unwritten.values().cloned().collect();
        let overtaken = self.health.guarded(|| self.store.commit(&changes)).map_err(|error| self.failed(error))?;
        self.unwritten.clear();
        self.failed = false;
        if !overtaken.is_empty() {
            group.overtaken.extend(overtaken.iter().map(|foreign| foreign.name.clone()));
            (self.adopt)(overtaken);
        }
        self.health.written.store(self.step, Ordering::Release);
        self.health.works();
        Ok(())
    }

    /// Records a failure. Unwritten changes are kept for the next attempt.
    fn failed(&mut self, error: StoreError) -> Arc<StoreError> {
        self.failed = true;
        self.health.failed(&error);
        Arc::new(error)
    }
}
