use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    registry::{Beacon, BeaconEventKind, BeaconName, table::Kept},
    telemetry::Limit,
};

const LEASE: Duration = Duration::from_secs(90);

fn beacon(key: &str, data: &str, lease: Option<Duration>, now: SystemTime) -> Beacon {
    Beacon::new(BeaconName::new("k", key).expect("a name"), data.to_owned(), lease, now).expect("a beacon")
}

fn keys(table: &Table) -> Vec<String> {
    table.beacons().iter().map(|beacon| beacon.name.key().to_owned()).collect()
}

fn events(effects: &Effects) -> Vec<BeaconEventKind> {
    effects.beacon_events.iter().map(|event| event.kind).collect()
}

#[test]
fn only_what_changes_is_stored_and_what_is_acknowledged_is_durable() {
    let mut table = table(RegistryConfig::default());
    let (kept, effects) = table.register_beacon(beacon("a", "1", None, t0()));
    assert_eq!((kept, events(&effects)), (Ok(Kept::Registered), vec![BeaconEventKind::Registered]));
    assert!(effects.are_durable() && effects.are_visible() && effects.changes.len() == 1);
    let (kept, effects) = table.register_beacon(beacon("a", "1", None, t0() + LEASE));
    assert_eq!((kept, effects.changes.len(), effects.are_visible()), (Ok(Kept::Renewed), 0, false));
    let (kept, effects) = table.register_beacon(beacon("a", "2", None, t0() + LEASE));
    assert!(kept == Ok(Kept::Updated) && effects.are_durable());
    assert_eq!(table.beacons()[0].registered_at, t0());
    let (there, effects) = table.unregister_beacon(&BeaconName::new("k", "a").expect("a name"));
    assert!(there && effects.are_durable() && keys(&table).is_empty());
    let (there, effects) = table.unregister_beacon(&BeaconName::new("k", "a").expect("a name"));
    assert!(!there && effects.changes.is_empty());
    assert_eq!((table.bytes(), table.beacons_of("k"), table.beacons_of("other")), (0, Some(vec![]), None));
}

#[test]
fn a_kind_has_its_own_beacons_alone() {
    let mut table = table(RegistryConfig::default());
    for (kind, key) in [("k", "b"), ("j", "x"), ("kk", "y"), ("k", "a"), ("l", "z")] {
        let name = BeaconName::new(kind, key).expect("a name");
        let beacon = Beacon::new(name, "1".to_owned(), None, t0()).expect("a beacon");
        table.register_beacon(beacon).0.expect("kept");
    }
    let of = |kind| {
        let beacons = table.beacons_of(kind)?;
        Some(beacons.iter().map(|beacon| beacon.name.key().to_owned()).collect::<Vec<_>>().concat())
    };
    assert_eq!(
        ["k", "j", "kk", "l", "m", ""].map(of),
        [Some("ab"), Some("x"), Some("y"), Some("z"), None, None].map(|keys| keys.map(str::to_owned))
    );
}

#[test]
fn a_lease_is_renewed_without_an_event_and_ends_in_time() {
    let mut table = table(RegistryConfig::default());
    table.sweep(t0());
    for (key, lease) in [("stays", None), ("ends", Some(LEASE))] {
        table.register_beacon(beacon(key, "1", lease, t0())).0.expect("kept");
    }
    let renewed_at = t0() + Duration::from_secs(1);
    let (kept, effects) = table.register_beacon(beacon("ends", "1", Some(LEASE), renewed_at));
    assert_eq!((kept, events(&effects), effects.changes.len()), (Ok(Kept::Renewed), vec![], 1));
    assert!(!effects.are_durable(), "as a plain renewal of an alias");
    let mut at = renewed_at;
    while at < renewed_at + LEASE - Duration::from_secs(1) {
        at += Duration::from_secs(1);
        assert!(table.sweep(at).changes.is_empty());
    }
    let effects = table.sweep(renewed_at + LEASE);
    assert_eq!((events(&effects), keys(&table)), (vec![BeaconEventKind::Expired], vec!["stays".to_owned()]));
    assert_eq!(effects.changes.len(), 1);
}

/// As an alias: nobody could register meanwhile.
#[test]
fn a_pause_ends_no_lease_and_a_clock_that_is_set_back_shortens_it() {
    let mut table = table(RegistryConfig::default());
    table.sweep(t0());
    table.register_beacon(beacon("a", "1", Some(LEASE), t0())).0.expect("kept");
    let later = t0() + Duration::from_secs(3600);
    let effects = table.sweep(later);
    assert_eq!((events(&effects), keys(&table).len(), effects.changes.len()), (vec![], 1, 1));
    assert_eq!(table.beacons()[0].expires_at, Some(later + LEASE / 2));
    table.sweep(t0());
    assert_eq!(table.beacons()[0].expires_at, Some(t0() + LEASE));
    let mut at = t0();
    for _ in 0..10 {
        at += LEASE;
        table.sweep(at);
    }
    assert!(keys(&table).is_empty(), "a dead one gets one lease of further time in all");
}

#[test]
fn beacons_and_aliases_share_the_limits_of_the_table() {
    let config = RegistryConfig { max_targets: 2, ..RegistryConfig::default() };
    let mut table = table(config);
    table.register_beacon(beacon("a", "1", None, t0())).0.expect("kept");
    table.register_beacon(beacon("b", "1", None, t0())).0.expect("kept");
    assert_eq!(table.register_beacon(beacon("c", "1", None, t0())).0, Err(Limit::Aliases));
    assert_eq!(table.register_beacon(beacon("b", "2", None, t0())).0, Ok(Kept::Updated));
    let one = Arc::clone(&table.beacons()[0]).len_bytes();
    let sized = |per_one, all| {
        let config = RegistryConfig { max_peer_bytes: per_one, max_table_bytes: all, ..RegistryConfig::default() };
        let mut table = super::table(config);
        let kept = ["a", "b"].map(|key| table.register_beacon(beacon(key, "1", None, t0())).0.err());
        (kept, table.bytes())
    };
    assert_eq!(sized(one, one), ([None, Some(Limit::TableBytes)], one));
    assert_eq!(sized(one - 1, 100), ([Some(Limit::PeerBytes); 2], 0));
    assert_eq!(sized(one, 2 * one), ([None; 2], 2 * one));
    let share = RegistryConfig { max_targets: 4, max_table_bytes: 4 * one, ..RegistryConfig::default() }.shared_by(2);
    let mut shared = super::table(share.clone());
    let kept = ["a", "b", "c"].map(|key| shared.register_beacon(beacon(key, "1", None, t0())).0.err());
    assert_eq!(kept, [None, None, Some(Limit::AliasesPerSecret)]);
    let mut narrow = super::table(RegistryConfig { max_per_secret: Some(9), max_secret_bytes: Some(one), ..share });
    let kept = ["a", "b"].map(|key| narrow.register_beacon(beacon(key, "1", None, t0())).0.err());
    assert_eq!(kept, [None, Some(Limit::SecretBytes)]);
}
