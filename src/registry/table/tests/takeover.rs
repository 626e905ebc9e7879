//! The policy `live`: who may take an alias, when, and who takes it back.

use super::*;
use crate::access::{Quota, Scope};

/// Peer 1, which keeps its key.
fn kept(seed: u8) -> Registrant {
    Registrant { peer: peer(seed), secret: SecretId([1; 8]), kept: Some(true) }
}

/// Everybody has been away for this long.
fn lost(ago: Duration) -> impl Fn(&PublicKey) -> Presence {
    move |_| Presence::Lost(ago)
}

/// A table in which peer 1 holds `a` with a key that it keeps.
fn held_by_a_kept_key() -> Table {
    let mut table = table(policy(AliasPolicy::Live));
    Wanted::new(&["a"]).from(&kept(1), &mut table, linked, t0());
    table
}

/// As above, and peer 2 has taken the alias.
fn taken_from_a_kept_key() -> (Table, SystemTime) {
    let mut table = held_by_a_kept_key();
    let at = t0() + LEASE + GRACE;
    pass(&mut table, at);
    assert_eq!(Wanted::new(&["a"]).from(&kept(2), &mut table, lost(LEASE), at).0, ["updated"]);
    (table, at)
}

fn holder(table: &Table) -> Option<PublicKey> {
    table.lookup("a").map(|lease| lease.peer)
}

#[test]
fn an_alias_falls_to_another_peer_once_its_holder_was_away_for_the_grace_and_not_after_a_blip() {
    let mut table = holding(&["a", "b"], policy(AliasPolicy::Live));
    let wanted = Wanted::new(&["a"]);
    let (now, blip) = (t0() + GRACE, GRACE - SECOND);
    assert_eq!(wanted.by(peer(2), &mut table, lost(blip), now).0, ["taken"]);
    let (outcomes, effects) = wanted.by(peer(2), &mut table, lost(GRACE), now);
    assert_eq!((outcomes, kinds(&effects)), (vec!["updated"], vec![EventKind::TakenOver { from: peer(1) }]));
    let lease = table.lookup("a").expect("listed");
    assert_eq!((lease.peer, lease.registered_at), (peer(2), now));
    assert!(effects.are_visible() && effects.are_durable());

    let (outcomes, _) = Wanted::new(&["a", "b"]).by(peer(1), &mut table, linked, now + SECOND);
    assert_eq!(outcomes, ["taken", "renewed"], "a key that is not kept takes nothing back");
}

#[test]
fn an_alias_falls_to_another_peer_once_its_lease_has_lapsed() {
    let mut table = holding(&["a"], policy(AliasPolicy::Live));
    let late = t0() + LEASE;
    pass(&mut table, late - SECOND);
    assert_eq!(Wanted::new(&["a"]).by(peer(2), &mut table, linked, late - SECOND).0, ["taken"]);
    assert_eq!(Wanted::new(&["a"]).by(peer(2), &mut table, linked, late).0, ["updated"]);
}

#[test]
fn a_kept_key_holds_its_alias_for_its_lease_and_the_grace_however_long_it_is_away() {
    let mut table = held_by_a_kept_key();
    let last = t0() + LEASE + GRACE - SECOND;
    for now in [t0() + GRACE, t0() + LEASE, last] {
        pass(&mut table, now);
        assert_eq!(Wanted::new(&["a"]).by(peer(2), &mut table, lost(LEASE), now).0, ["taken"]);
    }
    assert_eq!(Wanted::new(&["a"]).by(peer(2), &mut table, lost(LEASE), last + SECOND).0, ["updated"]);
}

#[test]
fn a_kept_key_takes_its_alias_back_within_the_retention() {
    let (mut table, at) = taken_from_a_kept_key();
    let back = t0() + LEASE + RETENTION - SECOND;
    // The taker stays, and renews.
    for now in [at + LEASE / 2, back] {
        pass(&mut table, now);
        Wanted::new(&["a"]).from(&kept(2), &mut table, linked, now);
    }
    let (outcomes, effects) = Wanted::new(&["a"]).from(&kept(1), &mut table, linked, back);
    assert_eq!((outcomes, kinds(&effects)), (vec!["updated"], vec![EventKind::TakenOver { from: peer(2) }]));
    assert_eq!(Wanted::new(&["a"]).from(&kept(2), &mut table, linked, back).0, ["taken"], "the taker has no claim");
}

#[test]
fn after_the_retention_a_taken_alias_stays_with_the_taker() {
    let (mut table, _) = taken_from_a_kept_key();
    let late = t0() + LEASE + RETENTION;
    pass(&mut table, late - SECOND);
    Wanted::new(&["a"]).from(&kept(2), &mut table, linked, late - SECOND);
    assert_eq!(Wanted::new(&["a"]).from(&kept(1), &mut table, linked, late).0, ["taken"]);
    Wanted::new(&["a"]).from(&kept(2), &mut table, linked, late);
    assert!(table.lookup("a").expect("listed").former.is_none());
}

#[test]
fn an_alias_that_its_taker_gives_up_falls_back_to_the_kept_key_and_no_third_one_gets_it() {
    let (mut table, at) = taken_from_a_kept_key();
    let effects = table.release_peer(&peer(2), at);
    table.assert_whole();
    let lease = table.lookup("a").expect("listed");
    assert_eq!((lease.peer, lease.state(at)), (peer(1), LeaseState::Lapsed));
    assert_eq!((kinds(&effects), effects.changes.last()), (vec![EventKind::Released], Some(&Change::Put(lease))));

    // A third key may take it as the second one could, and the first one still takes it back.
    assert_eq!(Wanted::new(&["a"]).from(&kept(3), &mut table, lost(LEASE), at).0, ["updated"]);
    assert_eq!(Wanted::new(&["a"]).from(&kept(1), &mut table, linked, at).0, ["updated"]);
}

#[test]
fn of_several_takers_the_first_holder_takes_the_alias_back() {
    let (mut table, at) = taken_from_a_kept_key();
    let later = at + LEASE + GRACE;
    pass(&mut table, later);
    assert_eq!(Wanted::new(&["a"]).from(&kept(3), &mut table, lost(LEASE), later).0, ["updated"]);
    assert_eq!(Wanted::new(&["a"]).from(&kept(2), &mut table, linked, later).0, ["taken"]);
    assert_eq!(Wanted::new(&["a"]).from(&kept(1), &mut table, linked, later).0, ["updated"]);
}

#[test]
fn what_an_operator_releases_is_taken_back_by_nobody() {
    let (mut table, at) = taken_from_a_kept_key();
    assert_eq!(kinds(&table.release_all(|lease| Holders::Peer(peer(1)).hold(lease))), [], "peer 1 holds nothing now");
    assert_eq!(Wanted::new(&["a"]).from(&kept(1), &mut table, linked, at).0, ["taken"]);

    let (mut table, _) = taken_from_a_kept_key();
    table.release(&alias("a"));
    assert_eq!(holder(&table), None);
}

#[test]
fn an_operator_releases_every_alias_of_a_peer_or_of_a_secret() {
    let mut table = holding(&["a", "b"], RegistryConfig::default());
    let other = Registrant { peer: peer(2), secret: SecretId([2; 8]), kept: None };
    Wanted::new(&["c", "d"]).from(&other, &mut table, linked, t0());
    Wanted::new(&["e"]).by(peer(3), &mut table, linked, t0());
    assert_eq!(table.release_all(|lease| Holders::Peer(peer(3)).hold(lease)).events.len(), 1);
    let effects = table.release_all(|lease| Holders::Secret(SecretId([2; 8])).hold(lease));
    table.assert_whole();
    assert_eq!((kinds(&effects), effects.changes.len()), (vec![EventKind::Released; 2], 2));
    assert_eq!(table.counts(), Counts { active: 2, lapsed: 0, peers: 1, beacons: 0 });
}

#[test]
fn right_after_a_restart_no_kept_key_has_lost_its_alias() {
    let mut lease = stored("a", peer(1), t0() - LEASE - GRACE);
    lease.kept = true;
    let mut table =
        Table::load(policy(AliasPolicy::Live), Contents::of(vec![Arc::new(lease)]), BTreeSet::new(), t0()).0;
    let wanted = Wanted::new(&["a"]);
    assert_eq!(wanted.by(peer(2), &mut table, unlinked, t0() + GRACE - SECOND).0, ["taken"]);
    assert_eq!(wanted.by(peer(2), &mut table, unlinked, t0() + GRACE).0, ["updated"]);
}

#[test]
fn a_registration_that_does_not_say_so_leaves_the_key_kept() {
    let mut table = held_by_a_kept_key();
    Wanted::new(&["a"]).by(peer(1), &mut table, linked, t0());
    assert!(table.lookup("a").expect("listed").kept);
    Wanted::new(&["a"]).from(&Registrant { kept: Some(false), ..kept(1) }, &mut table, linked, t0());
    assert!(!table.lookup("a").expect("listed").kept);
}

#[test]
fn a_secret_has_no_more_aliases_than_its_limit_and_keeps_those_that_it_has() {
    let config = RegistryConfig { max_per_secret: Some(2), ..RegistryConfig::default() };
    let mut table = holding(&["a", "b"], config);
    let (outcomes, effects) = Wanted::new(&["c", "d"]).by(peer(2), &mut table, linked, t0());
    let limits: Vec<Limit> = effects.refused.into_iter().map(|(limit, _)| limit).collect();
    assert_eq!((outcomes, limits), (vec!["full", "full"], vec![Limit::AliasesPerSecret; 2]));
    assert_eq!(Wanted::new(&["a", "b"]).by(peer(1), &mut table, linked, t0()).0, ["renewed", "renewed"]);
    assert_eq!(Wanted::new(&["a", "x"]).by(peer(1), &mut table, linked, t0()).0, ["renewed", "updated"]);

    // Another secret has a limit of its own; who replaces a secret keeps its aliases.
    let other = |seed| Registrant { peer: peer(seed), secret: SecretId([2; 8]), kept: None };
    assert_eq!(Wanted::new(&["c", "d"]).from(&other(2), &mut table, linked, t0()).0, ["updated", "updated"]);
    assert_eq!(Wanted::new(&["a", "x"]).from(&other(1), &mut table, linked, t0()).0, ["updated", "updated"]);
}

/// Before: the alias was free then, and a third key had it for good.
#[test]
fn a_taker_that_asks_for_more_than_it_may_gives_the_alias_back() {
    let (mut table, at) = taken_from_a_kept_key();
    table.config.max_alias_bytes = 1000;
    let fat = Wanted::of(vec![claim("a", &[("fat", &"x".repeat(900))])]);
    assert_eq!(fat.from(&kept(2), &mut table, linked, at + SECOND).0, ["invalid"]);
    assert_eq!(holder(&table), Some(peer(1)));
    assert_eq!(Wanted::new(&["a"]).from(&kept(3), &mut table, lost(LEASE), at + SECOND).0, ["updated"]);
    assert_eq!(Wanted::new(&["a"]).from(&kept(1), &mut table, linked, at + SECOND).0, ["updated"], "takes it back");
}

/// Before: each file of one table had the quota for itself, and took aliases from the holders of the other.
#[test]
fn secrets_of_one_name_share_quota_and_policy() {
    let secrets = [SecretId([1; 8]), SecretId([2; 8])];
    let quota = Quota { max_aliases: Some(2), policy: Some(AliasPolicy::Pinned), ..Quota::default() };
    let scope = Scope { quota, kin: secrets.into(), ..Scope::default() };
    let mut table = table(RegistryConfig { policy: AliasPolicy::Overwrite, ..RegistryConfig::default() });
    let mut register = |seed, secret, aliases: &[&str]| {
        let by = Registrant { peer: peer(seed), secret, kept: None };
        let claims = Claims::check(&by.peer, &Wanted::new(aliases).0, &scope).expect("fit as a whole");
        let outcomes = table.register(&by, claims, linked, t0()).0;
        outcomes.into_iter().map(outcome_name).collect::<Vec<_>>()
    };
    assert_eq!(register(1, secrets[0], &["a"]), ["updated"]);
    assert_eq!(register(2, secrets[1], &["a", "b", "c"]), ["taken", "updated", "full"]);
    assert_eq!(register(1, secrets[1], &["a"]), ["updated"], "who changes its secret keeps what it has");
}
