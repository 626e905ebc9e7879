//! A directory with files that narthex manages: it writes a file when its content changes and removes it when it is no longer wanted.
//!
//! A list beside the files names the managed ones, and a name enters the list before its file is made. narthex neither
//! overwrites nor removes a file that is not on the list.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, TryLockError},
    io,
    path::PathBuf,
};

use anyhow::{Context, bail};
use blake2::{Blake2s256, Digest};
use data_encoding::HEXLOWER;

use crate::{atomic_file, registry};

/// How the name of a managed file begins.
const PREFIX: &str = "narthex-";
/// How the name of a managed file ends, as Prometheus requires.
const SUFFIX: &str = ".json";
/// Longest name before the suffix: a file system allows 255 bytes.
const MAX_NAME: usize = 150;
/// The list's name, which Prometheus's `*.json` does not match.
const LIST: &str = ".narthex-file-sd";
/// The first line of the list.
const ABOUT: &str = "# The files that narthex file-sd made here. It removes them when they are no longer needed.";

/// The directory, locked as long as this value lives.
#[derive(Debug)]
pub(super) struct ManagedFiles {
    dir: PathBuf,
    /// The kernel releases the lock with the file, also after `kill -9`.
    _lock: File,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Updated {
    pub(super) written: usize,
    pub(super) removed: usize,
}

impl ManagedFiles {
    /// Locks the directory, and makes it if it is missing.
    ///
    /// # Errors
    /// If the directory cannot be made, or another process has locked it.
    pub(super) fn take(dir: PathBuf) -> anyhow::Result<Self> {
        let unusable = || format!("cannot use the directory {}; give another with --out", dir.display());
        fs::create_dir_all(&dir).with_context(unusable)?;
        let lock = File::open(&dir).with_context(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                bail!("another narthex file-sd writes to {}; give this one its own with --out", dir.display())
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(unusable),
        }
    }

    /// Makes the managed files these, by name, and no others.
    ///
    /// # Errors
    /// A file that cannot be read, written or removed, or that is in the way and not managed. The call still does
    /// everything else that is safe, and the next call tries again.
    pub(super) fn update(&self, mut wanted: BTreeMap<String, Vec<u8>>) -> anyhow::Result<Updated> {
        let before = self.managed()?;
        let mut in_the_way = None;
        wanted.retain(|name, content| {
            let free = before.contains(name) || self.may_be_made(name, content);
            if !free {
                in_the_way.get_or_insert_with(|| self.dir.join(name));
            }
            free
        });
        let after: BTreeSet<String> = wanted.keys().cloned().collect();
        self.write_list(&before, before.union(&after).cloned().collect())?;
        let mut updated = Updated::default();
        for (name, content) in &wanted {
            let path = self.dir.join(name);
            if fs::read(&path).is_ok_and(|there| there == *content) {
                continue;
            }
            let token = format!("{:?}", registry::TOKEN_LABEL);
            let has_token = content.windows(token.len()).any(|part| part == token.as_bytes());
            let mode = if has_token { atomic_file::WITH_SECRETS } else { atomic_file::SHARED };
            atomic_file::replace(&path, content, mode).with_context(|| format!("cannot write {}", path.display()))?;
            updated.written += 1;
        }
        for name in before.difference(&after) {
            let path = self.dir.join(name);
            match fs::remove_file(&path) {
                Ok(()) => updated.removed += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("cannot remove {}", path.display())),
            }
        }
        self.write_list(&before.union(&after).cloned().collect(), after)?;
        match in_the_way {
            Some(path) => {
                bail!("{} is not managed by narthex and stays; move it away, or give another --out", path.display())
            }
            None => Ok(updated),
        }
    }

    /// True if no file has this name, or the file has this content already.
    fn may_be_made(&self, name: &str, content: &[u8]) -> bool {
        let path = self.dir.join(name);
        match fs::symlink_metadata(&path) {
            Ok(there) => there.is_file() && fs::read(&path).is_ok_and(|there| there == content),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    fn managed(&self) -> anyhow::Result<BTreeSet<String>> {
        let path = self.dir.join(LIST);
        match fs::read_to_string(&path) {
            // Another name on the list is not trusted, because narthex would remove that file.
            Ok(text) => Ok(text.lines().filter(|line| is_name(line)).map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn write_list(&self, before: &BTreeSet<String>, after: BTreeSet<String>) -> anyhow::Result<()> {
        if *before == after {
            return Ok(());
        }
        let path = self.dir.join(LIST);
        let text: String =
            [ABOUT].into_iter().chain(after.iter().map(String::as_str)).flat_map(|line| [line, "\n"]).collect();
        atomic_file::replace(&path, text.as_bytes(), atomic_file::SHARED)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The file name of a service, different for each service. A byte outside `[A-Za-z0-9._-]` becomes `%20`, and a name that is
/// too long for a file ends with a hash instead.
pub(super) fn name(service: &str) -> String {
    let mut name = String::from(PREFIX);
    for (at, byte) in service.bytes().enumerate() {
        match byte {
            // A service `_none` would have the file name of the empty service.
            b'_' if at == 0 => name.push_str("%5F"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    if service.is_empty() {
        name.push_str("_none");
    }
    if name.len() > MAX_NAME {
        name.truncate(MAX_NAME);
        name.push('~');
        HEXLOWER.encode_append(&Blake2s256::digest(service)[..16], &mut name);
    }
    name + SUFFIX
}

fn is_name(line: &str) -> bool {
    line.starts_with(PREFIX) && line.ends_with(SUFFIX) && !line.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(files: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        files.iter().map(|(service, content)| (name(service), content.as_bytes().to_vec())).collect()
    }

    fn directory() -> (tempfile::TempDir, ManagedFiles) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let files = ManagedFiles::take(dir.path().join("made/here")).expect("takes");
        (dir, files)
    }

    fn contents(files: &ManagedFiles) -> BTreeMap<String, String> {
        let entries = fs::read_dir(&files.dir).expect("reads").map(|entry| entry.expect("an entry"));
        entries
            .map(|entry| {
                (entry.file_name().into_string().expect("text"), fs::read_to_string(entry.path()).expect("reads"))
            })
            .filter(|(name, _)| name != LIST)
            .collect()
    }

    fn expected(files: &[(&str, &str)]) -> BTreeMap<String, String> {
        files.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
    }

    #[test]
    fn only_what_changed_is_written_and_what_is_no_longer_wanted_goes() {
        let (_dir, files) = directory();
        let update = |list: &[(&str, &str)]| files.update(wanted(list)).expect("updates");
        assert_eq!(update(&[("a", "1"), ("b", "1")]), Updated { written: 2, removed: 0 });
        assert_eq!(update(&[("a", "1"), ("b", "1")]), Updated::default());
        assert_eq!(update(&[("a", "2"), ("c", "1")]), Updated { written: 2, removed: 1 });
        assert_eq!(contents(&files), expected(&[("narthex-a.json", "2"), ("narthex-c.json", "1")]));
        assert_eq!(update(&[]), Updated { written: 0, removed: 2 });
        assert!(contents(&files).is_empty());
    }

    #[test]
    fn a_file_that_somebody_removed_or_changed_is_written_again() {
        let (_dir, files) = directory();
        files.update(wanted(&[("a", "1"), ("b", "1")])).expect("updates");
        fs::remove_file(files.dir.join("narthex-a.json")).expect("removes");
        fs::write(files.dir.join("narthex-b.json"), "odd").expect("writes");
        assert_eq!(files.update(wanted(&[("a", "1"), ("b", "1")])).expect("updates").written, 2);
    }

    #[test]
    fn files_of_others_are_neither_overwritten_nor_removed() {
        let (_dir, files) = directory();
        let theirs = [("narthex-a.json", "theirs"), ("narthex-old.json", "theirs"), ("other.json", "theirs")];
        for (name, content) in theirs {
            fs::write(files.dir.join(name), content).expect("writes");
        }
        let error = files.update(wanted(&[("a", "1"), ("b", "1")])).expect_err("in the way").to_string();
        assert!(error.contains("narthex-a.json") && error.contains("not managed by narthex"), "{error}");
        assert_eq!(contents(&files), expected(&[&theirs[..], &[("narthex-b.json", "1")]].concat()));
        files.update(wanted(&[])).expect("updates");
        assert_eq!(contents(&files), expected(&theirs));
    }

    #[test]
    fn a_crash_leaves_no_file_that_nobody_owns() {
        let (_dir, files) = directory();
        files.update(wanted(&[("a", "1")])).expect("updates");
        // A crash after the new name entered the list, or before the old name left it, looks so.
        fs::create_dir(files.dir.join("narthex-b.json")).expect("makes");
        let noted = fs::read_to_string(files.dir.join(LIST)).expect("reads") + "narthex-b.json\nnarthex-gone.json\n";
        fs::write(files.dir.join(LIST), noted).expect("writes");
        files.update(wanted(&[("b", "1")])).expect_err("a directory is in the way");
        fs::remove_dir(files.dir.join("narthex-b.json")).expect("removes");
        files.update(wanted(&[("b", "1")])).expect("updates");
        assert_eq!(contents(&files), expected(&[("narthex-b.json", "1")]));
    }

    #[test]
    fn lines_of_the_list_that_are_no_names_of_ours_remove_nothing() {
        let (dir, files) = directory();
        let (outside, inside) = (dir.path().join("narthex-x.json"), files.dir.join("other.json"));
        fs::write(&outside, "theirs").expect("writes");
        fs::write(&inside, "theirs").expect("writes");
        fs::write(files.dir.join(LIST), "../narthex-x.json\nnarthex-/../../narthex-x.json\nother.json\n")
            .expect("writes");
        files.update(wanted(&[])).expect("updates");
        assert!(outside.exists() && inside.exists());
    }

    #[test]
    fn a_directory_has_one_writer_at_a_time() {
        let (_dir, files) = directory();
        let error = ManagedFiles::take(files.dir.clone()).expect_err("taken").to_string();
        assert!(error.contains("--out"), "{error}");
        let dir = files.dir.clone();
        drop(files);
        ManagedFiles::take(dir).expect("free again");
    }

    #[test]
    fn no_two_services_share_a_name_and_every_name_fits() {
        let long = "é".repeat(64);
        let longer = format!("{}x", &long[..126]);
        let services = ["", "_none", "none", "web", "Web", "a b", "a%20b", "a/b", "a_b", "a-b", "..", "/", "../x", "~"];
        let services = [&services[..], &["žluť", &long, &longer]].concat();
        let names: BTreeSet<String> = services.iter().map(|service| name(service)).collect();
        assert_eq!(names.len(), services.len(), "{names:?}");
        for name in &names {
            assert!(is_name(name) && name.len() < 220, "{name}");
            assert!(name.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-%~".contains(&c)), "{name}");
        }
        assert_eq!(name("a b"), "narthex-a%20b.json");
        assert_eq!(name(""), "narthex-_none.json");
    }
}
