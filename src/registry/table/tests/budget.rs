//! Bytes of aliases in the http_sd list, and what a table does at its limits.

use super::*;
use crate::registry::listing::lease_bytes;

/// A claim with a label of so many bytes, which is listed twice.
fn fat(alias: &str, len: usize) -> Claim {
    claim(alias, &[("fat", &"x".repeat(len))])
}

fn bytes(table: &Table, alias: &str) -> u64 {
    lease_bytes(&table.lookup(alias).expect("listed"))
}

fn limits(effects: &Effects) -> Vec<Limit> {
    effects.refused.iter().map(|(limit, _)| *limit).collect()
}

#[test]
fn an_alias_with_too_many_bytes_is_refused_and_the_peers_others_are_not() {
    let mut table = table(RegistryConfig { max_alias_bytes: 1000, ..RegistryConfig::default() });
    let wanted = Wanted::of(vec![fat("a", 10), fat("b", 500), fat("c", 10)]);
    let (outcomes, effects) = wanted.by(peer(1), &mut table, linked, t0());
    assert_eq!(outcomes, ["updated", "invalid", "updated"]);
    assert_eq!(effects.refused, [(Limit::AliasBytes, alias("b"))]);
    assert_eq!(table.bytes(), bytes(&table, "a") + bytes(&table, "c"));
}

#[test]
fn bytes_are_counted_as_they_are_rendered_with_escapes_and_twice() {
    let mut table = table(RegistryConfig { max_alias_bytes: 1000, ..RegistryConfig::default() });
    let plain = Wanted::of(vec![claim("a", &[("l", &"x".repeat(200))])]);
    assert_eq!(plain.by(peer(1), &mut table, linked, t0()).0, ["updated"]);
    let quotes = Wanted::of(vec![claim("b", &[("l", &"\"".repeat(200))])]);
    assert_eq!(quotes.by(peer(2), &mut table, linked, t0()).0, ["invalid"]);
}

#[test]
fn a_peer_past_its_share_is_refused_and_another_is_not() {
    let mut table = table(RegistryConfig { max_peer_bytes: 2000, ..RegistryConfig::default() });
    let wanted = Wanted::of(vec![fat("a", 200), fat("b", 200), fat("c", 200)]);
    let (outcomes, effects) = wanted.by(peer(1), &mut table, linked, t0());
    assert_eq!(outcomes, ["updated", "updated", "full"]);
    assert_eq!(limits(&effects), [Limit::PeerBytes]);
    let (outcomes, _) = Wanted::of(vec![fat("c", 200)]).by(peer(2), &mut table, linked, t0());
    assert_eq!(outcomes, ["updated"]);
    // In another order the aliases that the peer has come before the one that is new.
    let renewal = Wanted::of(vec![fat("d", 200), fat("b", 200), fat("a", 200)]);
    assert_eq!(renewal.by(peer(1), &mut table, linked, t0()).0, ["full", "renewed", "renewed"]);
    // What one alias gives up another may take at once.
    let swap = Wanted::of(vec![fat("b", 390), fat("a", 10)]);
    assert_eq!(swap.by(peer(1), &mut table, linked, t0()).0, ["updated", "updated"]);
}

#[test]
fn a_table_without_room_refuses_what_is_new_and_renews_what_it_has() {
    let mut table = table(RegistryConfig { max_table_bytes: 1000, ..RegistryConfig::default() });
    let first = Wanted::of(vec![fat("a", 200)]);
    assert_eq!(first.by(peer(1), &mut table, linked, t0()).0, ["updated"]);
    let (outcomes, effects) = Wanted::of(vec![fat("b", 200)]).by(peer(2), &mut table, linked, t0());
    assert_eq!((outcomes, limits(&effects)), (vec!["full"], vec![Limit::TableBytes]));
    assert_eq!(first.by(peer(1), &mut table, linked, t0()).0, ["renewed"]);
    assert_eq!(table.bytes(), bytes(&table, "a"));
    table.release_peer(&peer(1), t0());
    assert_eq!(table.bytes(), 0);
    assert_eq!(Wanted::of(vec![fat("b", 200)]).by(peer(2), &mut table, linked, t0()).0, ["updated"]);
}

#[test]
fn a_secret_past_its_share_is_refused_and_another_is_not() {
    let mut table =
        table(RegistryConfig { max_secret_bytes: Some(2000), max_table_bytes: 4000, ..policy(AliasPolicy::Overwrite) });
    let other = |seed| Registrant { peer: peer(seed), secret: SecretId([2; 8]), kept: None };
    let first = Wanted::of(vec![fat("a", 200), fat("b", 200)]);
    assert_eq!(first.by(peer(1), &mut table, linked, t0()).0, ["updated", "updated"]);
    let (outcomes, effects) = Wanted::of(vec![fat("c", 200)]).by(peer(2), &mut table, linked, t0());
    assert_eq!((outcomes, limits(&effects)), (vec!["full"], vec![Limit::SecretBytes]));
    assert_eq!(Wanted::of(vec![fat("c", 200)]).from(&other(2), &mut table, linked, t0()).0, ["updated"]);
    assert_eq!(first.by(peer(1), &mut table, linked, t0()).0, ["renewed", "renewed"]);

    // Taken from the other secret, the alias counts for the taker's; a secret that replaces another keeps its aliases.
    let (outcomes, effects) = Wanted::of(vec![fat("c", 200)]).by(peer(3), &mut table, linked, t0());
    assert_eq!((outcomes, limits(&effects)), (vec!["full"], vec![Limit::SecretBytes]));
    assert_eq!(first.from(&other(1), &mut table, linked, t0()).0, ["updated", "updated"]);
    assert_eq!(Wanted::of(vec![fat("d", 200)]).from(&other(4), &mut table, linked, t0()).0, ["full"]);
    assert_eq!(Wanted::of(vec![fat("d", 200)]).by(peer(4), &mut table, linked, t0()).0, ["updated"]);
}

#[test]
fn a_takeover_costs_the_table_only_what_is_more() {
    let mut table = table(RegistryConfig { max_table_bytes: 1000, ..policy(AliasPolicy::Overwrite) });
    Wanted::of(vec![fat("a", 200)]).by(peer(1), &mut table, linked, t0());
    let (outcomes, _) = Wanted::of(vec![fat("a", 200)]).by(peer(2), &mut table, linked, t0());
    assert_eq!(outcomes, ["updated"]);
    assert_eq!(table.bytes(), bytes(&table, "a"));
}

#[test]
fn an_update_past_the_budget_releases_the_alias() {
    let mut table = table(RegistryConfig { max_alias_bytes: 1000, ..RegistryConfig::default() });
    Wanted::of(vec![fat("a", 10)]).by(peer(1), &mut table, linked, t0());
    let (outcomes, effects) = Wanted::of(vec![fat("a", 500)]).by(peer(1), &mut table, linked, t0());
    assert_eq!((outcomes, kinds(&effects)), (vec!["invalid"], vec![EventKind::Released]));
    assert_eq!((table.counts(), table.bytes()), (Counts::default(), 0));
}

#[test]
fn a_stored_table_past_every_budget_is_kept_and_only_its_growth_is_refused() {
    let stored = |name: &str| {
        let mut lease = stored(name, peer(1), t0());
        lease.labels.insert("fat", "x".repeat(900)).expect("fits");
        lease
    };
    let leases = vec![stored("a"), stored("b")];
    let config = RegistryConfig {
        max_alias_bytes: 1000,
        max_peer_bytes: 1000,
        max_table_bytes: 1000,
        ..RegistryConfig::default()
    };
    let (mut table, effects) =
        Table::load(config, Contents::of(leases.into_iter().map(Arc::new).collect()), BTreeSet::new(), t0());
    assert_eq!((effects.changes, table.counts()), (vec![], Counts { active: 2, lapsed: 0, peers: 1, beacons: 0 }));
    table.assert_whole();
    let same = Wanted::of(vec![fat("a", 900), fat("b", 900)]);
    assert_eq!(same.by(peer(1), &mut table, linked, t0()).0, ["renewed", "renewed"]);
    let less = Wanted::of(vec![fat("a", 800), fat("b", 900), fat("c", 1)]);
    assert_eq!(less.by(peer(1), &mut table, linked, t0()).0, ["updated", "renewed", "full"]);
    assert_eq!(Wanted::of(vec![fat("c", 1)]).by(peer(2), &mut table, linked, t0()).0, ["full"]);
    let more = Wanted::of(vec![fat("a", 801), fat("b", 900)]);
    assert_eq!(more.by(peer(1), &mut table, linked, t0()).0, ["invalid", "renewed"]);
}
