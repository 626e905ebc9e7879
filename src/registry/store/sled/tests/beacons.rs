//! Beacons beside the aliases, whole and damaged.

use super::*;

fn beacon(key: &str) -> Arc<Beacon> {
    Arc::new(Beacon::sample("k", key))
}

/// Damages the byte that comes `after` bytes behind each place of the log where `is_there` is true of the rest.
fn damage_log(place: &Dir, after: usize, is_there: impl Fn(&[u8]) -> bool) {
    let log = place.base().join(LOG);
    let mut bytes = std::fs::read(&log).expect("there");
    let found: Vec<usize> = (0..bytes.len()).filter(|at| is_there(&bytes[*at..])).collect();
    assert!(!found.is_empty());
    for at in found {
        bytes[at + after] ^= 1;
    }
    std::fs::write(&log, bytes).expect("written");
}

#[test]
fn beacons_are_kept_beside_the_aliases() {
    let place = Dir::new();
    let (mut store, _) = place.load();
    let name = |key: &str| beacon(key).name.clone();
    store.commit(&[put("a"), Change::PutBeacon(beacon("a")), Change::PutBeacon(beacon("b"))]).expect("written");
    store.commit(&[Change::RemoveBeacon(name("a"))]).expect("written");
    store.checkpoint().expect("noted");
    drop(store);
    let (store, loaded) = place.load();
    assert_eq!((loaded.contents.leases.len(), loaded.contents.beacons, store.count), (1, vec![beacon("b")], 2));
    assert!(loaded.damage.is_none() && loaded.unconfirmed_beacons.is_empty());
    let raw = files::read_without_sled(&place.base());
    assert_eq!(raw.entries, store.entries);
}

/// Nobody need register a beacon again: the damage must neither drop one nor pass unnoticed.
#[test]
fn beacons_of_a_damaged_table_are_taken_over_and_awaited() {
    let place = Dir::new();
    let (mut store, _) = place.load();
    for key in ["a", "b"] {
        store.commit(&[Change::PutBeacon(beacon(key))]).expect("written");
        store.checkpoint().expect("noted");
    }
    drop(store);
    let lost = frame::entry(
        Place { group: 1, index: 1, of: 2 },
        &Name::Beacon(beacon("a").name.clone()),
        &Entry::Beacon(beacon("a")),
    );
    let lost = lost.expect("fits");
    damage_log(&place, 40, |rest| rest.starts_with(&lost));
    let (_, loaded) = place.load();
    assert_eq!(loaded.contents.beacons, [beacon("b")]);
    let awaited: BTreeSet<Name> = ["a", "b"].map(|key| Name::Beacon(beacon(key).name.clone())).into();
    assert_eq!(loaded.damage.and_then(|damage| damage.awaited), Some(awaited));
}

/// Before: one that was unregistered was listed again after damage.
#[test]
fn a_beacon_that_was_unregistered_before_the_checkpoint_does_not_come_back_with_damage() {
    let place = Dir::new();
    let (mut store, _) = place.load();
    for key in ["a", "b"] {
        store.commit(&[Change::PutBeacon(beacon(key))]).expect("written");
    }
    store.commit(&[Change::RemoveBeacon(beacon("a").name.clone())]).expect("written");
    store.checkpoint().expect("noted");
    drop(store);
    let is_removal = |rest: &[u8]| rest.starts_with(b"\xffnx\xfe") && rest.get(24) == Some(&4);
    damage_log(&place, 30, is_removal);
    let (store, loaded) = place.load();
    assert!(loaded.damage.is_some());
    assert_eq!((loaded.contents.beacons, store.count), (vec![beacon("b")], 1));
}
