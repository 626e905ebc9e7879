//! Every decision about aliases: a plain data structure without a clock or a task.
//!
//! Its indexes agree at all times: the leases by alias, the aliases of each peer, what each secret has, and the time
//! of each lease's next state (active, then lapsed, then gone). After a registration the peer holds exactly the aliases
//! that were granted.

mod adopt;
mod beacon_steps;
mod beacons;
mod claims;
mod clock;
mod effects;
mod ended;
mod entry;
mod index;
mod release;
mod takeover;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Change, Contents, EventKind, Lease, LeaseState, Name, Presence, Registrant, RegistryConfig,
    budget::{Budget, Taken},
    lease::later,
};
use crate::{
    access::{AliasPolicy, Quota},
    identity::{PublicKey, SecretId},
    telemetry::Limit,
    wire::{Alias, AliasGuard, AliasOutcome, AliasRefusal, AliasStatus},
};

use beacons::Beacons;
pub(crate) use beacons::Kept;
use claims::Claimed;
pub(super) use claims::Claims;
pub(super) use effects::{ClockStep, Effects};
use ended::Ended;
use entry::{Entry, OfSecret};

/// The leases of a scraper.
#[derive(Debug)]
pub(super) struct Table {
    config: RegistryConfig,
    entries: BTreeMap<Alias, Entry>,
    by_peer: HashMap<PublicKey, BTreeSet<Alias>>,
    by_secret: HashMap<SecretId, OfSecret>,
    due: BTreeSet<(SystemTime, Alias)>,
    lapsed: usize,
    /// Of all aliases, in the http_sd list.
    bytes: u64,
    loaded_at: SystemTime,
    /// The latest time passed in, unless the clock was set back.
    seen_at: SystemTime,
    /// Registrations so far: the number of the last one.
    steps: u64,
    /// Entries of which damage of the store may have taken a change, and that nobody has renewed since.
    unconfirmed: BTreeSet<Alias>,
    ended: Ended,
    beacons: Beacons,
}

/// Numbers of aliases and peers, as of the last sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) active: usize,
    /// Aliases with a lapsed lease, which are still listed.
    pub(crate) lapsed: usize,
    pub(crate) peers: usize,
    pub(crate) beacons: usize,
}

/// Who claims, and what is left to it.
struct Claimant {
    by: Registrant,
    hostname: String,
    budget: Budget,
    tenant: Tenant,
}

/// Those who share a quota, and a policy among themselves.
struct Tenant {
    quota: Quota,
    secret: SecretId,
    kin: Arc<[SecretId]>,
}

impl Tenant {
    fn has(&self, entry: &Entry) -> bool {
        entry.lease.secret.is_some_and(|id| id == self.secret || self.kin.contains(&id))
    }
}

impl Table {
    /// Builds the table from what was stored. Leases whose time is over are kept beside it for a while.
    pub(super) fn load(
        config: RegistryConfig,
        contents: Contents,
        unconfirmed: BTreeSet<Alias>,
        now: SystemTime,
    ) -> (Self, Effects) {
        let mut table = Self {
            ended: Ended::new(later(now, config.lease)),
            config,
            entries: BTreeMap::new(),
            by_peer: HashMap::new(),
            by_secret: HashMap::new(),
            due: BTreeSet::new(),
            lapsed: 0,
            bytes: 0,
            loaded_at: now,
            seen_at: now,
            steps: 0,
            unconfirmed,
            beacons: Beacons::load(contents.beacons),
        };
        let mut effects = Effects::default();
        for lease in contents.leases {
            table.take_stored(lease, now);
        }
        // The clock may have been set back while nothing ran.
        table.shorten(now, &mut effects);
        (table, effects)
    }

    /// Grants or refuses each claim, and releases what the peer held and was not granted again.
    pub(super) fn register(
        &mut self,
        by: &Registrant,
        claims: Claims,
        presence: impl Fn(&PublicKey) -> Presence,
        now: SystemTime,
    ) -> (Vec<AliasOutcome>, Effects) {
        self.steps += 1;
        let mut effects = Effects { step: self.steps, ..Effects::default() };
        self.advance(now, &mut effects);
        // Release first: a peer can then swap an alias in a full table.
        self.release_left_out(&by.peer, &claims, now, &mut effects);
        let Claims { hostname, targets, quota, kin } = claims;
        let tenant = Tenant { quota, secret: by.secret, kin };
        // An alias that shrinks leaves room for those before too.
        let kept = targets.iter().flatten().map(|claimed| claimed.bytes.min(self.own_bytes(&by.peer, claimed))).sum();
        let of_secret = self.of_secret(&by.secret).bytes;
        let by_quota = self.of_tenant(&tenant).bytes;
        let taken = Taken { by_peer: kept, by_secret: of_secret, by_quota, by_table: self.bytes() };
        let mut claimant = Claimant { by: *by, hostname, budget: Budget::new(&self.config, quota, taken), tenant };
        let mut seen = HashSet::new();
        let outcomes = targets.into_iter().map(|claimed| match claimed {
            Err(refusal) => AliasOutcome::Refused(refusal),
            Ok(Claimed { target, .. }) if !seen.insert(target.alias.clone()) => {
                AliasOutcome::Refused(AliasRefusal::Duplicate)
            }
            Ok(claimed) => self.claim(&mut claimant, claimed, &presence, now, &mut effects),
        });
        (outcomes.collect(), effects)
    }

    /// Renews while nothing can be written: extends the leases that the peer still claims, as their ends need not be on
    /// disk. The outcomes are `None` if the peer claims anything else, or a lease that is not on disk yet. `written` is
    /// the last registration on disk.
    pub(super) fn renew(
        &mut self,
        peer: PublicKey,
        claims: Claims,
        written: u64,
        now: SystemTime,
    ) -> (Option<Vec<AliasOutcome>>, Effects) {
        let mut effects = Effects::default();
        let count = claims.targets.len();
        // Stays true while the registration is nothing but a renewal of what is on disk.
        let mut plain = self.by_peer.get(&peer).map_or(0, BTreeSet::len) == count;
        let mut seen = HashSet::new();
        for claimed in claims.targets {
            let held = claimed.as_ref().ok().and_then(|claimed| self.entries.get(&claimed.target.alias));
            let (Ok(Claimed { target, .. }), Some(&Entry { ref lease, lapsed, step, bytes, .. })) = (claimed, held)
            else {
                plain = false;
                continue;
            };
            if lease.peer != peer {
                plain = false;
                continue;
            }
            plain &= lease.matches(&target, &claims.hostname) && step <= written;
            let expires_at = self.end_of_lease(Some(lease.expires_at), now);
            let moved = lapsed || expires_at != lease.expires_at;
            let lease = Arc::new(Lease { renewed_at: now, expires_at, ..Lease::clone(lease) });
            match lapsed {
                true => effects.event(&target.alias, peer, EventKind::Returned),
                false => effects.renewed += 1,
            }
            effects.changes.extend(moved.then(|| Change::Put(Arc::clone(&lease))));
            effects.relisted |= self.unconfirmed.remove(&target.alias);
            self.insert(Entry { lease, lapsed: false, step, bytes, given: Duration::ZERO });
            plain &= seen.insert(target.alias);
        }
        (plain.then(|| vec![AliasOutcome::Granted { updated: false }; count]), effects)
    }

    pub(super) fn lookup(&self, alias: &str) -> Option<Arc<Lease>> {
        self.entries.get(alias).map(|entry| Arc::clone(&entry.lease))
    }

    pub(super) fn is_holder(&self, peer: &PublicKey) -> bool {
        self.by_peer.contains_key(peer) || self.ended.is_holder(peer)
    }

    /// Since when the peer holds any alias; none if it holds none, or its leases ended before the start.
    pub(super) fn holder_since(&self, peer: &PublicKey) -> Option<SystemTime> {
        let aliases = self.by_peer.get(peer)?;
        aliases.iter().filter_map(|alias| self.entries.get(alias)).map(|entry| entry.lease.registered_at).min()
    }

    /// The status of the alias for a peer that would claim it.
    pub(super) fn status(
        &self,
        alias: &str,
        presence: impl Fn(&PublicKey) -> Presence,
        now: SystemTime,
    ) -> AliasStatus {
        match self.entries.get(alias) {
            None if alias.parse::<Alias>().is_err() => AliasStatus::Invalid,
            None if self.is_full() => AliasStatus::Full,
            None => AliasStatus::Free,
            Some(entry) => {
                let holder = entry.lease.peer;
                let present = presence(&holder);
                let guard = match self.config.policy {
                    _ if self.may_be_taken(entry, self.config.policy, present, now) => AliasGuard::None,
                    AliasPolicy::Pinned => AliasGuard::Pinned,
                    AliasPolicy::Live | AliasPolicy::Overwrite => AliasGuard::Live,
                };
                AliasStatus::Held { holder, linked: present == Presence::Linked, guard }
            }
        }
    }

    /// Every lease, in the order of the aliases.
    pub(super) fn leases(&self) -> Vec<Arc<Lease>> {
        self.entries.values().map(|entry| Arc::clone(&entry.lease)).collect()
    }

    /// The leases without those in doubt: the damage may have taken their release, and who holds them registers again.
    pub(super) fn certain_leases(&self) -> Vec<Arc<Lease>> {
        let certain = self.entries.iter().filter(|(alias, _)| !self.unconfirmed.contains(*alias));
        certain.map(|(_, entry)| Arc::clone(&entry.lease)).collect()
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            active: self.entries.len() - self.lapsed,
            lapsed: self.lapsed,
            peers: self.by_peer.len(),
            beacons: self.beacons.len(),
        }
    }

    /// Entries that are certain.
    pub(super) fn confirmed(&self) -> usize {
        self.entries.len() - self.unconfirmed.len()
    }

    /// Leases that had ended before the load, and are kept for now.
    pub(super) fn ended(&self) -> usize {
        self.ended.len()
    }

    /// True if the name is there, and no damage may have taken its release or change.
    pub(super) fn is_certain(&self, name: &Name) -> bool {
        match name {
            Name::Alias(alias) => self.entries.contains_key(alias) && !self.unconfirmed.contains(alias),
            Name::Beacon(name) => self.beacons.is_certain(name),
        }
    }

    pub(super) fn has(&self, name: &Name) -> bool {
        match name {
            Name::Alias(alias) => self.entries.contains_key(alias),
            Name::Beacon(name) => self.beacons.get(name).is_some(),
        }
    }

    pub(super) fn is_all_confirmed(&self) -> bool {
        self.unconfirmed.is_empty() && self.beacons.unconfirmed().is_empty()
    }

    /// Bytes of all aliases in the http_sd list, and of the beacons.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes + self.beacons.bytes()
    }

    /// Aliases and beacons.
    fn count(&self) -> usize {
        self.entries.len() + self.beacons.len()
    }

    /// Refuses a claim for a limit. A peer holds what it was granted, and no older state of it.
    fn refuse(
        &mut self,
        alias: Alias,
        is_own: bool,
        limit: Limit,
        now: SystemTime,
        effects: &mut Effects,
    ) -> AliasOutcome {
        if is_own {
            self.give_up(&alias, now, effects);
        }
        effects.refuse(alias, limit)
    }

    fn claim(
        &mut self,
        claimant: &mut Claimant,
        Claimed { target, bytes }: Claimed,
        presence: &impl Fn(&PublicKey) -> Presence,
        now: SystemTime,
        effects: &mut Effects,
    ) -> AliasOutcome {
        let Claimant { ref by, ref hostname, ref mut budget, ref tenant } = *claimant;
        let peer = by.peer;
        let held = self.entries.get(&target.alias);
        let own = held.filter(|entry| entry.lease.peer == peer);
        let other = held.filter(|entry| entry.lease.peer != peer);
        let same_tenant = other.is_some_and(|entry| tenant.has(entry));
        let policy = tenant.quota.policy.filter(|_| same_tenant).unwrap_or(self.config.policy);
        if let Some(holder) = other.map(|entry| entry.lease.peer)
            && !other.is_some_and(|entry| self.is_former(entry, &peer, now))
            && !other.is_some_and(|entry| self.may_be_taken(entry, policy, presence(&holder), now))
        {
            effects.event(&target.alias, peer, EventKind::TakeoverRefused { holder });
            return AliasOutcome::Refused(AliasRefusal::Taken);
        }
        if let Some(limit) = self.reached_limit(held, by, tenant) {
            return self.refuse(target.alias, own.is_some(), limit, now, effects);
        }
        let secret = Some(by.secret);
        let is_changed =
            own.is_none_or(|Entry { lease, .. }| !lease.matches(&target, hostname) || lease.secret != secret);
        let kind = match (own, other) {
            (Some(entry), _) if entry.lapsed => Some(EventKind::Returned),
            (Some(entry), _) if entry.lease.secret != secret => Some(EventKind::SecretChanged),
            (Some(_), _) => is_changed.then_some(EventKind::Updated),
            (None, Some(entry)) => Some(EventKind::TakenOver { from: entry.lease.peer }),
            (None, None) => Some(EventKind::Registered),
        };
        let of_secret = held.filter(|entry| entry.counts_for(by));
        let of_quota = held.filter(|entry| tenant.has(entry));
        let [by_peer, by_secret, by_quota, by_table] =
            [own, of_secret, of_quota, held].map(|entry| entry.map_or(0, |entry| entry.bytes));
        if let Err(limit) = budget.take(bytes, Taken { by_peer, by_secret, by_quota, by_table }) {
            return self.refuse(target.alias, own.is_some(), limit, now, effects);
        }
        let step = own.filter(|_| kind.is_none()).map_or(self.steps, |entry| entry.step);
        match kind {
            Some(kind) => effects.event(&target.alias, peer, kind),
            None => effects.renewed += 1,
        }
        let kept = by.kept.unwrap_or_else(|| own.is_some_and(|entry| entry.lease.kept));
        let same = own.filter(|Entry { lease, .. }| kind.is_none() && lease.kept == kept);
        let expires_at = self.end_of_lease(same.map(|entry| entry.lease.expires_at), now);
        let moved = same.is_none_or(|entry| entry.lease.expires_at != expires_at);
        let lease = Arc::new(Lease {
            alias: target.alias,
            peer,
            service: target.service,
            hostname: hostname.clone(),
            labels: target.labels,
            listed: target.listed,
            kept,
            secret,
            former: held.and_then(|entry| self.former(entry, policy, &peer, now)),
            registered_at: own.map_or(now, |entry| entry.lease.registered_at),
            renewed_at: now,
            expires_at,
        });
        effects.changes.extend(moved.then(|| Change::Put(Arc::clone(&lease))));
        effects.relisted |= self.unconfirmed.remove(&lease.alias);
        self.insert(Entry { lease, lapsed: false, step, bytes, given: Duration::ZERO });
        AliasOutcome::Granted { updated: is_changed }
    }

    fn own_bytes(&self, peer: &PublicKey, claimed: &Claimed) -> u64 {
        let held = self.entries.get(&claimed.target.alias);
        held.filter(|entry| entry.lease.peer == *peer).map_or(0, |entry| entry.bytes)
    }

    fn is_full(&self) -> bool {
        self.count() >= self.config.max_targets || self.bytes() >= self.config.max_table_bytes
    }
}

#[cfg(test)]
mod tests;
