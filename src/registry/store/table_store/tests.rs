use std::{os::unix::fs::FileExt, time::Duration};

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

fn put(alias: &str) -> Change {
    Change::Put(lease(alias))
}

fn remove(alias: &str) -> Change {
    Change::Remove(alias.parse().expect("an alias"))
}

/// A directory and the store in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    /// With a store that committed these groups, and noted how far it is.
    fn with(commits: &[&[Change]]) -> Self {
        let place = Self::new();
        let (mut store, _) = place.load();
        for changes in commits {
            store.commit(changes).expect("written");
        }
        store.checkpoint().expect("noted");
        place
    }

    /// With 100 aliases in 100 commits.
    fn old() -> Self {
        let changes: Vec<Change> = (0..100).map(|n| put(&format!("a-{n}"))).collect();
        Self::with(&changes.chunks(1).collect::<Vec<_>>())
    }

    fn copy(&self) -> Self {
        let copy = Self::new();
        for file in fs::read_dir(self.0.path()).expect("readable").map(|file| file.expect("readable")) {
            fs::copy(file.path(), copy.0.path().join(file.file_name())).expect("copied");
        }
        copy
    }

    fn base(&self) -> PathBuf {
        self.0.path().join("aliases")
    }

    fn table(&self) -> PathBuf {
        self.0.path().join("aliases.table")
    }

    fn load(&self) -> (TableStore, Loaded) {
        let mut store = TableStore::open(self.base()).expect("opens");
        let loaded = store.load().expect("reads");
        (store, loaded)
    }

    fn files(&self, beginning: &str) -> usize {
        let names = fs::read_dir(self.0.path()).expect("readable").map(|file| file.expect("readable").file_name());
        names.filter(|name| name.to_string_lossy().starts_with(beginning)).count()
    }

    /// Flips a bit at this place of the table.
    fn flip(&self, at: usize) {
        let mut bytes = fs::read(self.table()).expect("readable");
        bytes[at] ^= 1;
        fs::write(self.table(), bytes).expect("written");
    }

    /// Where the text stands in the table, at last.
    fn find(&self, text: &str) -> usize {
        let bytes = fs::read(self.table()).expect("readable");
        bytes.windows(text.len()).rposition(|part| part == text.as_bytes()).expect("there")
    }
}

fn aliases(loaded: &Loaded) -> Vec<&str> {
    loaded.leases.iter().map(|lease| lease.alias.as_str()).collect()
}

#[test]
fn what_was_committed_is_loaded_in_its_last_form() {
    let newer = Arc::new(Lease { hostname: "h2".into(), ..Lease::clone(&lease("a")) });
    let place = Place::with(&[&[put("a"), put("b")], &[Change::Put(Arc::clone(&newer)), remove("b")]]);
    let (_store, loaded) = place.load();
    assert_eq!(loaded.leases, [newer]);
    assert!(loaded.damage.is_none() && loaded.failure.is_none() && loaded.unconfirmed.is_empty());
}

#[test]
fn the_format_is_said_by_the_first_line_and_bytes_stay() {
    let place = Place::with(&[&[put("web-1")], &[remove("web-1")]]);
    let bytes = fs::read(place.table()).expect("readable");
    let (line, frames) = bytes.split_at(35);
    assert_eq!(std::str::from_utf8(line).expect("text"), "narthex aliases 2 94c0e7c7707d8213\n");
    assert_eq!(&frames[..24], b"\xffnx\xfe\x01\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0");
    assert!(place.find("web-1") > 100);
}

#[test]
fn a_table_of_a_later_version_is_refused_and_left_alone() {
    let place = Place::old();
    let bytes = fs::read(place.table()).expect("readable");
    let later = [b"narthex aliases 3 94d3a8107e8cd076\n".as_slice(), &bytes[35..]].concat();
    fs::write(place.table(), &later).expect("written");
    match TableStore::open(place.base()).expect("opens").load() {
        Err(StoreError::Format { format: 3, .. }) => assert_eq!(fs::read(place.table()).expect("readable"), later),
        other => panic!("{:?}", other.is_ok()),
    }
}

#[test]
fn a_second_process_cannot_open_the_store() {
    let place = Place::new();
    let _first = place.load();
    let error = TableStore::open(place.base()).expect_err("locked");
    assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_with_its_cause() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let error = TableStore::open(file.path().join("below/aliases")).expect_err("not a directory");
    assert!(matches!(error, StoreError::Backend { attempt: "opened", .. }), "{error:?}");
}

#[test]
fn a_group_that_was_not_finished_is_cut_without_a_word() {
    let place = Place::with(&[&[put("a")]]);
    let whole = fs::metadata(place.table()).expect("there").len() as usize;
    let (mut store, _) = place.load();
    store.commit(&[put("b"), put("c")]).expect("written");
    drop(store);
    let bytes = fs::read(place.table()).expect("readable");
    for len in whole..bytes.len() {
        let torn = place.copy();
        fs::write(torn.table(), &bytes[..len]).expect("written");
        let (mut store, loaded) = torn.load();
        assert_eq!((aliases(&loaded), loaded.damage), (vec!["a"], None), "{len} bytes");
        store.commit(&[put("d")]).expect("written");
        drop(store);
        assert_eq!(aliases(&torn.load().1), ["a", "d"]);
    }
}

/// Whatever bit is flipped: nothing of it is silent, and no alias is lost beside the one that was hit.
#[test]
fn a_damaged_table_is_put_aside_and_what_is_left_of_it_taken_over() {
    let good = Place::old();
    let len = fs::metadata(good.table()).expect("there").len() as usize;
    for at in (0..len).step_by(len / 97) {
        let place = good.copy();
        place.flip(at);
        let damaged = fs::read(place.table()).expect("readable");
        let (mut store, loaded) = place.load();
        let found = loaded.leases.len() as u64;
        assert!(found >= 99, "byte {at}: {found}");
        assert_eq!(loaded.damage, Some(Damage { noted: Some(100), found }), "byte {at}");
        assert_eq!(place.files("aliases.damaged-"), 1);
        let kept = fs::read_dir(place.0.path()).expect("readable").map(|file| file.expect("readable").path());
        let kept = kept.into_iter().find(|path| path.to_string_lossy().contains("damaged-")).expect("kept");
        assert_eq!(fs::read(kept).expect("readable"), damaged);

        store.commit(&[put("new")]).expect("written");
        drop(store);
        let (mut store, again) = place.load();
        assert_eq!(again.leases.len() as u64, found + 1);
        assert!(again.damage.is_some(), "a restart reports the damage until clients had their time");
        assert_eq!(again.unconfirmed, loaded.unconfirmed, "what came after is certain");
        store.checkpoint().expect("noted");
        drop(store);
        assert_eq!(place.load().1.damage, None);
        assert_eq!(place.files("aliases.damaged-"), 1);
    }
}

#[test]
fn what_was_written_before_a_hole_is_in_doubt_and_what_came_after_is_certain() {
    let place = Place::with(&[&[put("old"), put("released")], &[remove("released")], &[put("new")]]);
    place.flip(place.find("released"));
    let (_store, loaded) = place.load();
    assert_eq!(aliases(&loaded), ["new", "old", "released"]);
    assert_eq!(loaded.unconfirmed.iter().map(Alias::as_str).collect::<Vec<_>>(), ["old", "released"]);
}

#[test]
fn a_table_without_its_end_is_all_in_doubt() {
    let place = Place::with(&[&[put("old"), put("released")], &[remove("released")]]);
    let len = fs::metadata(place.table()).expect("there").len();
    File::options().write(true).open(place.table()).and_then(|file| file.set_len(len - 1)).expect("cut");
    let (_store, loaded) = place.load();
    assert_eq!(loaded.damage, Some(Damage { noted: Some(1), found: 2 }));
    assert_eq!(loaded.unconfirmed.len(), 2);
}

#[test]
fn a_hole_in_the_base_takes_aliases_and_puts_none_in_doubt() {
    let place = Place::with(&[&[put("a"), put("second"), put("third")]]);
    place.load().0.rewrite().expect("written");
    place.flip(place.find("second"));
    let (_store, loaded) = place.load();
    assert_eq!(aliases(&loaded), ["a", "third"]);
    assert!(loaded.damage.is_some() && loaded.unconfirmed.is_empty());
}

#[test]
fn a_table_that_is_gone_empty_or_junk_is_damage_until_its_leases_had_time_to_return() {
    for content in [None, Some(Vec::new()), Some(vec![0xff; 10_000])] {
        let place = Place::old();
        match content {
            None => fs::remove_file(place.table()).expect("removed"),
            Some(bytes) => fs::write(place.table(), bytes).expect("written"),
        }
        let (mut store, loaded) = place.load();
        assert_eq!(loaded.damage, Some(Damage { noted: Some(100), found: 0 }));
        for n in 0..200 {
            store.commit(&[put(&format!("b-{n}"))]).expect("written");
        }
        drop(store);
        let (mut store, loaded) = place.load();
        assert_eq!(loaded.damage, Some(Damage { noted: Some(100), found: 200 }));
        assert!(loaded.unconfirmed.is_empty());
        store.checkpoint().expect("noted");
        drop(store);
        assert_eq!(place.load().1.damage, None);
    }
}

#[test]
fn junk_after_the_end_is_cut() {
    let place = Place::old();
    let file = File::options().append(true).open(place.table()).expect("opens");
    let end = file.metadata().expect("there").len();
    file.write_all_at(&[0xff; 5000], end).expect("written");
    let (mut store, loaded) = place.load();
    assert_eq!((loaded.leases.len(), loaded.damage), (100, None));
    store.commit(&[put("b")]).expect("written");
    drop(store);
    assert_eq!(place.load().1.leases.len(), 101);
}

#[test]
fn a_damaged_check_file_beside_a_whole_table_is_written_anew() {
    let place = Place::old();
    fs::write(place.0.path().join("aliases.check"), "v2 0 0 whole\n").expect("written");
    assert_eq!(place.load().1.damage, None);
    let check = Checkpoint::read(&place.0.path().join("aliases.check")).expect("whole").expect("there");
    assert_eq!((check.leases, check.doubt), (100, None));

    fs::write(place.0.path().join("aliases.check"), "").expect("written");
    fs::remove_file(place.table()).expect("removed");
    assert_eq!(place.load().1.damage, Some(Damage { noted: None, found: 0 }), "without a table there is no other sign");
}

#[test]
fn a_file_that_is_deleted_is_noticed_and_written_anew() {
    let place = Place::old();
    let (mut store, _) = place.load();
    fs::remove_dir_all(place.0.path()).expect("removed");
    assert!(matches!(store.commit(&[put("b")]), Err(StoreError::Gone { .. })));
    store.commit(&[put("b")]).expect("written");
    store.checkpoint().expect("noted");
    drop(store);
    let (_store, loaded) = place.load();
    assert_eq!((loaded.leases.len(), loaded.damage), (101, None));
}

#[test]
fn a_file_of_the_past_is_written_anew() {
    let place = Place::new();
    let (mut store, _) = place.load();
    let changes: Vec<Change> = (0..1000).map(|n| put(&format!("a-{n}"))).collect();
    for _ in 0..50 {
        store.commit(&changes).expect("written");
    }
    drop(store);
    assert!(fs::metadata(place.table()).expect("there").len() < 2_000_000);
    assert_eq!(place.load().1.leases.len(), 1000);
}

mod former {
    use super::*;
    use crate::registry::store::record;

    /// A table as version 0.1 wrote it: 100 commits of one alias each.
    fn sled_table() -> Place {
        let place = Place::new();
        let db = sled::Config::new().path(place.base()).flush_every_ms(None).open().expect("opens");
        let tree = db.open_tree("leases").expect("opens");
        for n in 1..=100_u64 {
            let lease = lease(&format!("a-{n}"));
            tree.insert(lease.alias.as_str(), record::encode(&lease).expect("fits")).expect("written");
            tree.insert(b"\0mark", &((u128::from(n) << 64) | u128::from(n)).to_be_bytes()).expect("written");
        }
        tree.flush().expect("written");
        drop((tree, db));
        let check = "v1 100 100 whole 3753e6fb7bff9034\n";
        fs::write(place.0.path().join("aliases.check"), check).expect("written");
        place
    }

    #[test]
    fn a_table_of_an_earlier_version_is_taken_over() {
        let place = sled_table();
        let (mut store, loaded) = place.load();
        assert_eq!((loaded.leases.len(), loaded.damage), (100, None));
        assert!(loaded.unconfirmed.is_empty() && !place.base().exists());
        assert!(place.0.path().join("aliases.former").is_dir());
        store.commit(&[put("b")]).expect("written");
        store.checkpoint().expect("noted");
        drop(store);
        let (_store, loaded) = place.load();
        assert_eq!((loaded.leases.len(), loaded.damage), (101, None));
    }

    #[test]
    fn a_damaged_table_of_an_earlier_version_is_put_aside() {
        for len in [0, 1000, 4096, 20_000] {
            let place = sled_table();
            let db = File::options().write(true).open(place.base().join("db")).expect("opens");
            db.set_len(len).expect("cut");
            let (_store, loaded) = place.load();
            assert_eq!(loaded.damage.and_then(|damage| damage.noted), Some(100), "{len} bytes");
            assert_eq!(loaded.unconfirmed.len(), loaded.leases.len());
            assert_eq!((place.files("aliases.damaged-"), place.base().exists()), (1, false));
        }
    }
}
