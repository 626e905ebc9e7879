use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::{
    access::Scope,
    identity::KeyPair,
    registry::{Holders, RegistryError},
    telemetry::Limit,
    wire::{Claim, Register},
};

mod beacons;
mod budget;
mod takeover;

const LEASE: Duration = Duration::from_secs(600);
const RETENTION: Duration = Duration::from_secs(3 * 3600);
const GRACE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn t0() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn peer(seed: u8) -> PublicKey {
    KeyPair::from_seed(&[seed; 32]).public()
}

fn alias(text: &str) -> Alias {
    text.parse().expect("an alias")
}

fn claim(alias: &str, labels: &[(&str, &str)]) -> Claim {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Claim { alias: alias.into(), service: "web".into(), labels, unlisted: false }
}

fn linked(_: &PublicKey) -> Presence {
    Presence::Linked
}

fn unlinked(_: &PublicKey) -> Presence {
    Presence::Unseen
}

/// A table loaded so long ago that the grace of the start is over.
fn table(config: RegistryConfig) -> Table {
    Table::load(config, Contents::default(), BTreeSet::new(), t0() - 2 * GRACE).0
}

/// As [`table`], with these aliases of peer 1.
fn holding(aliases: &[&str], config: RegistryConfig) -> Table {
    let mut table = table(config);
    Wanted::new(aliases).by(peer(1), &mut table, linked, t0());
    table
}

/// Sweeps as a running scraper does, up to `end`.
fn pass(table: &mut Table, end: SystemTime) -> Effects {
    let mut all = Effects::default();
    while table.seen_at < end {
        let effects = table.sweep(end.min(table.seen_at + 5 * SECOND));
        assert_eq!(effects.clock, None);
        all.events.extend(effects.events);
        all.changes.extend(effects.changes);
    }
    all
}

fn policy(policy: AliasPolicy) -> RegistryConfig {
    RegistryConfig { policy, ..RegistryConfig::default() }
}

fn stored(alias: &str, holder: PublicKey, renewed_at: SystemTime) -> Lease {
    let mut table = Table::load(RegistryConfig::default(), Contents::default(), BTreeSet::new(), renewed_at).0;
    Wanted::new(&[alias]).by(holder, &mut table, linked, renewed_at);
    Lease::clone(&table.lookup(alias).expect("registered"))
}

/// A registration, and its outcomes as short names.
struct Wanted(Register);

impl Wanted {
    fn new(aliases: &[&str]) -> Self {
        Self::of(aliases.iter().map(|alias| claim(alias, &[])).collect())
    }

    fn of(claims: Vec<Claim>) -> Self {
        Self(Register { hostname: "h1".into(), claims })
    }

    fn by(
        &self,
        peer: PublicKey,
        table: &mut Table,
        presence: impl Fn(&PublicKey) -> Presence,
        now: SystemTime,
    ) -> (Vec<&'static str>, Effects) {
        let by = Registrant { peer, secret: SecretId([1; 8]), kept: None };
        self.from(&by, table, presence, now)
    }

    fn from(
        &self,
        by: &Registrant,
        table: &mut Table,
        presence: impl Fn(&PublicKey) -> Presence,
        now: SystemTime,
    ) -> (Vec<&'static str>, Effects) {
        let claims = Claims::check(&by.peer, &self.0, &Scope::default()).expect("fit as a whole");
        let (outcomes, effects) = table.register(by, claims, presence, now);
        table.assert_whole();
        (outcomes.into_iter().map(outcome_name).collect(), effects)
    }
}

fn outcome_name(outcome: AliasOutcome) -> &'static str {
    match outcome {
        AliasOutcome::Granted { updated: true } => "updated",
        AliasOutcome::Granted { updated: false } => "renewed",
        AliasOutcome::Refused(AliasRefusal::Taken) => "taken",
        AliasOutcome::Refused(AliasRefusal::Invalid) => "invalid",
        AliasOutcome::Refused(AliasRefusal::Duplicate) => "duplicate",
        AliasOutcome::Refused(AliasRefusal::Full) => "full",
        AliasOutcome::Refused(AliasRefusal::OutOfScope) => "out of scope",
    }
}

fn kinds(effects: &Effects) -> Vec<EventKind> {
    effects.events.iter().map(|event| event.kind).collect()
}

impl Table {
    /// The three indexes agree.
    fn assert_whole(&self) {
        let due: BTreeSet<_> =
            self.entries.values().map(|entry| (self.due_at(entry), entry.lease.alias.clone())).collect();
        assert_eq!(due, self.due);
        let mut by_peer: HashMap<_, BTreeSet<_>> = HashMap::new();
        for (alias, entry) in &self.entries {
            assert_eq!(*alias, entry.lease.alias);
            by_peer.entry(entry.lease.peer).or_default().insert(alias.clone());
        }
        assert_eq!(by_peer, self.by_peer);
        let mut by_secret: HashMap<_, OfSecret> = HashMap::new();
        for (secret, entry) in self.entries.values().filter_map(|entry| Some((entry.lease.secret?, entry))) {
            let of_secret = by_secret.entry(secret).or_default();
            *of_secret = OfSecret { aliases: of_secret.aliases + 1, bytes: of_secret.bytes + entry.bytes };
        }
        assert_eq!(by_secret, self.by_secret);
        assert_eq!(self.entries.values().filter(|entry| entry.lapsed).count(), self.lapsed);
        let bytes: u64 = self.entries.values().map(|entry| crate::registry::listing::lease_bytes(&entry.lease)).sum();
        assert_eq!(bytes, self.bytes);
    }
}

#[test]
fn a_new_alias_is_granted_and_stored() {
    let mut table = table(RegistryConfig::default());
    let (outcomes, effects) = Wanted::new(&["a"]).by(peer(1), &mut table, unlinked, t0());
    assert_eq!(outcomes, ["updated"]);
    let lease = table.lookup("a").expect("listed");
    assert_eq!((lease.registered_at, lease.expires_at), (t0(), t0() + LEASE));
    assert_eq!(effects.changes, [Change::Put(lease)]);
    assert!(effects.are_visible() && effects.are_durable());
}

#[test]
fn plain_renewal_extends_the_lease_and_shows_nothing_new() {
    let mut table = holding(&["a"], RegistryConfig::default());
    let (outcomes, effects) = Wanted::new(&["a"]).by(peer(1), &mut table, linked, t0() + 200 * SECOND);
    assert_eq!(outcomes, ["renewed"]);
    let lease = table.lookup("a").expect("listed");
    assert_eq!((lease.registered_at, lease.renewed_at), (t0(), t0() + 200 * SECOND));
    assert_eq!(lease.expires_at, t0() + 200 * SECOND + LEASE);
    assert!(!effects.are_visible() && !effects.are_durable());
    assert_eq!((effects.changes.len(), effects.renewed), (1, 1));
}

#[test]
fn renewal_with_new_labels_service_or_hostname_updates_the_target() {
    let mut table = table(RegistryConfig::default());
    let mut wanted = Wanted::new(&["a"]);
    wanted.by(peer(1), &mut table, linked, t0());
    let steps: [fn(&mut Register); 3] = [
        |register| register.hostname = "h2".into(),
        |register| register.claims[0].service = "db".into(),
        |register| register.claims[0].labels.push(("region".into(), "eu".into())),
    ];
    for step in steps {
        step(&mut wanted.0);
        let (outcomes, effects) = wanted.by(peer(1), &mut table, linked, t0() + SECOND);
        assert_eq!((outcomes, kinds(&effects)), (vec!["updated"], vec![EventKind::Updated]));
        assert!(effects.are_visible() && effects.are_durable());
    }
    let lease = table.lookup("a").expect("listed");
    assert_eq!((lease.registered_at, lease.hostname.as_str(), lease.service.as_str()), (t0(), "h2", "db"));
    assert_eq!(lease.labels.value("region"), Some("eu"));
}

#[test]
fn a_target_left_out_is_released() {
    let mut table = holding(&["a", "b"], RegistryConfig::default());
    Wanted::new(&["c"]).by(peer(2), &mut table, linked, t0());
    let (outcomes, effects) = Wanted::new(&["b"]).by(peer(1), &mut table, linked, t0() + SECOND);
    assert_eq!((outcomes, kinds(&effects)), (vec!["renewed"], vec![EventKind::Released]));
    assert!(effects.changes.contains(&Change::Remove(alias("a"))) && effects.are_durable());
    assert!(table.lookup("a").is_none() && table.lookup("c").is_some());
}

#[test]
fn an_alias_whose_claim_turned_invalid_is_released() {
    let mut table = holding(&["a"], RegistryConfig::default());
    let bad = Wanted::of(vec![claim("a", &[("job", "x")]), claim("b c", &[])]);
    assert_eq!(bad.by(peer(1), &mut table, linked, t0()).0, ["invalid", "invalid"]);
    assert_eq!(table.counts(), Counts::default());
}

#[test]
fn a_duplicate_alias_in_a_message_is_refused_and_the_first_one_counts() {
    let mut table = table(RegistryConfig::default());
    let twice = Wanted::of(vec![claim("a", &[("n", "1")]), claim("a", &[("n", "2")])]);
    assert_eq!(twice.by(peer(1), &mut table, linked, t0()).0, ["updated", "duplicate"]);
    assert_eq!(table.lookup("a").expect("listed").labels.value("n"), Some("1"));
}

#[test]
fn an_unfit_hostname_refuses_the_whole_message() {
    let unfit = Register { hostname: "h\n".into(), claims: Vec::new() };
    assert!(matches!(Claims::check(&peer(1), &unfit, &Scope::default()), Err(RegistryError::Hostname(_))));
}

#[test]
fn of_two_linked_peers_the_first_one_keeps_the_alias() {
    let mut table = holding(&["a"], policy(AliasPolicy::Live));
    let (outcomes, effects) = Wanted::new(&["a", "b"]).by(peer(2), &mut table, linked, t0());
    assert_eq!(outcomes, ["taken", "updated"]);
    assert_eq!(kinds(&effects), [EventKind::TakeoverRefused { holder: peer(1) }, EventKind::Registered]);
    assert_eq!(table.lookup("a").expect("listed").peer, peer(1));
}

#[test]
fn a_refused_takeover_changes_nothing() {
    let mut table = holding(&["a"], policy(AliasPolicy::Pinned));
    let (_, effects) = Wanted::new(&["a"]).by(peer(2), &mut table, linked, t0());
    assert!(effects.changes.is_empty() && !effects.are_visible() && !effects.are_durable());
}

#[test]
fn right_after_a_restart_every_holder_counts_as_linked() {
    let held = stored("a", peer(1), t0());
    let mut table = Table::load(policy(AliasPolicy::Live), Contents::of(vec![Arc::new(held)]), BTreeSet::new(), t0()).0;
    let wanted = Wanted::new(&["a"]);
    assert_eq!(wanted.by(peer(2), &mut table, unlinked, t0() + GRACE - SECOND).0, ["taken"]);
    assert_eq!(wanted.by(peer(2), &mut table, unlinked, t0() + GRACE).0, ["updated"]);
}

#[test]
fn a_lapsed_lease_has_no_grace_after_a_restart() {
    let lapsed = stored("a", peer(1), t0() - LEASE);
    let mut table =
        Table::load(policy(AliasPolicy::Live), Contents::of(vec![Arc::new(lapsed)]), BTreeSet::new(), t0()).0;
    assert_eq!(Wanted::new(&["a"]).by(peer(2), &mut table, linked, t0()).0, ["updated"]);
}

#[test]
fn a_clock_that_was_set_back_does_not_prolong_the_grace() {
    let mut table = Table::load(policy(AliasPolicy::Live), Contents::default(), BTreeSet::new(), t0()).0;
    let earlier = t0() - 1000 * SECOND;
    Wanted::new(&["a"]).by(peer(1), &mut table, linked, earlier);
    assert_eq!(Wanted::new(&["a"]).by(peer(2), &mut table, unlinked, earlier).0, ["updated"]);
}

#[test]
fn pinned_alias_stays_with_its_key_until_it_is_gone() {
    let mut table = holding(&["a"], policy(AliasPolicy::Pinned));
    let gone_at = t0() + LEASE + RETENTION;
    let wanted = Wanted::new(&["a"]);
    pass(&mut table, gone_at - SECOND);
    assert_eq!(wanted.by(peer(2), &mut table, unlinked, gone_at - SECOND).0, ["taken"]);
    let (outcomes, effects) = wanted.by(peer(2), &mut table, unlinked, gone_at);
    assert_eq!((outcomes, kinds(&effects)), (vec!["updated"], vec![EventKind::Gone, EventKind::Registered]));
}

#[test]
fn pinned_alias_is_free_once_released() {
    let mut table = holding(&["a"], policy(AliasPolicy::Pinned));
    assert_eq!(kinds(&table.release(&alias("a"))), [EventKind::Released]);
    assert_eq!(kinds(&table.release(&alias("a"))), []);
    assert_eq!(Wanted::new(&["a"]).by(peer(2), &mut table, linked, t0()).0, ["updated"]);
}

#[test]
fn overwrite_lets_the_last_one_win() {
    let mut table = table(policy(AliasPolicy::Overwrite));
    for seed in [1, 2, 1] {
        assert_eq!(Wanted::new(&["a"]).by(peer(seed), &mut table, linked, t0()).0, ["updated"]);
    }
    assert_eq!(table.counts(), Counts { active: 1, lapsed: 0, peers: 1, beacons: 0 });
}

#[test]
fn a_full_table_refuses_newcomers_and_evicts_nobody() {
    let mut table = holding(&["a", "b"], RegistryConfig { max_targets: 2, ..RegistryConfig::default() });
    assert_eq!(Wanted::new(&["c"]).by(peer(2), &mut table, linked, t0()).0, ["full"]);
    assert_eq!(Wanted::new(&["a", "b"]).by(peer(1), &mut table, linked, t0()).0, ["renewed", "renewed"]);
    assert_eq!(Wanted::new(&["c", "b"]).by(peer(1), &mut table, linked, t0()).0, ["updated", "renewed"]);
    assert!(table.lookup("a").is_none());
}

#[test]
fn release_of_a_peer_frees_its_aliases_and_no_others() {
    let mut table = holding(&["a", "b"], RegistryConfig::default());
    Wanted::new(&["c"]).by(peer(2), &mut table, linked, t0());
    let effects = table.release_peer(&peer(1), t0());
    table.assert_whole();
    assert_eq!(kinds(&effects), [EventKind::Released, EventKind::Released]);
    assert_eq!(effects.changes, [Change::Remove(alias("a")), Change::Remove(alias("b"))]);
    assert!(effects.are_durable());
    assert_eq!(table.counts(), Counts { active: 1, lapsed: 0, peers: 1, beacons: 0 });
}

#[test]
fn a_lease_lapses_at_its_end_and_is_gone_after_the_retention() {
    let mut table = holding(&["a"], RegistryConfig::default());
    let (lapses_at, gone_at) = (t0() + LEASE, t0() + LEASE + RETENTION);

    assert_eq!(kinds(&pass(&mut table, lapses_at - SECOND)), []);
    let effects = table.sweep(lapses_at);
    assert_eq!(kinds(&effects), [EventKind::Lapsed]);
    assert!(effects.changes.is_empty() && effects.are_visible() && !effects.are_durable());
    assert_eq!(table.counts(), Counts { active: 0, lapsed: 1, peers: 1, beacons: 0 });
    assert_eq!(table.lookup("a").expect("still listed").state(lapses_at), LeaseState::Lapsed);

    assert_eq!(kinds(&pass(&mut table, gone_at - SECOND)), []);
    let effects = table.sweep(gone_at);
    assert_eq!((kinds(&effects), effects.changes), (vec![EventKind::Gone], vec![Change::Remove(alias("a"))]));
    assert_eq!(table.counts(), Counts::default());
    table.assert_whole();
}

#[test]
fn leases_that_ran_before_a_jump_of_the_clock_or_a_freeze_can_be_renewed_after_it() {
    let mut table = holding(&["a"], RegistryConfig::default());
    let after = t0() + LEASE + RETENTION + SECOND;
    let effects = table.sweep(after);
    table.assert_whole();
    assert_eq!((kinds(&effects), effects.changes.len()), (vec![], 1), "moved on disk as well, and nothing else");
    assert_eq!(effects.clock, Some(ClockStep::Ahead(LEASE + RETENTION + SECOND)));
    assert_eq!(table.lookup("a").expect("listed").state(after), LeaseState::Active);

    // Its client renews within a third of a lease.
    assert_eq!(kinds(&pass(&mut table, after + LEASE / 3)), []);
    assert_eq!(Wanted::new(&["a"]).by(peer(1), &mut table, linked, after + LEASE / 3).0, ["renewed"]);
    assert_eq!(kinds(&pass(&mut table, after + LEASE)), []);
}

#[test]
fn after_a_jump_of_the_clock_what_nobody_renews_lapses_and_what_had_lapsed_is_not_revived() {
    let mut table = holding(&["lapsed"], RegistryConfig::default());
    pass(&mut table, t0() + LEASE);
    Wanted::new(&["dead"]).by(peer(2), &mut table, linked, t0() + LEASE);
    let after = t0() + 3 * LEASE;
    assert_eq!(kinds(&table.sweep(after)), []);
    assert_eq!(table.lookup("lapsed").expect("listed").expires_at, t0() + LEASE);
    assert_eq!(kinds(&pass(&mut table, after + LEASE / 2)), [EventKind::Lapsed]);
    assert_eq!(table.counts(), Counts { active: 0, lapsed: 2, peers: 2, beacons: 0 });
}

/// Before: each sweep that was late by 5 s gave every lease half a lease more, so that nobody ever lapsed.
#[test]
fn the_dead_lapse_also_where_every_sweep_is_late() {
    let mut table = holding(&["dead"], RegistryConfig::default());
    Wanted::new(&["alive"]).by(peer(2), &mut table, linked, t0());
    let (mut now, mut seen) = (t0(), Vec::new());
    while now < t0() + 3 * LEASE {
        now += LEASE / 4;
        seen.extend(kinds(&table.sweep(now)));
        assert_eq!(Wanted::new(&["alive"]).by(peer(2), &mut table, linked, now).0, ["renewed"]);
    }
    table.assert_whole();
    assert_eq!(seen, [EventKind::Lapsed]);
    assert_eq!(table.lookup("dead").expect("listed").expires_at, t0() + 2 * LEASE, "one lease more than its own");
}

#[test]
fn a_registration_that_is_the_first_to_see_a_jump_of_the_clock_ends_no_lease() {
    let mut table = holding(&["a"], RegistryConfig::default());
    let (_, effects) = Wanted::new(&["b"]).by(peer(2), &mut table, linked, t0() + LEASE + RETENTION);
    assert_eq!(kinds(&effects), [EventKind::Registered]);
    assert_eq!(table.counts(), Counts { active: 2, lapsed: 0, peers: 2, beacons: 0 });
}

#[test]
fn a_lease_that_has_longer_to_run_is_not_touched_by_a_jump_of_the_clock() {
    let mut table = holding(&["a"], RegistryConfig::default());
    let effects = table.sweep(t0() + 10 * SECOND);
    assert!(effects.changes.is_empty() && effects.clock.is_some());
    assert_eq!(table.lookup("a").expect("listed").expires_at, t0() + LEASE);
}

#[test]
fn a_clock_that_was_set_back_makes_no_lease_longer_than_one_and_revives_nobody() {
    let mut table = holding(&["lapsed"], RegistryConfig::default());
    pass(&mut table, t0() + LEASE);
    Wanted::new(&["a"]).by(peer(2), &mut table, linked, t0() + LEASE);
    let earlier = t0() - 100 * LEASE;
    let effects = table.sweep(earlier);
    table.assert_whole();
    assert_eq!((kinds(&effects), effects.clock), (vec![], Some(ClockStep::Back(101 * LEASE))));
    assert_eq!(table.lookup("a").expect("listed").expires_at, earlier + LEASE);
    assert_eq!(table.lookup("lapsed").expect("listed").state(earlier), LeaseState::Lapsed);
    assert_eq!(kinds(&pass(&mut table, earlier + LEASE)), [EventKind::Lapsed]);
}

#[test]
fn a_lease_stored_before_the_clock_was_set_back_ends_within_one_lease_of_the_load() {
    let ahead = stored("a", peer(1), t0() + 100 * LEASE);
    let (table, effects) =
        Table::load(RegistryConfig::default(), Contents::of(vec![Arc::new(ahead)]), BTreeSet::new(), t0());
    table.assert_whole();
    assert_eq!(table.lookup("a").expect("listed").expires_at, t0() + LEASE);
    assert_eq!(effects.changes.len(), 1);
}

#[test]
fn a_lapsed_lease_that_is_renewed_is_active_again() {
    let mut table = holding(&["a"], RegistryConfig::default());
    let late = t0() + LEASE + SECOND;
    pass(&mut table, late);
    let (outcomes, effects) = Wanted::new(&["a"]).by(peer(1), &mut table, linked, late);
    assert_eq!((outcomes, kinds(&effects)), (vec!["renewed"], vec![EventKind::Returned]));
    assert!(effects.are_visible() && effects.are_durable());
    assert_eq!(table.counts(), Counts { active: 1, lapsed: 0, peers: 1, beacons: 0 });
}

#[test]
fn a_renewal_with_another_secret_is_seen_and_kept_and_a_lapse_ends_whatever_else_it_changes() {
    let mut table = holding(&["a"], RegistryConfig::default());
    let by = Registrant { peer: peer(1), secret: SecretId([2; 8]), kept: None };
    let (outcomes, effects) = Wanted::new(&["a"]).from(&by, &mut table, linked, t0() + SECOND);
    assert_eq!((outcomes, kinds(&effects)), (vec!["updated"], vec![EventKind::SecretChanged]));
    assert!(effects.are_visible() && effects.are_durable());
    let late = t0() + LEASE + 2 * SECOND;
    pass(&mut table, late);
    let (outcomes, effects) = Wanted::new(&["a"]).by(peer(1), &mut table, linked, late);
    assert_eq!((outcomes, kinds(&effects)), (vec!["updated"], vec![EventKind::Returned]));
    assert_eq!(table.lookup("a").expect("listed").secret, Some(SecretId([1; 8])));
}

#[test]
fn loading_keeps_ends_as_they_were_and_lists_nothing_that_is_over() {
    let leases = vec![
        stored("active", peer(1), t0() - SECOND),
        stored("lapsed", peer(2), t0() - LEASE),
        stored("gone", peer(3), t0() - LEASE - RETENTION),
    ];
    let leases = Contents::of(leases.into_iter().map(Arc::new).collect());
    let (mut table, effects) = Table::load(RegistryConfig::default(), leases, BTreeSet::new(), t0());
    table.assert_whole();
    assert_eq!(table.counts(), Counts { active: 1, lapsed: 1, peers: 2, beacons: 0 });
    assert_eq!((kinds(&effects), effects.changes, table.ended()), (vec![], vec![], 1));
    assert_eq!(table.lookup("active").expect("listed").expires_at, t0() - SECOND + LEASE);
    assert_eq!(kinds(&table.sweep(t0())), []);
    assert_eq!((table.lookup("gone"), kinds(&pass(&mut table, t0() + LEASE - 2 * SECOND))), (None, vec![]));
    let effects = table.sweep(t0() + LEASE);
    assert_eq!(kinds(&effects), [EventKind::Gone, EventKind::Lapsed]);
    assert_eq!(effects.changes, [Change::Remove(alias("gone"))]);
}

/// Before: a start with the clock four hours ahead dropped every alias, on disk too.
#[test]
fn a_clock_that_is_wrong_at_the_start_drops_nothing() {
    let stored = || ["a", "b"].map(|name| Arc::new(stored(name, peer(1), t0())));
    let wrong = t0() + LEASE + RETENTION + RETENTION;
    let (mut table, effects) =
        Table::load(RegistryConfig::default(), Contents::of(stored().into()), BTreeSet::new(), wrong);
    assert!(effects.changes.is_empty() && table.leases().is_empty());
    assert!(table.is_holder(&peer(1)) && pass(&mut table, wrong + LEASE - SECOND).changes.is_empty());
    let effects = table.sweep(t0() + SECOND);
    assert!(effects.are_visible() && table.ended() == 0);
    assert_eq!(table.counts(), Counts { active: 2, lapsed: 0, peers: 1, beacons: 0 });
    table.assert_whole();

    // Another jump ahead, as by a machine that sleeps, says nothing about what is over.
    let (mut table, _) = Table::load(RegistryConfig::default(), Contents::of(stored().into()), BTreeSet::new(), wrong);
    assert_eq!((table.sweep(wrong + LEASE).changes.len(), table.ended()), (0, 2));
}

#[test]
fn a_lease_that_ended_before_the_start_is_released_and_replaced_as_any_other() {
    let leases = ["a", "b", "c"].map(|name| Arc::new(stored(name, peer(1), t0() - LEASE - RETENTION)));
    let load = || Table::load(RegistryConfig::default(), Contents::of(leases.to_vec()), BTreeSet::new(), t0()).0;
    let removed = |effects: Effects| -> Vec<Change> {
        effects.changes.into_iter().filter(|change| matches!(change, Change::Remove(_))).collect()
    };
    let all = ["a", "b", "c"].map(|name| Change::Remove(alias(name)));
    let mut table = load();
    let effects = table.release_peer(&peer(1), t0());
    assert!(effects.are_durable());
    assert_eq!((removed(effects), table.ended()), (all.to_vec(), 0));
    let mut table = load();
    assert_eq!(removed(table.release(&alias("b"))), all[1..2]);
    let (outcomes, effects) = Wanted::new(&["a"]).by(peer(2), &mut table, linked, t0());
    assert_eq!((outcomes, removed(effects)), (vec!["updated"], vec![]));
    let (_, effects) = Wanted::new(&["d"]).by(peer(1), &mut table, linked, t0());
    assert_eq!(removed(effects), all[2..], "a peer holds what it was granted, and no older state");
    assert!(table.lookup("a").is_some_and(|lease| lease.peer == peer(2)));
}

#[test]
fn without_a_disk_a_peer_can_go_on_with_what_was_written_and_no_more() {
    let mut table = table(RegistryConfig::default());
    let wanted = Wanted::new(&["a", "b"]);
    let written = wanted.by(peer(1), &mut table, linked, t0()).1.step;
    Wanted::new(&["c"]).by(peer(2), &mut table, linked, t0());
    let now = t0() + LEASE / 3;
    let mut renew = |seed, wanted: &Wanted, now| {
        let claims = Claims::check(&peer(1), &wanted.0, &Scope::default()).expect("fit as a whole");
        let (outcomes, effects) = table.renew(peer(seed), claims, written, now);
        table.assert_whole();
        let ends = table.leases().into_iter().map(|lease| lease.expires_at == now + LEASE).collect::<Vec<_>>();
        (
            outcomes.map(|outcomes| outcomes.into_iter().map(outcome_name).collect::<Vec<_>>()),
            effects.changes.len(),
            ends,
        )
    };
    assert_eq!(renew(1, &wanted, now), (Some(vec!["renewed", "renewed"]), 2, vec![true, true, false]));
    assert_eq!(renew(2, &Wanted::new(&["c"]), now), (None, 1, vec![true, true, true]), "c was not written");
    let cases = [
        (Wanted::new(&["a"]), vec![true, false, false]),
        (Wanted::new(&["a", "a"]), vec![true, false, false]),
        (Wanted::new(&["a", "c"]), vec![true, false, false]),
        (Wanted::new(&["b", "new"]), vec![false, true, false]),
        (Wanted::of(vec![claim("a", &[("v", "2")]), claim("b", &[])]), vec![true, true, false]),
        (Wanted::of(vec![claim("a", &[]), claim("b c", &[])]), vec![true, false, false]),
    ];
    for (n, (wanted, ends)) in cases.into_iter().enumerate() {
        let later = now + SECOND * u32::try_from(n + 1).expect("few");
        let (outcomes, _, renewed) = renew(1, &wanted, later);
        assert_eq!((outcomes, renewed), (None, ends), "{:?}", wanted.0);
    }
    assert_eq!(table.counts(), Counts { active: 3, lapsed: 0, peers: 2, beacons: 0 });
    assert!(table.lookup("a").expect("listed").labels.value("v").is_none());
}

#[test]
fn without_a_disk_a_lapsed_lease_can_return() {
    let mut table = table(RegistryConfig::default());
    let wanted = Wanted::new(&["a"]);
    let written = wanted.by(peer(1), &mut table, linked, t0()).1.step;
    pass(&mut table, t0() + LEASE);
    let claims = Claims::check(&peer(1), &wanted.0, &Scope::default()).expect("fits");
    let (outcomes, effects) = table.renew(peer(1), claims, written, t0() + LEASE);
    table.assert_whole();
    assert_eq!((outcomes.is_some(), kinds(&effects)), (true, vec![EventKind::Returned]));
    assert_eq!(table.counts(), Counts { active: 1, lapsed: 0, peers: 1, beacons: 0 });
}

#[test]
fn endless_leases_and_retention_do_not_overflow() {
    let config =
        RegistryConfig { lease: Duration::MAX, retention: Duration::MAX, max_targets: 9, ..RegistryConfig::default() };
    let mut table = holding(&["a"], config);
    assert_eq!(kinds(&table.sweep(t0() + 1000 * RETENTION)), []);
}

#[test]
fn leases_come_in_the_order_of_their_aliases() {
    let mut table = table(RegistryConfig::default());
    Wanted::new(&["b", "a.2", "a-1"]).by(peer(1), &mut table, linked, t0());
    Wanted::new(&["a"]).by(peer(2), &mut table, linked, t0());
    let leases = table.leases();
    let order: Vec<_> = leases.iter().map(|lease| lease.alias.as_str()).collect();
    assert_eq!(order, ["a", "a-1", "a.2", "b"]);
}

#[test]
fn a_look_at_an_alias_reports_who_may_have_it_and_changes_nothing() {
    use AliasGuard as Guard;
    let look =
        |table: &Table, alias: &str, presence: fn(&PublicKey) -> Presence| match table.status(alias, presence, t0()) {
            AliasStatus::Held { holder, linked, guard } => Some((holder, linked, guard)),
            _ => None,
        };
    for (policy_of, of_linked, of_unlinked) in [
        (AliasPolicy::Live, Guard::Live, Guard::None),
        (AliasPolicy::Pinned, Guard::Pinned, Guard::Pinned),
        (AliasPolicy::Overwrite, Guard::None, Guard::None),
    ] {
        let mut table = table(RegistryConfig { max_targets: 1, ..policy(policy_of) });
        assert_eq!(table.status("a", linked, t0()), AliasStatus::Free);
        Wanted::new(&["a"]).by(peer(1), &mut table, linked, t0());
        let before = table.lookup("a");
        assert_eq!(look(&table, "a", linked), Some((peer(1), true, of_linked)), "{policy_of}");
        assert_eq!(look(&table, "a", unlinked), Some((peer(1), false, of_unlinked)), "{policy_of}");
        assert_eq!(table.status("b", linked, t0()), AliasStatus::Full);
        assert_eq!(table.status("b/c", linked, t0()), AliasStatus::Invalid);
        assert_eq!(table.lookup("a"), before);
        table.assert_whole();
    }
}
