//! Who may read a file with a key, secret or password: its owner, and a group that this process is in.
//!
//! The group is how secrets reach those that may not own them: Kubernetes mounts them as `root:fsGroup`, mode 0440, and
//! a package may install them as `root:narthex`, mode 0640. Whoever is in that group could be this process anyway.

use std::{
    borrow::Cow,
    env,
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::process::{getegid, geteuid, getgroups};

/// A file with a secret that more than its owner and a group of ours can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {exposure} (mode {mode:04o}); mend it with: {remedy}", path.display())]
#[non_exhaustive]
pub struct ExposedFile {
    /// The file.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Whom it is open to.
    pub exposure: Exposure,
    /// The command that mends it.
    pub remedy: String,
}

/// Whom a file with a secret is open to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Exposure {
    /// Everybody on the machine.
    #[error("may be read by others")]
    Others,
    /// Its group, which may also change it.
    #[error("may be changed by its group")]
    GroupWrites,
    /// A group that this process is not in.
    #[error("may be read by group {gid}, which is none of this process")]
    ForeignGroup {
        /// The group.
        gid: u32,
    },
    /// A group, and belongs to a user who is neither root nor this process's.
    #[error("may be read by a group, and belongs to user {uid}, not to root or this process")]
    ForeignOwner {
        /// The user.
        uid: u32,
    },
}

/// Checks the mode of an opened file: what the path names may be another one by now.
pub(crate) fn check(path: &Path, opened: &Metadata) -> Result<(), ExposedFile> {
    let file = Access { mode: opened.mode() & 0o7777, uid: opened.uid(), gid: opened.gid() };
    let us = Process::current();
    match file.exposure(&us, is_credential(path)) {
        None => Ok(()),
        Some(exposure) => {
            let remedy = file.remedy(&us, path);
            Err(ExposedFile { path: path.to_owned(), mode: file.mode, exposure, remedy })
        }
    }
}

/// Who owns a file, and what they may do.
struct Access {
    mode: u32,
    uid: u32,
    gid: u32,
}

/// Whose rights this process has.
struct Process {
    uid: u32,
    gids: Vec<u32>,
}

impl Process {
    fn current() -> Self {
        // Without the list the effective group is what is certain.
        let mut gids: Vec<u32> = getgroups().unwrap_or_default().into_iter().map(|gid| gid.as_raw()).collect();
        gids.push(getegid().as_raw());
        Self { uid: geteuid().as_raw(), gids }
    }
}

impl Access {
    fn exposure(&self, us: &Process, is_credential: bool) -> Option<Exposure> {
        if self.mode & 0o007 != 0 {
            return Some(Exposure::Others);
        }
        if self.mode & 0o030 != 0 {
            return Some(Exposure::GroupWrites);
        }
        if self.mode & 0o040 == 0 {
            return None;
        }
        if self.uid != 0 && self.uid != us.uid {
            return Some(Exposure::ForeignOwner { uid: self.uid });
        }
        (!is_credential && !us.gids.contains(&self.gid)).then_some(Exposure::ForeignGroup { gid: self.gid })
    }

    /// After it this process can still read the file.
    fn remedy(&self, us: &Process, path: &Path) -> String {
        let path = quoted(path);
        if self.uid == us.uid || us.uid == 0 {
            format!("chmod 600 {path}")
        } else if self.uid == 0 && us.gids.contains(&self.gid) {
            format!("chmod 640 {path} (Kubernetes: defaultMode: 0440)")
        } else {
            format!("chown {} {path} && chmod 600 {path}", us.uid)
        }
    }
}

/// The path as a shell takes it.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    shlex::try_quote(&text).map(Cow::into_owned).unwrap_or_else(|_| text.into_owned())
}

/// True for files of systemd's `LoadCredential=`: their access list admits the service alone, and shows as mode 0440 of
/// root's group.
fn is_credential(path: &Path) -> bool {
    env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|dir| path.parent() == Some(Path::new(&dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u32 = 1000;
    const OURS: u32 = 2000;

    fn exposure(mode: u32, uid: u32, gid: u32, is_credential: bool) -> Option<Exposure> {
        Access { mode, uid, gid }.exposure(&Process { uid: US, gids: vec![US, OURS] }, is_credential)
    }

    #[test]
    fn a_group_of_ours_may_read_what_root_or_we_own_and_nobody_else_may() {
        for (mode, uid, gid, expected) in [
            (0o600, US, 9, None),
            (0o400, 9, 9, None),
            (0o440, 0, OURS, None),
            (0o640, 0, US, None),
            (0o640, US, OURS, None),
            (0o640, US, 9, Some(Exposure::ForeignGroup { gid: 9 })),
            (0o440, 0, 0, Some(Exposure::ForeignGroup { gid: 0 })),
            (0o640, 9, OURS, Some(Exposure::ForeignOwner { uid: 9 })),
            (0o660, 0, OURS, Some(Exposure::GroupWrites)),
            (0o620, US, US, Some(Exposure::GroupWrites)),
            (0o644, 0, OURS, Some(Exposure::Others)),
            (0o604, US, US, Some(Exposure::Others)),
            (0o602, US, US, Some(Exposure::Others)),
        ] {
            assert_eq!(exposure(mode, uid, gid, false), expected, "{mode:o} {uid} {gid}");
        }
    }

    #[test]
    fn a_credential_of_systemd_has_roots_group_and_no_wider_mode() {
        assert_eq!(exposure(0o440, 0, 0, true), None);
        assert_eq!(exposure(0o460, 0, 0, true), Some(Exposure::GroupWrites));
        assert_eq!(exposure(0o444, 0, 0, true), Some(Exposure::Others));
        assert_eq!(exposure(0o440, 9, 0, true), Some(Exposure::ForeignOwner { uid: 9 }));
    }

    #[test]
    fn the_remedy_leaves_the_file_readable_for_us() {
        let remedy = |uid, gid, us| Access { mode: 0o644, uid, gid }.remedy(&us, Path::new("f"));
        let us = || Process { uid: US, gids: vec![OURS] };
        assert_eq!(remedy(US, 9, us()), "chmod 600 f");
        assert_eq!(remedy(0, OURS, us()), "chmod 640 f (Kubernetes: defaultMode: 0440)");
        assert_eq!(remedy(0, 0, us()), "chown 1000 f && chmod 600 f");
        assert_eq!(remedy(9, 9, Process { uid: 0, gids: vec![0] }), "chmod 600 f");
        let spaced = Access { mode: 0o644, uid: US, gid: 9 }.remedy(&us(), Path::new("a b;touch pwn"));
        assert_eq!(spaced, "chmod 600 'a b;touch pwn'");
    }
}
