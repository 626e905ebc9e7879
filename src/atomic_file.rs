//! Files that appear whole or not at all: no reader and no crash ever meets half a file.
//!
//! The content is written to a temporary file in the same folder (a rename does not leave its file system), synced, and
//! renamed; the folder is synced last, so that the rename outlives a power cut. `tempfile` makes the temporary file: a
//! hidden, random name opened with `O_EXCL`, so no link is followed and no two writers share one, removed if a step fails.
//! A process that is killed in between leaves its temporary file behind; a later write removes it.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use tempfile::{Builder, NamedTempFile};

/// Mode of a file for its owner alone.
pub(crate) const PRIVATE: u32 = 0o600;

/// Mode of any other file. The process's umask takes away what the user does not grant.
#[cfg(feature = "client")]
pub(crate) const SHARED: u32 = 0o666;

/// Mode of a list with tokens: for the group too, which Prometheus should be in.
#[cfg(feature = "scraper")]
pub(crate) const WITH_SECRETS: u32 = 0o640;

/// No write takes as long: a temporary file of this age is a killed process's.
const ABANDONED_AFTER: Duration = Duration::from_secs(60 * 60);

/// Replaces the file at `path`, or creates it. A reader gets the old content or the new one.
///
/// # Errors
/// What the operating system reports. The old file is then untouched, unless only the sync of its folder failed.
#[cfg(feature = "client")]
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    replace_with(path, mode, |mut file| file.write_all(content))
}

/// As [`replace`], with what `write` writes.
///
/// # Errors
/// As [`replace`], or what `write` reports.
#[cfg(feature = "client")]
pub(crate) fn replace_with(path: &Path, mode: u32, write: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    written_beside(path, mode, write)?.persist(path).map_err(|error| error.error)?;
    sync_folder(path)
}

/// Creates the file at `path`, and never replaces one.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`], or what else the operating system reports.
pub(crate) fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    written_beside(path, mode, |mut file| file.write_all(content))?
        .persist_noclobber(path)
        .map_err(|error| error.error)?;
    sync_folder(path)
}

/// Its errors are the operating system's own: those of `tempfile` name the temporary file, another one each time.
fn written_beside(path: &Path, mode: u32, write: impl FnOnce(&File) -> io::Result<()>) -> io::Result<NamedTempFile> {
    let Some(name) = path.file_name() else { return Err(io::ErrorKind::InvalidFilename.into()) };
    let prefix: OsString = [".".as_ref(), name, ".narthex-".as_ref()].into_iter().collect();
    remove_abandoned(folder(path), &prefix);
    let open = |path: &Path| OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let file = Builder::new().prefix(&prefix).make_in(folder(path), open)?;
    write(file.as_file())?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn remove_abandoned(folder: &Path, prefix: &OsString) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let begins = |name: OsString| name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
    for entry in entries.flatten().filter(|entry| begins(entry.file_name())) {
        let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|at| at.elapsed().ok());
        if age > Some(ABANDONED_AFTER) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    // A folder may be writable and not readable: the file is there all the same.
    let Ok(folder) = File::open(folder(path)) else { return Ok(()) };
    match folder.sync_all() {
        // Some network file systems do not sync folders.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(all(test, feature = "client"))]
mod tests {
    use std::{os::unix::fs::PermissionsExt, time::SystemTime};

    use super::*;

    fn names(dir: &Path) -> Vec<OsString> {
        fs::read_dir(dir).expect("reads").map(|entry| entry.expect("an entry").file_name()).collect()
    }

    #[test]
    fn new_content_replaces_the_old_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("sd.json");
        for content in ["one", "the second"] {
            replace(&path, content.as_bytes(), SHARED).expect("writes");
            assert_eq!(fs::read_to_string(&path).expect("reads"), content);
        }
        assert_eq!(names(dir.path()), ["sd.json"]);
    }

    #[test]
    fn a_reader_keeps_the_file_that_it_opened() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("sd.json");
        replace(&path, b"one", SHARED).expect("writes");
        let opened = File::open(&path).expect("opens");
        replace(&path, b"two", SHARED).expect("writes");
        assert_eq!(io::read_to_string(opened).expect("reads"), "one");
    }

    #[test]
    fn a_file_has_the_mode_asked_for_whatever_the_old_one_had() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("file");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        fs::write(&path, "as the umask has it").expect("writes");
        let usual = mode(&path);
        replace(&path, b"private", PRIVATE).expect("writes");
        assert_eq!(mode(&path), 0o600);
        replace(&path, b"shared", SHARED).expect("writes");
        assert_eq!(mode(&path), usual);
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (path, elsewhere) = (dir.path().join("sd.json"), dir.path().join("elsewhere"));
        fs::write(&elsewhere, "untouched").expect("writes");
        std::os::unix::fs::symlink(&elsewhere, &path).expect("links");
        replace(&path, b"one", SHARED).expect("writes");
        assert_eq!(fs::read_to_string(&elsewhere).expect("reads"), "untouched");
        assert_eq!(fs::read_to_string(&path).expect("reads"), "one");
    }

    #[test]
    fn a_created_file_is_complete_and_never_replaces_one() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("a.key");
        create(&path, b"first", PRIVATE).expect("writes");
        let error = create(&path, b"second", PRIVATE).expect_err("exists");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).expect("reads"), "first");
        assert_eq!(names(dir.path()), ["a.key"]);
    }

    #[test]
    fn a_write_that_fails_leaves_what_was_there_and_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("taken");
        fs::create_dir_all(path.join("by-a-directory")).expect("makes");
        replace(&path, b"one", SHARED).expect_err("a directory is not replaced");
        assert_eq!(names(dir.path()), ["taken"]);
        replace(&dir.path().join("none/sd.json"), b"one", SHARED).expect_err("there is no such directory");
        replace(Path::new("/"), b"one", SHARED).expect_err("no name");
    }

    #[test]
    fn a_lasting_failure_has_the_same_words_each_time() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let missing = dir.path().join("none/sd.json");
        let [first, second] = [(); 2].map(|()| replace(&missing, b"one", SHARED).expect_err("fails").to_string());
        assert_eq!(first, second);
        assert_eq!(first, io::Error::from_raw_os_error(2).to_string());
    }

    #[test]
    fn what_a_killed_process_left_is_removed_once_it_is_old() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("sd.json");
        let [old, young] = [".sd.json.narthex-aaaaaa", ".sd.json.narthex-bbbbbb"].map(|name| dir.path().join(name));
        for left in [&old, &young] {
            fs::write(left, "half").expect("writes");
        }
        let long_ago = SystemTime::now() - ABANDONED_AFTER * 2;
        File::options().write(true).open(&old).and_then(|file| file.set_modified(long_ago)).expect("dated");
        replace(&path, b"one", SHARED).expect("writes");
        assert!(!old.exists() && young.exists() && path.exists());
    }
}
