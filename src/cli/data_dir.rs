//! The data directory of a role, which one process at a time may use.

use std::{
    env, fmt,
    fs::{self, DirBuilder, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::fs::{Access, access};

use crate::{
    access,
    dir_lock::{DirLock, DirLockError, LOCK},
    private_file::quoted,
    registration_log::LOG_DIR,
    scraper::{CONTROL_SOCKET, TABLE},
};

/// The mode of a data directory, which holds keys and can be replaced by whoever may write to it.
const PRIVATE: u32 = 0o700;
/// Why a directory that is open to others is not narrowed.
const NOT_OURS: &str = "others keep files there, too";
/// The bit of directories like `/tmp`.
const STICKY: u32 = 0o1000;

/// A data directory, locked as long as this value lives.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    _lock: DirLock,
}

impl DataDir {
    /// Locks the given directory, or the default one of the role, and creates it (mode 0700) if it is missing. A wider mode is
    /// narrowed.
    ///
    /// # Errors
    /// If there is no default, the directory cannot be made or is open to others, or another process has locked it.
    pub(super) fn take(asked: Option<&Path>, role: &str) -> anyhow::Result<Self> {
        let path = prepare(asked, role)?;
        let mut lock = DirLock::of(&path);
        match lock.hold() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(DirLockError::InUse) => bail!(
                "the data directory {} is in use by another narthex; stop it, or give this one its own with --data-dir",
                path.display()
            ),
            Err(DirLockError::Failed(error)) => Err(error).with_context(|| {
                format!("cannot write {}; give another directory with --data-dir", lock.path().display())
            }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Display for DataDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// The given directory, or the default one of the role, made and private as [`DataDir::take`] does, and not locked: a
/// scraper's table locks it.
///
/// # Errors
/// If there is no default, or the directory cannot be made or is open to others.
pub(super) fn prepare(asked: Option<&Path>, role: &str) -> anyhow::Result<PathBuf> {
    let path = path(asked, role)?;
    DirBuilder::new().recursive(true).mode(PRIVATE).create(&path).with_context(|| cannot_make(&path))?;
    narrow(&path, role).with_context(|| is_open(&path, role))?;
    Ok(path)
}

/// The given directory, or the default one of the role, if [`prepare`] could make it what a role needs. Changes nothing.
///
/// # Errors
/// Those of [`prepare`], and if the directory cannot be written. One that is in use is well: the role may be running.
pub(super) fn check(asked: Option<&Path>, role: &str) -> anyhow::Result<PathBuf> {
    let (path, state) = look(asked, role)?;
    match state {
        DirState::Free | DirState::InUse => {
            let mode = fs::metadata(&path)?.mode();
            if mode & 0o077 != 0 && !is_ours(&path, role, mode)? {
                return Err(io::Error::other(NOT_OURS)).with_context(|| is_open(&path, role));
            }
        }
        DirState::Missing => can_make(&path).with_context(|| cannot_make(&path))?,
        DirState::Unusable(error) => {
            return Err(error).with_context(|| {
                format!("the data directory {} cannot be used; give another with --data-dir", path.display())
            });
        }
    }
    Ok(path)
}

/// Whether the nearest directory above the path takes a new one.
fn can_make(path: &Path) -> io::Result<()> {
    let above = path.ancestors().skip(1).map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above });
    let above = above.into_iter().find(|above| above.exists()).unwrap_or(Path::new("/"));
    if !above.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(access(above, Access::WRITE_OK | Access::EXEC_OK)?)
}

fn cannot_make(path: &Path) -> String {
    format!("cannot make the data directory {}; give another with --data-dir", path.display())
}

fn is_open(path: &Path, role: &str) -> String {
    format!(
        "the data directory {} is open to other users: chmod 0700 {}, or give a directory inside it with --data-dir {}",
        path.display(),
        quoted(path),
        quoted(&path.join(role))
    )
}

/// Takes the rights of others away from a directory, if the directory is narthex's: with a key of the role in it, or nothing
/// but files of narthex. (Nobody wants `/tmp` narrowed.)
fn narrow(path: &Path, role: &str) -> io::Result<()> {
    let mode = fs::metadata(path)?.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    if !is_ours(path, role, mode)? {
        return Err(io::Error::other(NOT_OURS));
    }
    match fs::set_permissions(path, Permissions::from_mode(PRIVATE)) {
        // Nobody can write there now.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => return Ok(()),
        set => set?,
    }
    let was = format_args!("{mode:04o}");
    tracing::warn!(directory = %path.display(), %was, "a data directory was open to other users; its mode is 0700 now");
    Ok(())
}

/// True if a directory of this mode is narthex's.
fn is_ours(path: &Path, role: &str, mode: u32) -> io::Result<bool> {
    let mut is_ours = true;
    for entry in fs::read_dir(path)? {
        is_ours &= is_of_narthex(&entry?.path());
    }
    Ok(mode & STICKY == 0 && (is_ours || path.join(format!("{role}.key")).exists()))
}

/// True for what narthex, or who set it up, keeps in a data directory.
fn is_of_narthex(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let is_empty_file = || fs::symlink_metadata(file).is_ok_and(|there| there.is_file() && there.len() == 0);
    match &*name {
        // Others have files of this name, too, and write into them.
        LOCK => is_empty_file(),
        LOG_DIR | "addresses" | "group" | "proved-networks" | "lost+found" => true,
        _ if access::FILES.contains(&&*name) => true,
        _ => name == CONTROL_SOCKET || name.starts_with(TABLE) || name.ends_with(".key") || name.ends_with(".secret"),
    }
}

#[derive(Debug)]
pub(super) enum DirState {
    Missing,
    Free,
    InUse,
    Unusable(io::Error),
}

/// The state of the directory that [`DataDir::take`] would lock. Changes nothing.
///
/// # Errors
/// If there is no default directory.
pub(super) fn look(asked: Option<&Path>, role: &str) -> anyhow::Result<(PathBuf, DirState)> {
    let path = path(asked, role)?;
    let state = state(&path).unwrap_or_else(DirState::Unusable);
    Ok((path, state))
}

/// A file in the directory that [`DataDir::take`] would lock, if the file exists.
pub(super) fn kept(asked: Option<&Path>, role: &str, file: &str) -> Option<PathBuf> {
    path(asked, role).ok().map(|path| path.join(file)).filter(|path| path.exists())
}

fn state(path: &Path) -> io::Result<DirState> {
    if !path.try_exists()? {
        return Ok(DirState::Missing);
    }
    // It has no name. One without content fits on a full disk, too.
    tempfile::tempfile_in(path)?.write_all(&[0; 4096])?;
    let mut lock = DirLock::of(path);
    if !lock.path().exists() {
        return Ok(DirState::Free);
    }
    match lock.hold() {
        Ok(()) => Ok(DirState::Free),
        Err(DirLockError::InUse) => Ok(DirState::InUse),
        Err(DirLockError::Failed(error)) => Err(error),
    }
}

pub(super) fn path(asked: Option<&Path>, role: &str) -> anyhow::Result<PathBuf> {
    match asked {
        Some(path) => Ok(path.to_owned()),
        None => default_path(role, |name| env::var_os(name).map(PathBuf::from))
            .context("no default data directory: HOME is not set; give --data-dir DIR"),
    }
}

/// The directory of systemd (`StateDirectory=`), else the XDG state directory, else the default of XDG.
fn default_path(role: &str, env: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name: &str| env(name).filter(|path| path.is_absolute());
    // Colons separate several state directories; narthex uses the first.
    let given = absolute("STATE_DIRECTORY").map(|list| {
        let text = list.to_string_lossy();
        PathBuf::from(text.split(':').next().unwrap_or_default())
    });
    given
        .or_else(|| Some(absolute("XDG_STATE_HOME")?.join("narthex").join(role)))
        .or_else(|| Some(absolute("HOME")?.join(".local/state/narthex").join(role)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_directory_is_systemds_then_xdgs_then_homes() {
        let all = [("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"), ("XDG_STATE_HOME", "/xdg"), ("HOME", "/home/u")];
        let default_from = |from: usize| {
            default_path("agent", |name| {
                all[from..].iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            })
        };
        assert_eq!(default_from(0), Some("/var/lib/a".into()));
        assert_eq!(default_from(1), Some("/xdg/narthex/agent".into()));
        assert_eq!(default_from(2), Some("/home/u/.local/state/narthex/agent".into()));
        assert_eq!(default_from(3), None);
    }

    #[test]
    fn a_data_directory_is_private_and_has_one_user_at_a_time() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("made/agent");
        let first = DataDir::take(Some(&path), "agent").expect("free");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
        let error = DataDir::take(Some(&path), "agent").expect_err("taken").to_string();
        assert!(error.contains("--data-dir") && error.contains("made/agent"), "{error}");
        assert!(matches!(look(Some(&path), "agent"), Ok((_, DirState::InUse))));
        drop(first);
        assert!(matches!(look(Some(&path), "agent"), Ok((_, DirState::Free))));
        DataDir::take(Some(&path), "agent").expect("free again");
    }

    #[test]
    fn a_data_directory_that_was_open_to_others_is_private_once_it_is_taken() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for mode in [0o777, 0o755, 0o2770] {
            fs::set_permissions(dir.path(), Permissions::from_mode(mode)).expect("sets");
            DataDir::take(Some(dir.path()), "agent").expect("free");
            assert_eq!(fs::metadata(dir.path()).expect("there").mode() & 0o7777, 0o700, "{mode:o}");
        }
        let shared = tempfile::tempdir().expect("temporary directory");
        fs::write(shared.path().join("other"), "not ours").expect("writes");
        fs::set_permissions(shared.path(), Permissions::from_mode(0o755)).expect("sets");
        let error = format!("{:#}", DataDir::take(Some(shared.path()), "agent").expect_err("is not narthex's"));
        assert!(error.contains("chmod 0700") && error.contains("/agent"), "{error}");
        assert_eq!(fs::metadata(shared.path()).expect("there").mode() & 0o777, 0o755);
        fs::write(shared.path().join("lock"), "").expect("writes");
        DataDir::take(Some(shared.path()), "agent").expect_err("has files of others");
        fs::write(shared.path().join("agent.key"), "a key that was put there").expect("writes");
        DataDir::take(Some(shared.path()), "agent").expect("is narthex's");
        assert_eq!(fs::metadata(shared.path()).expect("there").mode() & 0o777, 0o700);
    }

    #[test]
    fn a_look_at_a_data_directory_makes_nothing() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let missing = dir.path().join("missing");
        assert!(matches!(look(Some(&missing), "agent"), Ok((_, DirState::Missing))));
        assert!(matches!(look(Some(dir.path()), "agent"), Ok((_, DirState::Free))));
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 0);
        fs::write(&missing, "no directory").expect("writes");
        assert!(matches!(look(Some(&missing), "agent"), Ok((_, DirState::Unusable(_)))));
    }
}
