//! How aliases are given up, by their holder or by the operator.

use std::{collections::HashSet, mem, sync::Arc, time::SystemTime};

use super::{Claims, Effects, Table};
use crate::{
    identity::PublicKey,
    registry::{Change, EventKind, Lease},
    wire::Alias,
};

impl Table {
    /// The peer gives up all its aliases.
    pub(in crate::registry) fn release_peer(&mut self, peer: &PublicKey, now: SystemTime) -> Effects {
        let mut effects = Effects::default();
        for alias in self.by_peer.get(peer).cloned().unwrap_or_default() {
            self.give_up(&alias, now, &mut effects);
        }
        let ended = self.ended.take_of(peer, |_| true);
        Self::drop_ended(ended, EventKind::Released, &mut effects);
        effects
    }

    /// Ends every lease that is `meant`, also where it could return.
    pub(in crate::registry) fn release_all(&mut self, meant: impl Fn(&Lease) -> bool) -> Effects {
        let mut effects = Effects::default();
        let (held, left): (Vec<_>, Vec<_>) = self.leases().into_iter().partition(|lease| meant(lease));
        for lease in held {
            self.end(&lease.alias, EventKind::Released, &mut effects);
        }
        let ended = self.ended.take_where(&meant);
        Self::drop_ended(ended, EventKind::Released, &mut effects);
        for lease in left {
            if lease.former.as_ref().is_some_and(|former| meant(former))
                && let Some(entry) = self.entries.get_mut(&lease.alias)
            {
                entry.lease = Arc::new(Lease { former: None, ..Lease::clone(&lease) });
                effects.changes.push(Change::Put(Arc::clone(&entry.lease)));
            }
        }
        effects
    }

    /// Releases the alias, whoever holds it.
    pub(in crate::registry) fn release(&mut self, alias: &Alias) -> Effects {
        let mut effects = Effects::default();
        self.end(alias, EventKind::Released, &mut effects);
        Self::drop_ended(self.ended.take(alias), EventKind::Released, &mut effects);
        effects
    }

    /// Drops what nobody has renewed since the store was damaged: the damage may have taken its release.
    pub(in crate::registry) fn drop_unconfirmed(&mut self) -> Effects {
        let mut effects = Effects::default();
        for alias in mem::take(&mut self.unconfirmed) {
            self.end(&alias, EventKind::Gone, &mut effects);
        }
        effects
    }

    pub(super) fn release_left_out(
        &mut self,
        peer: &PublicKey,
        claims: &Claims,
        now: SystemTime,
        effects: &mut Effects,
    ) {
        let claimed: HashSet<&Alias> = claims.targets.iter().flatten().map(|claimed| &claimed.target.alias).collect();
        let ended = self.ended.take_of(peer, |alias| !claimed.contains(alias));
        Self::drop_ended(ended, EventKind::Released, effects);
        let Some(held) = self.by_peer.get(peer) else { return };
        let left_out: Vec<Alias> = held.iter().filter(|alias| !claimed.contains(alias)).cloned().collect();
        for alias in left_out {
            self.give_up(&alias, now, effects);
        }
    }

    /// Drops leases that had ended before the load, from the disk too.
    pub(super) fn drop_ended(ended: impl IntoIterator<Item = Arc<Lease>>, kind: EventKind, effects: &mut Effects) {
        for lease in ended {
            effects.event(&lease.alias, lease.peer, kind);
            effects.changes.push(Change::Remove(lease.alias.clone()));
        }
    }

    pub(super) fn end(&mut self, alias: &Alias, kind: EventKind, effects: &mut Effects) {
        if let Some(entry) = self.entries.remove(alias) {
            self.unconfirmed.remove(alias);
            self.unindex(&entry);
            effects.event(alias, entry.lease.peer, kind);
            effects.changes.push(Change::Remove(alias.clone()));
        }
    }
}
