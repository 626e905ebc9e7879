//! How a step changes the table: under the lock, and queued for the writer in the same order; published and logged after it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use tokio::sync::oneshot;

use super::{Phase, Recovery, Registry, State};
use crate::{
    identity::PublicKey,
    registry::{
        BeaconEvent, BeaconEventKind, Cause, Change, EventKind, JournalEntry, Name, RegistryError, RegistryEvent,
        table::{Claims, ClockStep, Effects, Table},
        writer::{Batch, Outcome, Waiter},
    },
    telemetry::Limit,
    wire::{Alias, AliasOutcome},
};

/// How often a change is decided in all, if other scrapers change the same names at the same time.
const ATTEMPTS: usize = 16;

impl Registry {
    /// Applies a step to the table, queues its changes, and waits until they are on disk. If another scraper was first with one
    /// of them, the step is applied again to the table that has adopted that one's.
    pub(super) async fn change<T>(
        &self,
        cause: Cause,
        step: impl Fn(&mut Table) -> (T, Effects),
    ) -> Result<T, RegistryError> {
        for _ in 0..ATTEMPTS {
            if let Some(value) = self.attempt(cause, &step).await? {
                return Ok(value);
            }
        }
        Err(RegistryError::Contended)
    }

    async fn attempt<T>(
        &self,
        cause: Cause,
        step: &impl Fn(&mut Table) -> (T, Effects),
    ) -> Result<Option<T>, RegistryError> {
        self.check_serving(&self.read().phase)?;
        let slot = Arc::clone(&self.shared.slots).acquire_owned().await.map_err(|_| RegistryError::Stopped)?;
        // No await between here and the answer: a caller that gives up does so before the step or after.
        let (ack, answer) = oneshot::channel();
        let (value, notification) = {
            let mut state = self.write();
            self.check_serving(&state.phase)?;
            let (value, effects) = step(state.table.as_mut().ok_or(RegistryError::NotReady)?);
            (value, self.publish(&mut state, effects, cause, Some(Waiter { ack, _slot: slot })))
        };
        self.notify(notification);
        let outcome = answer.await.map_err(|_| RegistryError::Stopped)?.map_err(RegistryError::Store)?;
        Ok((outcome == Outcome::Written).then_some(value))
    }

    /// Registers while the store fails: extends the claimed leases, and refuses anything else.
    pub(super) fn renew(
        &self,
        peer: PublicKey,
        claims: Claims,
        now: SystemTime,
    ) -> Result<Vec<AliasOutcome>, RegistryError> {
        let mut state = self.write();
        match self.check_serving(&state.phase) {
            Ok(()) | Err(RegistryError::StoreFailing) => {}
            Err(error) => return Err(error),
        }
        let written = self.shared.health.written.load(Ordering::Acquire);
        let table = state.table.as_mut().ok_or(RegistryError::NotReady)?;
        let (outcomes, mut effects) = table.renew(peer, claims, written, now);
        if self.shared.health.is_hanging() {
            // They would pile up in the queue. The next renewal is written.
            effects.changes.clear();
        }
        let notification = self.publish(&mut state, effects, Cause::Peer, None);
        drop(state);
        self.notify(notification);
        outcomes.ok_or(RegistryError::StoreFailing)
    }

    /// An error while changes cannot be stored.
    pub(super) fn check_serving(&self, phase: &Phase) -> Result<(), RegistryError> {
        match phase {
            Phase::New | Phase::Loading => Err(RegistryError::NotReady),
            Phase::Stopped => Err(RegistryError::Stopped),
            Phase::Serving(_) if self.store_failing() => Err(RegistryError::StoreFailing),
            Phase::Serving(_) => Ok(()),
        }
    }

    /// Counts the effects of a step and queues its changes. The notification is for after the unlock.
    pub(super) fn publish(
        &self,
        state: &mut State,
        effects: Effects,
        cause: Cause,
        waiter: Option<Waiter>,
    ) -> Notification {
        state.generation += u64::from(effects.are_visible());
        state.totals.renewed += effects.renewed;
        for event in &effects.events {
            state.totals.count(event.kind);
            // An error means that there is no subscriber.
            let _ = self.shared.events.send(event.clone());
        }
        effects.beacon_events.iter().for_each(|event| state.totals.count_beacon(event.kind));
        let entries = self.journal_of(state, &effects.events, cause);
        let mut is_complete = false;
        if let (Some(Recovery { awaited: Some(awaited), .. }), Some(table)) = (&mut state.recovery, &state.table)
            && !awaited.is_empty()
        {
            // What was released is not awaited either.
            let is_settled = |name: &Name| table.is_certain(name) || !table.has(name);
            for name in effects.changes.iter().map(Change::name).filter(is_settled) {
                awaited.remove(&name);
            }
            is_complete = awaited.is_empty();
        }
        if let Phase::Serving(queue) = &state.phase
            && (waiter.is_some() || !effects.changes.is_empty() || !effects.notes.is_empty() || !entries.is_empty())
        {
            let (durable, step) = (effects.are_durable(), effects.step);
            let batch = Batch { notes: effects.notes, changes: effects.changes, entries, durable, step, waiter };
            // If the writer has died, the waiter is dropped with the batch and its caller gets an error.
            let _ = queue.send(batch);
        }
        let Effects { events, beacon_events, clock, refused, .. } = effects;
        Notification { generation: state.generation, events, beacon_events, clock, refused, is_complete }
    }

    /// What the journal gets, if there is one.
    fn journal_of(&self, state: &State, events: &[RegistryEvent], cause: Cause) -> Vec<JournalEntry> {
        if !self.shared.is_journaled.load(Ordering::Acquire) {
            return Vec::new();
        }
        let at = self.shared.clock.now();
        let mut entries = Vec::new();
        for RegistryEvent { alias, peer, kind } in events.iter().filter(|event| JournalEntry::is_about(event.kind)) {
            let lease = state.table.as_ref().and_then(|table| table.lookup(alias.as_str()));
            let (own, other): (Option<_>, Option<_>) = match lease {
                Some(lease) if lease.peer == *peer => (Some(lease), None),
                lease => (None, lease),
            };
            let secret = own.and_then(|lease| lease.secret);
            entries.push(JournalEntry { alias: alias.clone(), peer: *peer, kind: *kind, cause, secret, at });
            // What a taker gives up falls back to the holder of before.
            if let (EventKind::Released | EventKind::Gone, Some(lease)) = (kind, other) {
                let (peer, secret, kind) = (lease.peer, lease.secret, EventKind::Returned);
                entries.push(JournalEntry { alias: alias.clone(), peer, kind, cause, secret, at });
            }
        }
        entries
    }

    /// Publishes the generation and logs. Not under the lock: logs and subscribers may block.
    pub(super) fn notify(&self, notification: Notification) {
        self.shared.changes.send_if_modified(|generation| {
            // Two threads may come here in another order than they held the lock.
            let newer = notification.generation > *generation;
            *generation = notification.generation.max(*generation);
            newer
        });
        if notification.is_complete {
            tracing::info!("the aliases from before the damage are there again: /sd lists them");
        }
        notification.clock.into_iter().for_each(ClockStep::log);
        let secret_of = |alias: &Alias| self.secret_name(&*self.lookup(alias.as_str()).ok()??);
        self.shared.log.write(&notification.events, secret_of);
        notification.beacon_events.iter().for_each(log_beacon);
        for (limit, alias) in notification.refused {
            self.shared.refusals.count(limit, format_args!("alias {alias}"));
        }
    }
}

/// What is published and logged about a step.
pub(super) struct Notification {
    generation: u64,
    events: Vec<RegistryEvent>,
    beacon_events: Vec<BeaconEvent>,
    clock: Option<ClockStep>,
    refused: Vec<(Limit, Alias)>,
    /// The aliases from before the damage of the store are there again.
    is_complete: bool,
}

/// Whoever may register beacons is trusted with the log.
fn log_beacon(event: &BeaconEvent) {
    let beacon = &event.name;
    match event.kind {
        BeaconEventKind::Registered => tracing::info!(%beacon, "beacon registered"),
        BeaconEventKind::Updated => tracing::info!(%beacon, "beacon updated"),
        BeaconEventKind::Unregistered => tracing::info!(%beacon, "beacon unregistered"),
        BeaconEventKind::Expired => tracing::info!(%beacon, "beacon expired: it was not registered again in time"),
    }
}
