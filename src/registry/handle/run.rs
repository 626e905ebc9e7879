//! The life of a registry: the load, the sweep of leases, the regular flush, the end.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use futures::{Stream, StreamExt, stream};
use tokio::{
    sync::{mpsc, oneshot},
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{Phase, Recovery, Registry, State, step::Notification};
use crate::registry::{
    Cause, Counts, Damage, Name, RegistryError, Store,
    shared::Position,
    writer::{self, Batch, Start, Waiter},
};

/// How often leases are checked for their end.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How often plain renewals are written: a `kill -9` loses at most those of this time.
pub(super) const FLUSH_EVERY: Duration = Duration::from_secs(3);

/// Longest wait at the end for the disk: a service manager kills after 30 s or more, and says nothing of the reason.
const END_GRACE: Duration = Duration::from_secs(10);

/// Most missing or dropped aliases that are named in the log.
const NAMED: usize = 50;

impl Registry {
    /// Loads the table from the store, then sweeps every second and writes plain renewals every three seconds. Runs
    /// until `stop` fires, then writes what is left, for up to ten seconds. The store lives in its own thread, which has
    /// ended when this returns anything but [`RegistryError::Hanging`]. If the future is dropped, the thread still writes what
    /// is left. A second call is an error.
    pub(crate) async fn run(&self, store: Box<dyn Store>, stop: CancellationToken) -> Result<(), RegistryError> {
        let running = Running::begin(self)?;
        let (queue, inbox) = mpsc::unbounded_channel();
        let journal = self.shared.journal.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Loading blocks, so the thread does that too.
        let (config, clock) = (self.shared.config.clone(), self.shared.clock.clone());
        let (health, registry) = (Arc::clone(&self.shared.health), self.clone());
        let adopt = move |overtaken| registry.adopt(overtaken);
        let mut writer = writer::spawn((store, journal), inbox, config, clock.clone(), health, adopt)
            .map_err(RegistryError::Thread)?;
        let mut events = None;
        tokio::select! {
            () = stop.cancelled() => drop(queue),
            start = &mut writer.started => {
                let start = start.map_err(|_| RegistryError::Stopped)?;
                let mut start = start.map_err(|error| RegistryError::Store(Arc::new(error)))?;
                events = start.events.take();
                self.start_serving(start, queue);
            }
        }
        let mut events = events.map_or_else(|| stream::pending().boxed(), |events| receiver(events).boxed());
        let mut sweep = interval(SWEEP_EVERY);
        let mut flush = interval(FLUSH_EVERY);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = &mut writer.ended => return Err(RegistryError::Stopped),
                event = events.next() => match event {
                    Some(event) => self.take_event(event, clock.now()),
                    None => return Err(RegistryError::Stopped),
                },
                _ = sweep.tick() => self.sweep(|| clock.now()),
                _ = flush.tick() => self.flush(),
            }
        }
        // Closes the queue: the writer writes what is left and ends.
        drop(running);
        let ended = time::timeout(END_GRACE, writer.ended).await.map_err(|_| RegistryError::Hanging(END_GRACE))?;
        ended.map_err(|_| RegistryError::Stopped)?.map_err(RegistryError::Store)
    }

    /// Takes every lease that is due to its next state: active to lapsed, lapsed to gone. [`run`](Self::run) calls this
    /// every second. After a pause (the clock was set, or the process stood still), running leases first get the time
    /// to be renewed. While the store fails, nothing happens; the next sweep then sees a pause.
    ///
    /// `now` is called under the table's lock: a time from before a wait for the lock would look like a clock that was set back.
    pub(super) fn sweep(&self, now: impl FnOnce() -> SystemTime) {
        self.shared.log.forget_old();
        self.shared.health.watch(Instant::now());
        if self.store_failing() {
            return;
        }
        let mut state = self.write();
        let Some(table) = &mut state.table else { return };
        let effects = table.sweep(now());
        let swept = self.publish(&mut state, effects, Cause::Time, None);
        let recovered = self.end_recovery(&mut state);
        drop(state);
        self.notify(swept);
        if let Some((recovered, notification)) = recovered {
            recovered.log();
            self.notify(notification);
        }
    }

    /// Ends the recovery of a damaged table once nothing is in doubt any more, or clients had the time to register again.
    fn end_recovery(&self, state: &mut State) -> Option<(Recovered, Notification)> {
        let table = state.table.as_mut()?;
        let recovery = state.recovery.take_if(|recovery| {
            Instant::now() >= recovery.until || (recovery.is_complete() && table.is_all_confirmed())
        })?;
        let kept = table.confirm_beacons();
        let effects = table.drop_unconfirmed();
        self.shared.health.complete.store(true, Ordering::Release);
        let dropped: BTreeSet<Name> = effects.events.iter().map(|event| Name::Alias(event.alias.clone())).collect();
        let kept: BTreeSet<Name> = kept.into_iter().map(Name::Beacon).collect();
        let missing = &(&recovery.awaited.unwrap_or_default() - &dropped) - &kept;
        let notification = self.publish(state, effects, Cause::Time, None);
        Some((Recovered { missing, dropped, kept }, notification))
    }

    fn start_serving(&self, start: Start, queue: mpsc::UnboundedSender<Batch>) {
        let Start { table, effects, unreadable, damage, position, copied_at, events: _ } = start;
        self.shared.health.reached(copied_at.unwrap_or_else(SystemTime::now));
        let Counts { active, lapsed, beacons, .. } = table.counts();
        tracing::info!(active, lapsed, beacons, ended = table.ended(), unreadable, "registry loaded");
        let recovery = damage.map(|Damage { noted, found, awaited }| {
            let grace = self.shared.config.damage_grace();
            let is_awaited = |name: &Name| !table.is_certain(name);
            let in_doubt = table.unconfirmed_beacons().iter().cloned().map(Name::Beacon);
            let awaited: Option<BTreeSet<Name>> =
                awaited.map(|noted| noted.into_iter().filter(is_awaited).chain(in_doubt).collect());
            tracing::error!(
                noted = noted.map(tracing::field::display),
                found,
                certain = table.confirmed(),
                awaited = awaited.as_ref().map(BTreeSet::len),
                wait_seconds = grace.as_secs(),
                "registry store was damaged: /sd answers 503 until the aliases that were noted are there again, or their \
                 clients had the time to register"
            );
            Recovery { awaited, until: Instant::now() + grace }
        });
        let mut state = self.write();
        state.totals.store_damaged = u64::from(recovery.is_some());
        state.recovery = recovery;
        state.table = Some(table);
        state.position = Position::new(position);
        state.phase = Phase::Serving(queue);
        state.generation += 1;
        state.totals.unreadable_records = unreadable;
        let notification = self.publish(&mut state, effects, Cause::Time, None);
        drop(state);
        self.notify(notification);
    }

    /// Makes the writer write its plain renewals, and whatever failed before. If the queue is full, the previous flush is
    /// still in it.
    pub(super) fn flush(&self) {
        let Ok(slot) = Arc::clone(&self.shared.slots).try_acquire_owned() else { return };
        if let Phase::Serving(queue) = &self.read().phase {
            let waiter = Waiter { ack: oneshot::channel().0, _slot: slot };
            let _ = queue.send(Batch { durable: true, waiter: Some(waiter), ..Batch::default() });
        }
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

fn receiver<T>(mut inbox: mpsc::Receiver<T>) -> impl Stream<Item = T> {
    stream::poll_fn(move |context| inbox.poll_recv(context))
}

fn interval(period: Duration) -> time::Interval {
    let mut interval = time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// How a recovery has ended.
struct Recovered {
    missing: BTreeSet<Name>,
    dropped: BTreeSet<Name>,
    /// Beacons that are still in doubt: nobody need register one again.
    kept: BTreeSet<Name>,
}

impl Recovered {
    fn log(&self) {
        let Self { missing, dropped, kept } = self;
        tracing::info!(
            missing = missing.len(),
            dropped = dropped.len(),
            kept_in_doubt = kept.len(),
            "the recovery of the damaged table has ended"
        );
        warn_of(missing, "these were lost with the damaged table, and nobody has registered them since");
        warn_of(
            dropped,
            "aliases were dropped: the damage may have taken their release, and nobody renewed them since",
        );
        warn_of(
            kept,
            "the damage may have taken changes of these beacons, which are listed: register or unregister them again",
        );
    }
}

fn warn_of(all: &BTreeSet<Name>, what: &str) {
    if all.is_empty() {
        return;
    }
    let named: Vec<String> = all.iter().take(NAMED).map(Name::to_string).collect();
    tracing::warn!(names = named.join(" "), more = all.len() - named.len(), "{what}");
}
