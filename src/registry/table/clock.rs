//! Leases and the passing of time.
//!
//! Leases end at wall-clock times, so that a restart revives no lease. But a clock may be set, a process may be frozen,
//! and a machine may sleep; live clients then had no chance to renew. A table is swept each second. A jump of more than
//! [`UNWATCHED`] between two sweeps, for whatever reason, shows nothing about which clients are alive.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Change, ClockStep, Effects, Entry, EventKind, Lease, LeaseState, Table, later};

/// Most time between two sweeps, which are one second apart, of a process that runs and a clock that is not set.
pub(super) const UNWATCHED: Duration = Duration::from_secs(5);

impl Table {
    /// Takes every lease that is due to its next state; others cost nothing. Must be called each second. After a pause,
    /// leases that ran before are extended by the time that a client needs to renew.
    pub(in crate::registry) fn sweep(&mut self, now: SystemTime) -> Effects {
        let mut effects = Effects::default();
        if let Ok(back) = self.seen_at.duration_since(now)
            && back > UNWATCHED
        {
            effects.clock = Some(ClockStep::Back(back));
            self.seen_at = now;
            self.judge_ended(now, &mut effects);
            self.shorten(now, &mut effects);
            self.beacons.shorten(now, &mut effects);
        }
        self.advance(now, &mut effects);
        effects
    }

    /// As [`sweep`](Self::sweep), for a `now` that may be a little old: a registration may have waited for the lock.
    pub(super) fn advance(&mut self, now: SystemTime, effects: &mut Effects) {
        let ahead = now.duration_since(self.seen_at).unwrap_or_default();
        self.seen_at += ahead;
        if ahead > UNWATCHED {
            effects.clock = Some(ClockStep::Ahead(ahead));
            self.give_time_to_renew(now, effects);
            self.beacons.give_time(now, effects);
        }
        self.beacons.end(now, effects);
        self.judge_ended(now, effects);
        while let Some((at, _)) = self.due.first() {
            if *at > now {
                break;
            }
            let Some((_, alias)) = self.due.pop_first() else { break };
            match self.entries.get_mut(alias.as_str()) {
                Some(entry) if !entry.lapsed => {
                    entry.lapsed = true;
                    self.lapsed += 1;
                    effects.event(&alias, entry.lease.peer, EventKind::Lapsed);
                    self.due.insert((later(entry.lease.expires_at, self.config.retention), alias));
                }
                _ => self.end(&alias, EventKind::Gone, effects),
            }
        }
    }

    /// Takes a stored lease into the table, or keeps it beside the table if its time is over.
    pub(super) fn take_stored(&mut self, lease: Arc<Lease>, now: SystemTime) {
        let lapsed = lease.state(now) == LeaseState::Lapsed;
        if lapsed && later(lease.expires_at, self.config.retention) <= now {
            self.unconfirmed.remove(&lease.alias);
            self.ended.keep(lease);
        } else {
            self.insert(Entry::new(lease, lapsed, 0));
        }
    }

    /// Judges again after the clock was set, and drops what is still over in the end.
    fn judge_ended(&mut self, now: SystemTime, effects: &mut Effects) {
        if effects.clock.is_some() {
            self.ended.until = later(now, self.config.lease);
            let before = self.ended.take_all();
            let count = before.len();
            for lease in before {
                self.take_stored(lease, now);
            }
            effects.relisted |= self.ended.len() < count;
        } else if now >= self.ended.until {
            Self::drop_ended(self.ended.take_all(), EventKind::Gone, effects);
        }
    }

    /// Lets no running lease end within half a lease: holders renew each third, and may have to link again first. A lease
    /// that is not renewed gets one lease of such time in all: on a machine that is always short of time the dead lapse, too.
    fn give_time_to_renew(&mut self, now: SystemTime, effects: &mut Effects) {
        let (most, at_least) = (self.config.lease, later(now, self.config.lease / 2));
        self.move_ends(effects, |entry| {
            let from = entry.lease.expires_at.max(now);
            let given = at_least.duration_since(from).unwrap_or_default().min(most.saturating_sub(entry.given));
            (!entry.lapsed && !given.is_zero()).then(|| (later(from, given), given))
        });
    }

    /// Lets no lease run longer than one that is renewed now, and no lapsed lease run again.
    pub(super) fn shorten(&mut self, now: SystemTime, effects: &mut Effects) {
        let at_most = later(later(now, self.config.lease), self.config.slack);
        self.move_ends(effects, |entry| {
            Some((entry.lease.expires_at.min(if entry.lapsed { now } else { at_most }), Duration::ZERO))
        });
    }

    /// Moves leases to the ends that `end` has for them, with the time that it gives them.
    fn move_ends(&mut self, effects: &mut Effects, end: impl Fn(&Entry) -> Option<(SystemTime, Duration)>) {
        let moved = self.entries.values().filter_map(|entry| {
            let (expires_at, given) = end(entry).filter(|(end, _)| *end != entry.lease.expires_at)?;
            let lease = Arc::new(Lease { expires_at, ..Lease::clone(&entry.lease) });
            Some(Entry { lease, given: entry.given + given, ..*entry })
        });
        for entry in moved.collect::<Vec<_>>() {
            effects.changes.push(Change::Put(Arc::clone(&entry.lease)));
            self.insert(entry);
        }
    }
}
