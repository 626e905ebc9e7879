//! What systemd hears of a role (`Type=notify`, `WatchdogSec=`): that it serves, lives, and ends. Without systemd nothing is
//! sent. Nothing waits for a systemd that does not read.

#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::{
    convert::Infallible,
    env, future,
    io::{self, ErrorKind},
    os::unix::{
        ffi::OsStrExt,
        net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::{task, time};

use crate::scraper::HttpSocket;

/// Pause before systemd is told again what it had no room for.
const AGAIN: Duration = Duration::from_secs(1);

/// Says that the role serves, once `serves` is done, and from then on, twice in the time that systemd gives, that tasks run.
pub(super) async fn keep_told(serves: impl Future<Output = ()>) -> Infallible {
    serves.await;
    while !tell(&NotifyState::Ready) {
        time::sleep(AGAIN).await;
    }
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| *limit > Duration::ZERO) else {
        return future::pending().await;
    };
    let mut ticks = time::interval(limit / 2);
    loop {
        ticks.tick().await;
        // This future may have a thread of its own; a new task runs only if the threads of the others do.
        if task::spawn(future::ready(())).await.is_ok() {
            tell(&NotifyState::Watchdog);
        }
    }
}

/// The socket that listens for HTTP, if systemd has opened it (`sd_listen_fds(3)`). Called before there are other threads, as it
/// takes the variables out of the environment.
///
/// # Errors
/// It is no listening socket of TCP or of a file, or there are several.
pub(super) fn passed_socket() -> anyhow::Result<Option<HttpSocket>> {
    let mut passed = ListenFd::from_env();
    ensure!(passed.len() <= 1, "systemd passes {} sockets, and HTTP needs one; see ListenStream=", passed.len());
    if passed.len() == 0 {
        return Ok(None);
    }
    // A socket of the other kind stays there.
    let of_tcp = passed.take_tcp_listener(0).ok().flatten().map(HttpSocket::Tcp);
    let of_file = || passed.take_unix_listener(0).ok().flatten().map(HttpSocket::Unix);
    let socket = of_tcp.or_else(of_file).context("systemd passes a socket that is no ListenStream=")?;
    Ok(Some(socket))
}

/// Says that the role ends.
pub(super) fn stopping() {
    tell(&NotifyState::Stopping);
}

/// False if systemd has no room for the message now.
fn tell(state: &NotifyState<'_>) -> bool {
    let what = state.to_string();
    match send(&what) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            tracing::debug!(what, "systemd does not read what it is told");
            return false;
        }
        Err(error) => tracing::warn!(%error, what, "systemd could not be told"),
    }
    true
}

/// Sends without waiting: `sd_notify::notify` waits for room, for ever if nobody reads.
fn send(message: &str) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address(path.as_bytes())?)?;
    socket.send(message.as_bytes()).map(drop)
}

/// A path, or a name behind an `@` that is none in the file system.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.strip_prefix(b"@") {
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))
}
