//! Files that a reader never sees half-written.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Puts `content` in place of the file at `path`, at once: whoever reads sees the old content or the new one. The new
/// one is on disk before it takes the place, so that a crash leaves no empty file.
///
/// # Errors
/// Whatever kept it from being written; the old file is then untouched.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = beside(path)?;
    // One that a crash left. It is made anew rather than opened, as a link in a directory that others may write would
    // lead elsewhere.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = OpenOptions::new().write(true).create_new(true).open(&beside).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    let replaced = written.and_then(|()| fs::rename(&beside, path));
    if replaced.is_err() {
        // What is left of it is in nobody's way, but for the disk that may be full.
        let _ = fs::remove_file(&beside);
    }
    replaced
}

/// Where the new content is written: the same directory, as a rename does not leave its file system, and a name that
/// Prometheus's `*.json` does not match.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(".narthex-new");
    Ok(path.with_file_name(beside))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(dir: &Path) -> Vec<OsString> {
        fs::read_dir(dir).expect("reads").map(|entry| entry.expect("an entry").file_name()).collect()
    }

    #[test]
    fn the_new_content_takes_the_place_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("sd.json");
        for content in ["one", "the second"] {
            replace(&path, content.as_bytes()).expect("writes");
            assert_eq!(fs::read_to_string(&path).expect("reads"), content);
        }
        assert_eq!(names(dir.path()), ["sd.json"]);
    }

    #[test]
    fn a_reader_keeps_the_file_that_it_opened() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("sd.json");
        replace(&path, b"one").expect("writes");
        let opened = fs::File::open(&path).expect("opens");
        replace(&path, b"two").expect("writes");
        assert_eq!(io::read_to_string(opened).expect("reads"), "one");
    }

    #[test]
    fn a_link_left_where_the_new_content_is_written_is_not_followed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (path, elsewhere) = (dir.path().join("sd.json"), dir.path().join("elsewhere"));
        fs::write(&elsewhere, "untouched").expect("writes");
        symlink(&elsewhere, beside(&path).expect("a name")).expect("links");
        replace(&path, b"one").expect("writes");
        assert_eq!(fs::read_to_string(&elsewhere).expect("reads"), "untouched");
        assert_eq!(fs::read_to_string(&path).expect("reads"), "one");
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("taken");
        fs::create_dir_all(path.join("by-a-directory")).expect("makes");
        replace(&path, b"one").expect_err("a directory is not replaced");
        assert_eq!(names(dir.path()), ["taken"]);
        replace(&dir.path().join("none/sd.json"), b"one").expect_err("there is no such directory");
        replace(Path::new("/"), b"one").expect_err("no name");
    }
}
