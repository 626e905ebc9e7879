use proptest::prelude::*;

use super::*;
use crate::registration_log::verify::{Verified, VerifyError, each_line, verify};

fn key() -> KeyPair {
    KeyPair::from_seed(&[7; 32])
}

fn open(dir: &tempfile::TempDir, max_bytes: u64) -> Keeper {
    let name_of = |id: &SecretId| (*id == SecretId([1; 8])).then(|| "tenant-a".to_owned());
    let resolve = Resolve { name_of: Box::new(name_of), address_of: Box::new(|_| Some(AddressKind::Private)) };
    Keeper::open(dir.path(), max_bytes, key(), resolve, Arc::default())
}

fn entry(number: u64, kind: EventKind) -> JournalEntry {
    let secret = (kind == EventKind::Registered).then_some(SecretId([1; 8]));
    JournalEntry {
        alias: format!("web-{number}").parse().expect("an alias"),
        peer: KeyPair::from_seed(&[3; 32]).public(),
        kind,
        cause: Cause::Secret,
        secret,
        at: SystemTime::now(),
    }
}

fn taken(numbers: std::ops::Range<u64>) -> Vec<JournalEntry> {
    numbers.map(|number| entry(number, EventKind::Registered)).collect()
}

fn files(dir: &tempfile::TempDir) -> LogFiles {
    LogFiles(dir.path().join(LOG_DIR))
}

fn checked(dir: &tempfile::TempDir) -> Result<Verified, VerifyError> {
    verify(&files(dir), &[key().public()], None)
}

fn paths(dir: &tempfile::TempDir) -> Vec<PathBuf> {
    files(dir).list().expect("is read").into_iter().map(|file| file.path).collect()
}

/// A log of one file with ten registrations and two ends.
fn written() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let mut log = open(&dir, 1 << 20);
    log.write(taken(0..10));
    log.write(vec![entry(3, EventKind::Released), entry(4, EventKind::Lapsed)]);
    log.close();
    dir
}

#[test]
fn entries_say_who_took_what_by_which_secret_from_where_and_why_it_ended() {
    let dir = written();
    let mut lines = Vec::new();
    let verified = checked(&dir).expect("whole");
    each_line(&files(&dir), |_, _, line, _| lines.push(line.to_owned())).expect("is read");
    assert_eq!((verified.first, verified.last, verified.heads, verified.lost), (1, 15, 2, 0));
    assert!(lines[2].contains(r#""event":"registered","alias":"web-0""#), "{}", lines[2]);
    assert!(lines[2].ends_with(r#","secret":"tenant-a","address":"private"}"#), "{}", lines[2]);
    assert!(lines[12].contains(r#""event":"released","alias":"web-3""#) && lines[12].ends_with(r#""why":"revoked"}"#));
    let modes = [files(&dir).0, paths(&dir).remove(0)].map(|path| fs::metadata(path).expect("there").mode() & 0o777);
    assert_eq!(modes, [0o700, 0o600]);
}

#[test]
fn a_head_that_is_remembered_shows_what_was_cut_off_or_written_anew() {
    let dir = written();
    let head = checked(&dir).expect("whole").head.map(|(seq, hash, _)| (seq, hash)).expect("a head");
    let pinned = |dir| verify(&files(dir), &[], Some(head)).map(drop);
    pinned(&dir).expect("is there");
    let path = &paths(&dir)[0];
    let text = fs::read_to_string(path).expect("text");
    let cut: Vec<&str> = text.split_inclusive('\n').take(6).collect();
    fs::write(path, cut.concat()).expect("ours");
    checked(&dir).expect("nothing else shows it");
    assert!(pinned(&dir).expect_err("is cut off").to_string().contains("it ends before"));
    assert!(pinned(&written()).is_err(), "another log with the same numbers");
}

#[test]
fn a_log_without_a_signature_and_one_with_made_up_numbers_are_broken() {
    let dir = written();
    let path = &paths(&dir)[0];
    let text = fs::read_to_string(path).expect("text");
    let first: Vec<&str> = text.split_inclusive('\n').take(1).collect();
    fs::write(path, first.concat()).expect("ours");
    assert!(checked(&dir).expect_err("no head").to_string().contains("nothing in it is signed"));
    fs::write(path, first.concat().replace("\"seq\":1,", "\"seq\":18446744073709551615,")).expect("ours");
    let mut log = open(&dir, 1 << 20);
    log.write(taken(0..1));
    log.close();
    assert!(checked(&dir).is_err());
}

/// Before, the file that was just closed could go, and with it the end of the chain.
#[test]
fn the_newest_file_stays_however_small_the_log_is_to_be() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut log = open(&dir, 1 << 10);
    for round in 0..20 {
        log.write(taken(10 * round..10 * round + 10));
        assert!(!paths(&dir).is_empty());
    }
    log.close();
    assert!(checked(&dir).is_ok());
}

#[test]
fn another_key_signs_nothing_for_this_scraper() {
    let dir = written();
    let other = KeyPair::from_seed(&[8; 32]).public();
    let error = verify(&files(&dir), &[other], None).expect_err("not its key").to_string();
    assert!(error.contains("line 2: it is signed by") && error.contains("not the scraper's key"), "{error}");
}

#[test]
fn files_are_closed_at_their_size_and_the_oldest_are_dropped() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut log = open(&dir, 64 << 10);
    for round in 0..100 {
        log.write(taken(10 * round..10 * round + 10));
    }
    log.close();
    let len: u64 = paths(&dir).iter().map(|path| fs::metadata(path).expect("there").len()).sum();
    assert!(paths(&dir).len() > 4 && len <= 64 << 10, "{} files, {len} bytes", paths(&dir).len());
    let verified = checked(&dir).expect("whole");
    assert!(verified.first > 1 && verified.last > 1000);
    fs::remove_file(&paths(&dir)[2]).expect("ours");
    let error = checked(&dir).expect_err("a file is missing").to_string();
    assert!(error.contains("line 1: entry") && error.contains("follows entry"), "{error}");
}

#[test]
fn what_cannot_be_written_is_counted_and_said_by_the_log_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut log = open(&dir, 1 << 20);
    log.file = None;
    let aside = dir.path().join("aside");
    fs::rename(files(&dir).0, &aside).expect("ours");
    fs::write(files(&dir).0, "in the way").expect("ours");
    log.write(taken(0..5));
    assert_eq!((log.lost, log.counts.lost.load(Relaxed)), (5, 5));
    fs::remove_file(files(&dir).0).expect("ours");
    fs::rename(&aside, files(&dir).0).expect("ours");
    log.write(taken(5..6));
    log.close();
    let verified = checked(&dir).expect("whole");
    assert_eq!((verified.lost, verified.last), (5, 5));
}

#[test]
fn a_disk_that_cannot_be_written_at_the_start_is_tried_again() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join(LOG_DIR), "in the way").expect("ours");
    let mut log = open(&dir, 1 << 20);
    log.write(taken(0..3));
    fs::remove_file(dir.path().join(LOG_DIR)).expect("ours");
    log.write(taken(3..4));
    log.close();
    let verified = checked(&dir).expect("whole");
    assert_eq!((verified.first, verified.lost), (1, 3));
}

#[test]
fn a_file_that_was_begun_and_not_written_is_used() {
    let dir = written();
    let next = files(&dir).path(16);
    fs::write(&next, "").expect("ours");
    let mut log = open(&dir, 1 << 20);
    log.write(taken(20..21));
    log.close();
    assert_eq!(checked(&dir).expect("whole").last, 19);
    assert!(fs::metadata(next).expect("there").len() > 0);
}

#[test]
fn a_log_that_was_changed_is_gone_on_with_and_said_to_be_broken() {
    let dir = written();
    let path = &paths(&dir)[0];
    let text = fs::read_to_string(path).expect("text");
    fs::write(path, text + "{\"seq\":16}\n").expect("ours");
    let mut log = open(&dir, 1 << 20);
    log.write(taken(20..21));
    log.close();
    let error = checked(&dir).expect_err("a line is none").to_string();
    assert!(error.contains("line 16: it is no entry of this log"), "{error}");
    assert_eq!(paths(&dir).len(), 2, "what comes after it is in a file of its own");
}

#[test]
fn kinds_of_addresses_are_told_apart() {
    for (ip, kind) in [
        ("127.0.0.1", AddressKind::Loopback),
        ("::ffff:10.0.0.1", AddressKind::Private),
        ("100.64.0.1", AddressKind::Private),
        ("fd00::1", AddressKind::Private),
        ("fe80::1", AddressKind::Private),
        ("192.0.2.1", AddressKind::Public),
        ("2001:db8::1", AddressKind::Public),
    ] {
        assert_eq!(AddressKind::of(ip.parse().expect("an address")), kind, "{ip}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_changed_byte_anywhere_before_the_end_is_found(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let dir = written();
        let path = &paths(&dir)[0];
        let mut bytes = fs::read(path).expect("ours");
        let at = at.index(bytes.len() - 1);
        let was = bytes[at];
        bytes[at] = to;
        fs::write(path, bytes).expect("ours");
        prop_assert_eq!(checked(&dir).is_ok(), was == to);
    }

    #[test]
    fn lines_that_are_left_out_doubled_or_moved_are_found(from in 0..14_usize, to in 0..15_usize, change in 0..3) {
        let dir = written();
        let path = &paths(&dir)[0];
        let text = fs::read_to_string(path).expect("text");
        let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
        match change {
            0 => drop(lines.remove(from)),
            1 => lines.insert(to, lines[from]),
            _ => lines.swap(from, to),
        }
        fs::write(path, lines.concat()).expect("ours");
        prop_assert_eq!(checked(&dir).is_ok(), change == 2 && from == to);
    }

    #[test]
    fn a_log_that_was_cut_at_any_byte_of_its_last_lines_goes_on(cut in 0..900_u64) {
        let dir = written();
        let path = &paths(&dir)[0];
        let len = fs::metadata(path).expect("there").len();
        File::options().write(true).open(path).expect("ours").set_len(len - cut.min(len)).expect("is cut");
        let mut log = open(&dir, 1 << 20);
        log.write(taken(20..21));
        log.close();
        let verified = checked(&dir);
        prop_assert!(verified.is_ok_and(|verified| !verified.is_torn));
    }
}
