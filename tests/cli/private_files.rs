//! Key files with the modes and owners that Kubernetes, packages and systemd give them, read by a user without rights.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use narthex::identity::{self, KeyPair};
use rustix::{fs::XattrFlags, process::geteuid};
use tempfile::TempDir;

use crate::support::{process::Run, program::skip};

/// The user, its group, and a group beside: `fsGroup`.
const USER: u32 = 64_001;
const GROUP: u32 = 64_002;
const FS_GROUP: u32 = 64_003;
const OTHER: u32 = 64_004;

/// A directory that the user may enter, with a key in it. None where this process cannot become another user.
fn key_for_others() -> Option<(TempDir, PathBuf, KeyPair)> {
    if !geteuid().is_root() {
        skip("only root can run a command as another user");
        return None;
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("chmod");
    let (path, key) = (dir.path().join("a.key"), KeyPair::from_seed(&[9; 32]));
    identity::create_key(&path, &key).expect("writes");
    // The user need not be able to reach the build's directory.
    fs::copy(env!("CARGO_BIN_EXE_narthex"), dir.path().join("narthex")).expect("copies");
    Some((dir, path, key))
}

/// Sets owner, group and mode, and has the user read the key.
fn read_as_user(path: &Path, (uid, gid, mode): (u32, u32, u32), env: &[(&str, &Path)]) -> Run {
    chown(path, Some(uid), Some(gid)).expect("chown");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
    run_as_user(path, env)
}

fn run_as_user(path: &Path, env: &[(&str, &Path)]) -> Run {
    let ids = [format!("--reuid={USER}"), format!("--regid={GROUP}"), format!("--groups={FS_GROUP}")];
    let mut command = Command::new("setpriv");
    command.args(ids).arg("--").arg(path.with_file_name("narthex")).arg("key").arg(path);
    Run::of(command.env_clear().envs(env.iter().copied()))
}

#[test]
fn a_key_that_a_group_of_ours_may_read_is_taken_and_a_wider_one_is_not() {
    let Some((_dir, path, key)) = key_for_others() else { return };
    let read = |as_of| read_as_user(&path, as_of, &[]);
    for taken in [(USER, GROUP, 0o600), (0, FS_GROUP, 0o440), (0, GROUP, 0o640), (USER, FS_GROUP, 0o640)] {
        let run = read(taken);
        assert_eq!((run.code, run.stdout), (Some(0), format!("{}\n", key.public())), "{taken:?}: {}", run.stderr);
    }
    let name = path.display();
    for (refused, why) in [
        (
            (0, FS_GROUP, 0o644),
            format!("may be read by others (mode 0644); mend it with: chmod 640 {name} (Kubernetes: "),
        ),
        ((USER, GROUP, 0o604), format!("may be read by others (mode 0604); mend it with: chmod 600 {name}\n")),
        ((0, FS_GROUP, 0o660), format!("may be changed by its group (mode 0660); mend it with: chmod 640 {name} ")),
        (
            (USER, OTHER, 0o640),
            format!("may be read by group {OTHER}, which is none of this process (mode 0640); mend"),
        ),
        ((OTHER, GROUP, 0o640), format!("belongs to user {OTHER}, not to root or this process (mode 0640); mend it")),
    ] {
        let run = read(refused);
        let one_line = run.stderr.starts_with("error: ") && run.stderr.lines().count() == 1;
        assert!(run.code == Some(1) && one_line && run.stderr.contains(&why), "{refused:?}: {}", run.stderr);
    }
}

#[test]
fn a_credential_of_systemd_is_taken_where_it_lies() {
    let Some((dir, path, key)) = key_for_others() else { return };
    let denied = read_as_user(&path, (0, 0, 0o400), &[]);
    assert!(denied.stderr.contains("Permission denied"), "{}", denied.stderr);
    // acl(5), as systemd 254 sets it: user::r--, user:USER:r--, group::---, mask::r--, other::---.
    let entries = [(0x01, 4, u32::MAX), (0x02, 4, USER), (0x04, 0, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        list.extend([u16::to_le_bytes(tag), u16::to_le_bytes(rights)].concat());
        list.extend(id.to_le_bytes());
    }
    if rustix::fs::setxattr(&path, "system.posix_acl_access", &list, XattrFlags::empty()).is_err() {
        return skip("a file system with access lists");
    }
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o440);
    let run = run_as_user(&path, &[("CREDENTIALS_DIRECTORY", dir.path())]);
    assert_eq!((run.code, run.stdout), (Some(0), format!("{}\n", key.public())), "{}", run.stderr);
    let elsewhere = run_as_user(&path, &[]);
    assert!(elsewhere.stderr.contains("may be read by group 0, which is none"), "{}", elsewhere.stderr);
}
