//! The file of a Unix socket: made with its mode, replaced only if nobody listens there, removed by its maker alone.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::dir_lock;

/// Connections that may wait for the accept.
const BACKLOG: i32 = 1024;

/// The path to bind or connect to, as long as this value lives.
#[derive(Debug)]
pub(crate) struct SocketPath {
    path: PathBuf,
    /// Leads to the socket if its own path is longer than a socket's may be.
    _directory: Option<File>,
}

impl SocketPath {
    /// The socket with this file.
    ///
    /// # Errors
    /// If its directory cannot be opened, where that is needed.
    pub(crate) fn of(file: &Path) -> io::Result<Self> {
        if SocketAddr::from_pathname(file).is_ok() {
            return Ok(Self { path: file.to_owned(), _directory: None });
        }
        let (Some(directory), Some(name)) = (file.parent(), file.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let directory = File::open(directory)?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _directory: Some(directory) })
    }
}

impl AsRef<Path> for SocketPath {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// The file of a socket that listens. It is removed with this value, unless another one has taken its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// The device and the inode.
    id: (u64, u64),
}

impl SocketFile {
    /// Listens at `path`, where only who has a right by `mode` may connect. A socket that a process left behind when it was
    /// killed is replaced.
    ///
    /// # Errors
    /// `AddrInUse` if another process listens there, `AlreadyExists` if the file is no socket, and those of the system.
    pub(crate) fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, Self)> {
        let at = SocketPath::of(path)?;
        make_room(path, at.as_ref())?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // On Linux the file gets the mode of the socket, less the umask: at no moment it has a wider one.
        let inode = File::from(OwnedFd::from(socket));
        inode.set_permissions(Permissions::from_mode(mode))?;
        let socket = Socket::from(OwnedFd::from(inode));
        socket.bind(&SockAddr::unix(at.as_ref())?)?;
        let file = Self { path: path.to_owned(), id: dir_lock::id(&fs::symlink_metadata(path)?) };
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok((socket.into(), file))
    }

    /// False if the file was removed, or is another one.
    pub(crate) fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|metadata| dir_lock::id(&metadata) == self.id)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = fs::remove_file(&self.path); // the next start would remove it
        }
    }
}

/// True if a process listens there. Waits for nothing, also if that process does not accept.
pub(crate) fn is_listened_on(path: &Path) -> bool {
    let connected = SocketPath::of(path).and_then(|path| {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(&path)?)
    });
    match connected {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Removes the socket of a process that is gone.
fn make_room(path: &Path, at: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) if is_listened_on(at) => Err(io::ErrorKind::AddrInUse.into()),
        Ok(_) => fs::remove_file(path),
    }
}

#[cfg(test)]
mod tests {
    use std::{mem, os::unix::net::UnixStream};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn a_socket_has_its_mode_and_goes_with_its_maker() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, wanted) in [("own", 0o600), ("group", 0o660)] {
            let path = dir.path().join(name);
            let (listener, file) = SocketFile::bind(&path, wanted).expect("binds");
            assert_eq!(mode(&path), wanted);
            UnixStream::connect(&path).expect("listens");
            drop((listener, file));
            assert!(!path.exists());
        }
    }

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let living = SocketFile::bind(&path, 0o600).expect("binds");
        let kind = |path: &Path| SocketFile::bind(path, 0o600).map(drop).map_err(|error| error.kind());
        assert_eq!(kind(&path), Err(io::ErrorKind::AddrInUse));
        let (listener, file) = living;
        drop(listener);
        mem::forget(file); // as a kill does
        let replaced = SocketFile::bind(&path, 0o600).expect("replaces what was left");
        fs::rename(&path, dir.path().join("aside")).expect("moved");
        let other = SocketFile::bind(&path, 0o600).expect("binds");
        drop(replaced);
        assert!(other.1.is_there(), "the file of another socket stays");
        let (text, link) = (dir.path().join("text"), dir.path().join("link"));
        fs::write(&text, "kept").expect("written");
        std::os::unix::fs::symlink(&path, &link).expect("made");
        assert_eq!((kind(&text), kind(&link)), (Err(io::ErrorKind::AlreadyExists), Err(io::ErrorKind::AlreadyExists)));
        assert_eq!(fs::read_to_string(&text).expect("there"), "kept");
    }

    /// Before: a directory with a long path had no socket.
    #[test]
    fn a_path_of_any_length_has_a_socket() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("long-".repeat(30)).join("socket");
        fs::create_dir(path.parent().expect("one")).expect("made");
        let (_listener, file) = SocketFile::bind(&path, 0o600).expect("binds");
        assert!(file.is_there() && is_listened_on(&path));
        UnixStream::connect(SocketPath::of(&path).expect("opens")).expect("listens");
    }

    /// Before: a look at the socket of a process that was stopped waited for it.
    #[test]
    fn a_process_that_does_not_accept_listens() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        socket.bind(&SockAddr::unix(&path).expect("a path")).expect("binds");
        socket.listen(0).expect("listens");
        let _waiting = UnixStream::connect(&path).expect("the only place");
        assert!(is_listened_on(&path));
    }
}
