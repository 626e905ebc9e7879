mod beacons;
mod former;

use std::{fs::File, os::unix::fs::symlink, process::Command, time::UNIX_EPOCH};

use blake2::{Blake2s256, Digest};

use super::*;
use crate::{
    registry::{Beacon, Lease},
    wire::Labels,
};

fn lease(alias: &str) -> Arc<Lease> {
    Arc::new(Lease::sample(alias))
}

fn put(alias: &str) -> Change {
    Change::Put(lease(alias))
}

/// A lease that has not lapsed.
fn put_running(alias: &str) -> Change {
    let expires_at = SystemTime::now() + Duration::from_secs(60);
    Change::Put(Arc::new(Lease { expires_at, ..Lease::clone(&lease(alias)) }))
}

fn remove(alias: &str) -> Change {
    Change::Remove(alias.parse().expect("an alias"))
}

/// A directory and the store in it.
struct Dir(tempfile::TempDir);

impl Dir {
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
        for part in ["", "aliases", "aliases/blobs"] {
            fs::create_dir_all(copy.0.path().join(part)).expect("made");
            for file in database::files(&self.0.path().join(part)).expect("readable") {
                fs::copy(&file, copy.0.path().join(part).join(file.file_name().expect("a name"))).expect("copied");
            }
        }
        copy
    }

    fn base(&self) -> PathBuf {
        self.0.path().join("aliases")
    }

    fn table(&self) -> PathBuf {
        self.base().join("db")
    }

    /// The store of 100 aliases takes one more, and has all at the next start.
    #[track_caller]
    fn goes_on(&self, mut store: SledStore) {
        store.commit(&[put("b")]).expect("written");
        store.checkpoint().expect("noted");
        drop(store);
        let (_store, loaded) = self.load();
        assert_eq!((loaded.contents.leases.len(), loaded.damage), (101, None));
    }

    fn load(&self) -> (SledStore, Loaded) {
        let mut store = SledStore::open(self.base()).expect("opens");
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

    /// Where the last frame of the alias of this kind stands in the database's log: the place of its alias.
    fn find_frame(&self, alias: &str, kind: u8) -> usize {
        let bytes = fs::read(self.table()).expect("readable");
        let head = [&[kind, alias.len() as u8, 0], alias.as_bytes()].concat();
        bytes.windows(head.len()).rposition(|part| part == head).expect("there") + 3
    }
}

/// The aliases that were noted, and those found, of damage.
fn damage(loaded: &Loaded) -> Option<(Option<u64>, u64)> {
    loaded.damage.as_ref().map(|damage| (damage.noted, damage.found))
}

fn aliases(loaded: &Loaded) -> Vec<&str> {
    loaded.contents.leases.iter().map(|lease| lease.alias.as_str()).collect()
}

#[test]
fn what_was_committed_is_loaded_in_its_last_form() {
    let newer = Arc::new(Lease { hostname: "h2".into(), ..Lease::clone(&lease("a")) });
    let place = Dir::with(&[&[put("a"), put("b")], &[Change::Put(Arc::clone(&newer)), remove("b")]]);
    let (_store, loaded) = place.load();
    assert_eq!(loaded.contents.leases, [newer]);
    assert!(loaded.damage.is_none() && loaded.failure.is_none() && loaded.unconfirmed.is_empty());
}

#[test]
fn bytes_of_the_values_stay_as_they_are() {
    let place = Place { group: 7, index: 1, of: 2 };
    let alias = Name::Alias("a".parse().expect("an alias"));
    let removed = Entry::Removed(UNIX_EPOCH + Duration::from_millis(9));
    for (bytes, hex) in [
        (
            frame::mark(place, 3, 5),
            "ff6e78fe1500000007000000000000000100000002000000 00 03000000 0300000000000000 0500000000000000",
        ),
        (
            frame::entry(place, &alias, &removed),
            "ff6e78fe0c00000007000000000000000100000002000000 02 0100 61 0900000000000000",
        ),
        (
            frame::entry(place, &Name::Beacon(Beacon::sample("k", "a").name.clone()), &removed),
            "ff6e78fe0f00000007000000000000000100000002000000 04 0400 01006b61 0900000000000000",
        ),
    ] {
        let bytes = bytes.expect("fits");
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes[..bytes.len() - 8]), hex.replace(' ', ""));
        assert!(frame::decode(&bytes).is_some_and(|(read, _)| read == place));
        assert!(frame::decode(&bytes[..bytes.len() - 1]).is_none());
    }
}

#[test]
fn a_table_of_a_later_version_is_refused_and_left_alone() {
    let place = Dir::old();
    let mut mark = frame::mark(Place { group: 101, index: 0, of: 1 }, 100, 1).expect("fits");
    mark[25] = 4;
    let (summed, sum) = mark.split_at_mut(45);
    sum.copy_from_slice(&Blake2s256::digest(summed)[..8]);
    let db = ::sled::open(place.base()).expect("opens");
    db.open_tree("leases").expect("opens").insert(MARK_KEY, mark).expect("written");
    drop(db);
    for _ in 0..2 {
        match SledStore::open(place.base()).expect("opens").load() {
            Err(StoreError::Format { format: 4, .. }) => assert_eq!(place.files("aliases"), 3),
            other => panic!("{:?}", other.map(|_| ())),
        }
    }
}

/// Long values go through splits of nodes, into blobs, and over the ends of segments.
#[test]
fn every_entry_is_read_without_sled_too() {
    let place = Dir::new();
    let (mut store, _) = place.load();
    let mut labels = Labels::default();
    (0..30).for_each(|n| labels.insert(format!("l{n}"), "v".repeat(1000)).expect("fits"));
    let long = |n: usize| {
        Change::Put(Arc::new(Lease { labels: labels.clone(), ..Lease::clone(&lease(&format!("long-{n}"))) }))
    };
    for round in 0..3 {
        store.commit(&(0..100).map(long).collect::<Vec<_>>()).expect("written");
        let short = (0..500).map(|n| put(&format!("short-{n}")));
        store.commit(&short.collect::<Vec<_>>()).expect("written");
        store.commit(&(0..250).map(|n| remove(&format!("short-{n}"))).collect::<Vec<_>>()).expect("written");
        assert_eq!(store.sequence, 3 * (round + 1));
    }
    let blobs = fs::read_dir(place.base().join("blobs")).expect("there").count();
    assert!(blobs > 0, "nothing was too long for the log");
    let raw = files::read_without_sled(&place.base());
    assert_eq!(raw.entries, store.entries);
    assert_eq!(raw.mark.map(|mark| mark.entries), Some(350));
}

#[test]
fn a_second_process_cannot_open_the_store() {
    let place = Dir::new();
    let _first = place.load();
    let error = SledStore::open(place.base()).expect_err("locked");
    assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
    fs::remove_file(place.0.path().join("lock")).expect("removed");
    let error = SledStore::open(place.base()).expect("another lock").load().expect_err("locked");
    assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_with_its_cause() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let error = SledStore::open(file.path().join("below/aliases")).expect_err("not a directory");
    assert!(matches!(error, StoreError::Backend { attempt: "opened", .. }), "{error:?}");
}

/// Whatever is damaged: nothing of it is silent, and little is lost beside what was hit.
#[test]
fn a_damaged_table_is_put_aside_and_what_is_left_of_it_taken_over() {
    let good = Dir::old();
    let len = fs::metadata(good.table()).expect("there").len() as usize;
    let (mut whole, mut damaged) = (0, 0);
    for at in (0..len).step_by(len / 60) {
        let place = good.copy();
        place.flip(at);
        let (mut store, loaded) = place.load();
        let found = loaded.contents.leases.len() as u64;
        assert!(found >= 99, "byte {at}: {found}");
        if loaded.damage.is_none() {
            whole += 1;
            assert_eq!((found, place.files("aliases.damaged-")), (100, 0), "byte {at}");
            continue;
        }
        damaged += 1;
        assert_eq!(damage(&loaded), Some((Some(100), found)), "byte {at}");
        assert_eq!(place.files("aliases.damaged-"), 1);
        store.commit(&[put("new")]).expect("written");
        drop(store);
        let (mut store, again) = place.load();
        assert_eq!(again.contents.leases.len() as u64, found + 1);
        assert!(again.damage.is_some(), "a restart reports the damage until clients had their time");
        assert_eq!(again.unconfirmed, loaded.unconfirmed, "what came after is certain");
        store.checkpoint().expect("noted");
        drop(store);
        assert_eq!(place.load().1.damage, None);
        assert_eq!(place.files("aliases.damaged-"), 1);
    }
    assert!(damaged > 0, "{whole} whole");
}

#[test]
fn what_was_written_before_a_hole_is_in_doubt_and_what_came_after_is_certain() {
    let place = Dir::with(&[&[put("old"), put("released")], &[remove("released")], &[put("new")]]);
    place.flip(place.find_frame("released", 2));
    let (_store, loaded) = place.load();
    assert_eq!(aliases(&loaded), ["new", "old", "released"]);
    assert_eq!(loaded.unconfirmed.iter().map(|alias| alias.as_str()).collect::<Vec<_>>(), ["old", "released"]);
}

#[test]
fn a_table_without_its_end_is_all_in_doubt() {
    let place = Dir::with(&[&[put("old"), put("released")], &[remove("released")]]);
    let end = place.find_frame("released", 2);
    File::options().write(true).open(place.table()).and_then(|file| file.set_len(end as u64)).expect("cut");
    let (_store, loaded) = place.load();
    assert_eq!(damage(&loaded), Some((Some(1), 2)));
    assert_eq!(loaded.unconfirmed.len(), 2);
}

#[test]
fn a_table_that_is_gone_empty_or_junk_is_damage_until_its_leases_had_time_to_return() {
    for content in [None, Some(Vec::new()), Some(vec![0xff; 10_000])] {
        let place = Dir::old();
        match content {
            None => fs::remove_dir_all(place.base()).expect("removed"),
            Some(bytes) => fs::write(place.table(), bytes).expect("written"),
        }
        let (mut store, loaded) = place.load();
        assert_eq!(damage(&loaded), Some((Some(100), 0)));
        for n in 0..200 {
            store.commit(&[put(&format!("b-{n}"))]).expect("written");
        }
        drop(store);
        let (mut store, loaded) = place.load();
        assert_eq!(damage(&loaded), Some((Some(100), 200)));
        assert!(loaded.unconfirmed.is_empty());
        store.checkpoint().expect("noted");
        drop(store);
        assert_eq!(place.load().1.damage, None);
    }
}

#[test]
fn a_damaged_check_file_beside_a_whole_table_is_written_anew() {
    let place = Dir::old();
    fs::write(place.0.path().join("aliases.check"), "v2 0 0 whole\n").expect("written");
    assert_eq!(place.load().1.damage, None);
    let check = Checkpoint::read(&place.0.path().join("aliases.check")).expect("whole").expect("there");
    assert_eq!((check.entries, check.doubt), (100, None));

    fs::write(place.0.path().join("aliases.check"), "").expect("written");
    fs::remove_dir_all(place.base()).expect("removed");
    assert_eq!(damage(&place.load().1), Some((None, 0)), "without a table there is no other sign");
}

#[test]
fn a_database_that_is_deleted_is_noticed_and_written_anew() {
    let place = Dir::old();
    let (mut store, _) = place.load();
    fs::remove_dir_all(place.0.path()).expect("removed");
    assert!(matches!(store.commit(&[put("b")]), Err(StoreError::Gone { .. })));
    place.goes_on(store);
}

/// Before: what stood there in its place was deleted.
#[test]
fn what_is_put_in_place_of_the_database_in_use_is_kept() {
    let place = Dir::old();
    let backup = Dir::with(&[&[put("restored")]]);
    for (kept, has_failed) in [(1, false), (2, true)] {
        let (mut store, _) = place.load();
        if has_failed {
            store.database = None;
        }
        fs::remove_dir_all(place.base()).expect("removed");
        fs::rename(backup.copy().base(), place.base()).expect("put in place");
        let was_gone = matches!(store.commit(&[]), Err(StoreError::Gone { .. }));
        assert_eq!(was_gone, !has_failed);
        store.commit(&[]).expect("written anew");
        assert_eq!(place.files("aliases.foreign-"), kept);
        store.checkpoint().expect("noted");
        drop(store);
        let names = fs::read_dir(place.0.path()).expect("readable").map(|file| file.expect("readable").path());
        let foreign: Vec<_> = names.filter(|name| name.to_string_lossy().contains("foreign")).collect();
        assert!(foreign.iter().all(|path| files::read_without_sled(path).count() == 1));
        assert_eq!(place.load().1.contents.leases.len(), 100);
    }
}

#[test]
fn a_directory_that_another_process_has_locked_meanwhile_is_not_written_to() {
    let place = Dir::old();
    let (mut first, _) = place.load();
    fs::remove_dir_all(place.0.path()).expect("removed");
    let (mut second, _) = place.load();
    second.commit(&[put("of-the-second")]).expect("written");
    for _ in 0..3 {
        assert!(matches!(first.commit(&[put("b")]), Err(StoreError::Locked { .. })));
    }
    second.commit(&[]).expect("in place");
    drop(second);
    first.commit(&[put("b")]).expect("written anew");
    assert_eq!(place.files("aliases.foreign-"), 1, "what the second acknowledged is kept");
    drop(first);
    assert_eq!(place.load().1.contents.leases.len(), 101);
}

/// Before: eight of these ended the process, and one blocked it.
#[test]
fn whatever_kind_of_file_is_in_the_way_is_put_aside() {
    type Deed = fn(&Path);
    let emptied: Deed = |base| fs::write(base.join("db"), "").expect("written");
    let cases: [(&str, Deed); 11] = [
        ("aliases a file", |base| {
            fs::remove_dir_all(base).expect("removed");
            fs::write(base, "x").expect("written");
        }),
        ("aliases a link to nothing", |base| {
            fs::remove_dir_all(base).expect("removed");
            symlink("/nowhere/at-all", base).expect("links");
        }),
        ("db a directory", |base| replace_by_directory(&base.join("db"))),
        ("db a fifo", |base| {
            fs::remove_file(base.join("db")).expect("removed");
            assert!(Command::new("mkfifo").arg(base.join("db")).status().expect("runs").success());
        }),
        ("blobs a file", |base| {
            fs::remove_dir_all(base.join("blobs")).expect("removed");
            fs::write(base.join("blobs"), "x").expect("written");
        }),
        ("conf a directory", |base| replace_by_directory(&base.join("conf"))),
        ("snap a directory", |base| fs::create_dir(base.join("snap.0000000000000001")).expect("made")),
        ("check a directory", |base| replace_by_directory(&files::beside(base, "check"))),
        ("new a file", |base| fs::write(files::beside(base, "new"), "x").expect("written")),
        ("old a file", |base| fs::write(files::beside(base, "old"), "x").expect("written")),
        ("old a link", |base| symlink("/nowhere", files::beside(base, "old")).expect("links")),
    ];
    let good = Dir::old();
    for (name, deed) in cases {
        for is_emptied in [false, true] {
            let place = good.copy();
            if is_emptied {
                emptied(&place.base());
            }
            deed(&place.base());
            let (mut store, loaded) = place.load();
            assert!(loaded.failure.is_none(), "{name}: {:?}", loaded.failure);
            assert!(loaded.damage.is_some() || loaded.contents.leases.len() == 100, "{name}: silent");
            store.commit(&[put("new")]).expect(name);
            store.checkpoint().expect(name);
            drop(store);
            let (_store, again) = place.load();
            assert_eq!((again.contents.leases.len(), again.damage), (loaded.contents.leases.len() + 1, None), "{name}");
        }
    }
}

fn replace_by_directory(path: &Path) {
    fs::remove_file(path).expect("removed");
    fs::create_dir_all(path.join("with-something-in-it")).expect("made");
}

#[test]
fn a_database_is_opened_again_after_a_failure_and_written_anew_if_it_is_another() {
    let place = Dir::old();
    let (mut store, _) = place.load();
    store.database = None;
    store.commit(&[put("b")]).expect("written");
    assert!(!store.is_void && store.database.is_some());

    store.database = None;
    fs::remove_dir_all(place.base()).expect("removed");
    store.commit(&[put("c")]).expect("written");
    drop(store);
    let (_store, loaded) = place.load();
    assert_eq!((loaded.contents.leases.len(), loaded.damage), (102, None));
}

#[test]
fn a_new_database_whose_rename_was_interrupted_is_taken() {
    let place = Dir::old();
    fs::rename(place.base(), place.0.path().join("aliases.new")).expect("renamed");
    let (_store, loaded) = place.load();
    assert_eq!((loaded.contents.leases.len(), loaded.damage), (100, None));
}

#[test]
fn a_removal_is_kept_as_long_as_an_older_lease_of_its_alias_could_come_back() {
    let place = Dir::new();
    let (mut store, _) = place.load();
    store.commit(&[put("a"), put("b")]).expect("written");
    store.commit(&[remove("a")]).expect("written");
    drop(store);
    let until = lease("a").expires_at + REMOVAL_LIFE;
    let (mut store, loaded) = place.load();
    assert_eq!((aliases(&loaded), store.count), (vec!["b"], 1));
    store.commit(&[remove("b")]).expect("written");
    assert_eq!(store.entries.len(), 2);
    store.forget_removals(until - Duration::from_millis(1)).expect("written");
    assert_eq!(store.entries.len(), 2);
    store.forget_removals(until).expect("written");
    drop(store);
    let (store, loaded) = place.load();
    assert!(store.entries.is_empty() && loaded.contents.leases.is_empty() && loaded.damage.is_none());
}

#[test]
fn of_too_many_removals_those_that_end_first_are_dropped() {
    let place = Dir::new();
    let (mut store, _) = place.load();
    let now = SystemTime::now();
    let alias = |n: usize| Name::Alias(format!("a-{n}").parse().expect("an alias"));
    for n in 0..notes::MAX_REMOVALS + 2 {
        let until = now + Duration::from_secs(1 + n as u64);
        store.entries.insert(alias(n), Stored { group: 1, entry: Entry::Removed(until) });
    }
    store.forget_removals(now).expect("written");
    assert_eq!(store.entries.len(), notes::MAX_REMOVALS);
    assert!([0, 1].iter().all(|n| !store.entries.contains_key(&alias(*n))));
}

/// Before: another scraper's table in its place was taken without a word, if it had come as far.
#[test]
fn the_table_of_another_scraper_is_damage_and_all_in_doubt() {
    let (place, other) = (Dir::with(&[&[put_running("mine")]]), Dir::old());
    fs::remove_dir_all(place.base()).expect("removed");
    fs::rename(other.base(), place.base()).expect("put in place");
    let (mut store, loaded) = place.load();
    assert_eq!(damage(&loaded), Some((Some(1), 100)));
    assert_eq!(loaded.unconfirmed.len(), 100);
    assert_eq!(
        loaded.damage.and_then(|damage| damage.awaited),
        Some([Name::Alias("mine".parse().expect("an alias"))].into())
    );
    store.checkpoint().expect("noted");
    drop(store);
    assert_eq!(place.load().1.damage, None);

    // Without what is noted of another, a table is taken as it is.
    fs::remove_dir_all(place.0.path()).expect("removed");
    fs::rename(Dir::old().copy().base(), place.base()).expect_err("no directory");
    fs::create_dir(place.0.path()).expect("made");
    fs::rename(Dir::old().copy().base(), place.base()).expect("put in place");
    assert_eq!(place.load().1.damage, None);
}

#[test]
fn the_aliases_whose_lease_runs_are_noted_and_a_deleted_note_is_written_again() {
    let ended = Change::Put(Arc::new(Lease { expires_at: SystemTime::UNIX_EPOCH, ..Lease::clone(&lease("ended")) }));
    let place = Dir::new();
    let (mut store, _) = place.load();
    store.commit(&[put_running("a"), put_running("b"), ended]).expect("written");
    store.checkpoint().expect("noted");
    for file in ["aliases.check", "aliases.noted"] {
        fs::remove_file(place.0.path().join(file)).expect("there");
    }
    store.checkpoint().expect("noted again");
    drop(store);
    fs::write(place.table(), "").expect("written");
    let (_store, loaded) = place.load();
    let awaited = loaded.damage.and_then(|damage| damage.awaited).expect("known");
    assert_eq!(awaited.iter().map(Name::to_string).collect::<Vec<_>>(), ["a", "b"]);
}
