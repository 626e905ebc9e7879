//! Who may take an alias over, and who takes it back.
//!
//! Under the policy `live` a holder may be away for a while. A key that is kept is sure to come back with the same key, so
//! its lease protects it, not its link; and what was taken from it all the same stays noted as the *former* lease of the
//! alias until the retention of that lease ends. Meanwhile the former holder takes the alias back, and has it again if
//! the taker gives it up: taking, releasing and claiming with a third key is no way around.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Change, Effects, Entry, EventKind, Lease, LeaseState, Presence, Registrant, RegistryConfig, Table, Tenant, later,
};
use crate::{access::AliasPolicy, identity::PublicKey, telemetry::Limit, wire::Alias};

impl Table {
    /// The limit that a claim to an alias, which may be held, would exceed. A peer keeps what it has.
    pub(super) fn reached_limit(&self, held: Option<&Entry>, by: &Registrant, tenant: &Tenant) -> Option<Limit> {
        let counted = held.is_some_and(|entry| entry.counts_for(by));
        if held.is_none() && self.count() >= self.config.max_targets {
            return Some(Limit::Aliases);
        }
        // A share of the table lets in what a peer brings from a secret that is replaced; a quota counts for itself.
        let share = self.config.max_per_secret.unwrap_or(self.config.max_targets);
        let has = self.of_secret(&by.secret).aliases;
        let is_new = !held.is_some_and(|entry| tenant.has(entry));
        let most = tenant.quota.max_aliases.filter(|_| is_new);
        let over = (!counted && has >= share) || most.is_some_and(|most| self.of_tenant(tenant).aliases >= most);
        over.then_some(Limit::AliasesPerSecret)
    }

    /// True if any other peer may take the alias of this holder.
    pub(super) fn may_be_taken(&self, entry: &Entry, policy: AliasPolicy, holder: Presence, now: SystemTime) -> bool {
        let RegistryConfig { start_grace, takeover_grace, .. } = self.config;
        // A clock that was set back is past the grace, not in it for however long it was set back.
        let loaded_for = now.duration_since(self.loaded_at).unwrap_or(Duration::MAX);
        match policy {
            AliasPolicy::Overwrite => true,
            AliasPolicy::Pinned => false,
            AliasPolicy::Live if entry.lease.kept => {
                loaded_for >= start_grace && entry.lapsed && later(entry.lease.expires_at, takeover_grace) <= now
            }
            AliasPolicy::Live => {
                let away = match holder {
                    Presence::Linked => false,
                    Presence::Lost(ago) => ago >= takeover_grace,
                    Presence::Unseen => loaded_for >= takeover_grace,
                };
                entry.lapsed || (loaded_for >= start_grace && away)
            }
        }
    }

    /// True if the alias was taken from this peer, which may take it back.
    pub(super) fn is_former(&self, entry: &Entry, peer: &PublicKey, now: SystemTime) -> bool {
        self.standing(entry, now).is_some_and(|former| former.peer == *peer)
    }

    /// The lease that may return when the alias is now `peer`'s: of those that it was taken from, the first that still may.
    pub(super) fn former(
        &self,
        entry: &Entry,
        policy: AliasPolicy,
        peer: &PublicKey,
        now: SystemTime,
    ) -> Option<Arc<Lease>> {
        let taken = entry.lease.kept && entry.lease.peer != *peer && policy == AliasPolicy::Live;
        let holder = || taken.then(|| Arc::new(Lease { former: None, ..Lease::clone(&entry.lease) }));
        self.standing(entry, now).cloned().or_else(holder).filter(|former| former.peer != *peer)
    }

    /// The entry's former lease, while its retention lasts.
    fn standing<'a>(&self, entry: &'a Entry, now: SystemTime) -> Option<&'a Arc<Lease>> {
        entry.lease.former.as_ref().filter(|former| now < later(former.expires_at, self.config.retention))
    }

    /// The holder gives the alias up, which falls back to whom it was taken from.
    pub(super) fn give_up(&mut self, alias: &Alias, now: SystemTime, effects: &mut Effects) {
        let former = self.entries.get(alias).and_then(|entry| self.standing(entry, now)).cloned();
        self.end(alias, EventKind::Released, effects);
        if let Some(lease) = former {
            effects.changes.push(Change::Put(Arc::clone(&lease)));
            let lapsed = lease.state(now) == LeaseState::Lapsed;
            self.insert(Entry::new(lease, lapsed, self.steps));
        }
    }
}
