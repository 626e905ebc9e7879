//! File systems of a test's own: one in a file, whose bytes can be had at any moment, and small ones in memory.
//!
//! They are mounted below `narthex-disk-<pid>` in the temporary directory, and go away with their handle; what a killed
//! run left behind is unmounted before the next one makes its first.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use super::program;

const PREFIX: &str = "narthex-disk-";

/// A mounted file system.
pub(crate) struct Disk {
    /// Holds `at`, and the image if there is one.
    directory: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// An ext4 of 32 MiB on a loop device; `None`, after saying why, where none can be made.
    #[track_caller]
    pub(crate) fn ext4() -> Option<Self> {
        let mkfs = program::program("mkfs.ext4", "e2fsprogs").or_else(|| sbin("mkfs.ext4"))?;
        let disk = Self::unmounted();
        fs::File::create(disk.image()).and_then(|file| file.set_len(32 << 20)).expect("a file");
        run(Command::new(mkfs).arg("-qF").arg(disk.image())).expect("a file can be formatted");
        let image = disk.image();
        disk.mount(&["-o", "loop"], &image)
    }

    /// A tmpfs of so many KiB; `None`, after saying why, where none can be made.
    #[track_caller]
    pub(crate) fn tmpfs(kib: u32) -> Option<Self> {
        let disk = Self::unmounted();
        disk.mount(&["-t", "tmpfs", "-o", &format!("size={kib}k")], Path::new("tmpfs"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// What the device holds at this moment: all that a power cut would leave.
    #[track_caller]
    pub(crate) fn bytes(&self) -> Image {
        let copy = self.directory.join("copy");
        run(Command::new("cp").arg("--sparse=always").arg(self.image()).arg(&copy)).expect("an image can be copied");
        Image(copy)
    }

    /// Mounts what was on the device at that moment in place of what is there now. No file may be open.
    #[track_caller]
    pub(crate) fn restore(&self, Image(copy): Image) {
        run(Command::new("umount").arg(&self.at)).expect("nobody uses the disk");
        fs::rename(copy, self.image()).expect("renames");
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(&self.at))
            .expect("the journal is replayed");
    }

    #[track_caller]
    pub(crate) fn remount(&self, how: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.at)).expect("can be mounted again");
    }

    fn image(&self) -> PathBuf {
        self.directory.join("image")
    }

    fn unmounted() -> Self {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("{PREFIX}{}-{}", process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let directory = env::temp_dir().join(name);
        let at = directory.join("at");
        fs::create_dir_all(&at).expect("a directory");
        Self { directory, at }
    }

    #[track_caller]
    fn mount(self, how: &[&str], what: &Path) -> Option<Self> {
        match run(Command::new("mount").args(how).arg(what).arg(&self.at)) {
            Ok(()) => Some(self),
            Err(reason) => {
                program::skip(&format!("file systems cannot be mounted, they want root: {reason}"));
                None
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

/// The bytes of a device.
pub(crate) struct Image(PathBuf);

fn sbin(name: &str) -> Option<PathBuf> {
    Some(Path::new("/sbin").join(name)).filter(|path| path.is_file())
}

fn remove(directory: &Path) {
    // Nothing is mounted if the mount failed.
    let _ = run(Command::new("umount").arg("-l").arg(directory.join("at")));
    let _ = fs::remove_dir_all(directory);
}

/// Removes the disks of test runs that are no more.
fn sweep() {
    for entry in fs::read_dir(env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&entry.path());
        }
    }
}

/// Runs it; what it complains about, if it fails.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}
