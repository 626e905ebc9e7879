use std::{fs, panic, sync::Arc, time::UNIX_EPOCH};

use super::*;
use crate::{identity::KeyPair, registry::Lease};

fn lease(alias: &str) -> Arc<Lease> {
    let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    Arc::new(Lease {
        alias: alias.parse().expect("an alias"),
        peer: KeyPair::from_seed(&[1; 32]).public(),
        service: "web".into(),
        hostname: "h1".into(),
        labels: Default::default(),
        kept: false,
        secret: None,
        former: None,
        registered_at: at,
        renewed_at: at,
        expires_at: at + Duration::from_secs(600),
    })
}

#[test]
fn what_was_committed_is_loaded_in_its_last_form() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = SledStore::open(directory.path().join("aliases")).expect("opens");
    let newer = Arc::new(Lease { hostname: "h2".into(), ..Lease::clone(&lease("a")) });
    store.commit(&[Change::Put(lease("a")), Change::Put(lease("b"))]).expect("written");
    store.commit(&[Change::Put(Arc::clone(&newer)), Change::Remove(lease("b").alias.clone())]).expect("written");
    drop(store);
    let mut store = SledStore::open(directory.path().join("aliases")).expect("opens again");
    assert_eq!(store.load().expect("reads").leases, [Lease::clone(&newer)]);
}

#[test]
fn a_record_that_cannot_be_read_is_skipped_and_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = SledStore::open(directory.path().join("aliases")).expect("opens");
    store.commit(&[Change::Put(lease("a"))]).expect("written");
    store.with("written", |tree| tree.insert("from-the-future", &[9, 9]).map(drop)).expect("written");
    for _ in 0..2 {
        let loaded = store.load().expect("reads");
        assert_eq!((loaded.leases.len(), loaded.unreadable), (1, 1));
    }
}

#[test]
fn a_second_process_cannot_open_the_database() {
    let directory = tempfile::tempdir().expect("a directory");
    let _first = SledStore::open(directory.path().join("aliases")).expect("opens");
    let error = SledStore::open(directory.path().join("aliases")).expect_err("locked");
    assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
    assert!(!error.to_string().contains('\n'));
}

#[test]
fn a_damaged_database_is_an_error_that_names_the_remedy() {
    let directory = tempfile::tempdir().expect("a directory");
    SledStore::open(directory.path().join("aliases"))
        .expect("opens")
        .commit(&[Change::Put(lease("a"))])
        .expect("written");
    let conf = directory.path().join("aliases/conf");
    let mut bytes = fs::read(&conf).expect("sled's checksummed settings");
    bytes[0] ^= 1;
    fs::write(&conf, bytes).expect("written");
    let error = SledStore::open(directory.path().join("aliases")).expect_err("damaged");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("move it away"));
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_with_its_cause() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let error = SledStore::open(file.path().join("below")).expect_err("not a directory");
    assert!(matches!(error, StoreError::Backend { attempt: "opened", .. }), "{error:?}");
}

#[test]
fn after_a_failure_the_database_is_opened_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = SledStore::open(directory.path().join("aliases")).expect("opens");
    store.commit(&[Change::Put(lease("a"))]).expect("written");
    let failure = store.with("written", |_| Err::<(), _>(sled::Error::Unsupported("a failure on purpose".into())));
    assert!(failure.is_err() && store.open.is_none());
    store.commit(&[Change::Put(lease("b"))]).expect("written");
    assert_eq!(store.load().expect("reads").leases.len(), 2);
}

/// A database with 100 commits, checked at the last, and its directory.
fn checked() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = SledStore::open(directory.path().join("aliases")).expect("opens");
    for n in 0..100 {
        store.commit(&[Change::Put(lease(&format!("a-{n}")))]).expect("written");
    }
    store.checkpoint().expect("noted");
    directory
}

fn load(directory: &tempfile::TempDir) -> Loaded {
    SledStore::open(directory.path().join("aliases")).expect("opens").load().expect("reads")
}

#[test]
fn leases_lost_from_a_damaged_database_are_reported() {
    let good = checked();
    let bytes = fs::read(good.path().join("aliases/db")).expect("the log");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("something");
    let mut reported = 0;
    for at in (0..used).step_by(used / 40) {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("aliases")).expect("made");
        for file in ["aliases.check", "aliases/conf"] {
            fs::copy(good.path().join(file), directory.path().join(file)).expect("copied");
        }
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(directory.path().join("aliases/db"), damaged).expect("written");
        let loaded = panic::catch_unwind(|| SledStore::open(directory.path().join("aliases"))?.load());
        let Ok(Ok(loaded)) = loaded else { continue };
        let found = u64::try_from(loaded.leases.len()).expect("few");
        match loaded.damage {
            Some(damage) => assert_eq!(damage, Damage { noted: Some(100), found }),
            None => assert_eq!(found, 100, "byte {at} of {used}"),
        }
        reported += u64::from(loaded.damage.is_some());
    }
    assert!(reported > 0, "no flipped bit did harm");
}

#[test]
fn a_lost_database_is_reported_until_its_leases_had_time_to_return() {
    let directory = checked();
    assert_eq!(load(&directory).damage, None);
    fs::remove_dir_all(directory.path().join("aliases")).expect("removed");
    let damage = Some(Damage { noted: Some(100), found: 0 });
    assert_eq!(load(&directory).damage, damage);

    // A restart meanwhile reports the damage too, whatever was written.
    let mut store = SledStore::open(directory.path().join("aliases")).expect("opens");
    for n in 0..200 {
        store.commit(&[Change::Put(lease("a")), Change::Put(lease(&format!("a-{n}")))]).expect("written");
    }
    let Loaded { damage, .. } = store.load().expect("reads");
    assert_eq!(damage, Some(Damage { noted: Some(100), found: 201 }));
    store.checkpoint().expect("noted");
    assert_eq!(store.load().expect("reads").damage, None);
}

#[test]
fn leases_lost_from_the_middle_are_reported() {
    let directory = checked();
    let mut store = SledStore::open(directory.path().join("aliases")).expect("opens");
    store.with("written", |tree| tree.remove("a-1")).expect("written");
    assert_eq!(store.load().expect("reads").damage, Some(Damage { noted: Some(100), found: 99 }));
    store.checkpoint().expect("noted");
    assert_eq!(store.load().expect("reads").damage, None);
}

#[test]
fn a_database_ahead_of_its_checkpoint_or_without_one_is_intact() {
    let directory = checked();
    let mut store = SledStore::open(directory.path().join("aliases")).expect("opens");
    store.commit(&[Change::Remove(lease("a-1").alias.clone()), Change::Put(lease("a-2"))]).expect("written");
    store.commit(&[Change::Remove(lease("never").alias.clone())]).expect("written");
    drop(store);
    assert_eq!((load(&directory).leases.len(), load(&directory).damage), (99, None));
    fs::remove_file(directory.path().join("aliases.check")).expect("removed");
    assert_eq!((load(&directory).leases.len(), load(&directory).damage), (99, None));
}

#[test]
fn a_database_from_before_the_counters_is_intact() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = SledStore::open(directory.path().join("aliases")).expect("opens");
    let bytes = record::encode(&lease("old")).expect("fits");
    store.with("written", |tree| tree.insert("old", bytes)).expect("written");
    assert_eq!(store.load().expect("reads").damage, None);
    store.commit(&[Change::Put(lease("new")), Change::Put(lease("old"))]).expect("written");
    store.checkpoint().expect("noted");
    assert_eq!(store.load().expect("reads").damage, None);
}

#[test]
fn a_damaged_checkpoint_counts_as_damage() {
    let directory = checked();
    fs::write(directory.path().join("aliases.check"), "v1 0 0 whole\n").expect("written");
    assert_eq!(load(&directory).damage, Some(Damage { noted: None, found: 100 }));
}
