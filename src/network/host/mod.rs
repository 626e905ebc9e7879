//! Watches this host's network: the ways out of it, its addresses and carriers.
//!
//! Whoever waits before another attempt wakes up when there is a new way ([`HostChanges::any`]); and links that were made over
//! another one are tested at once ([`HostChanges::ways`]), which keep-alives would take half a minute for. The kernel's messages
//! only say that it is worth looking: what has changed is seen by comparing two looks. On Linux (netlink); elsewhere, and while
//! there is no netlink, nothing changes here, and all goes on by the clock.

mod changes;
#[cfg(any(target_os = "linux", test))]
mod looks;
#[cfg(target_os = "linux")]
mod netlink;

use std::convert::Infallible;
#[cfg(target_os = "linux")]
use std::{io, mem, time::Duration};

use tokio::sync::watch;
#[cfg(target_os = "linux")]
use tokio::time;

pub(crate) use changes::HostChanges;

/// Pause before the kernel is asked again, which doubles each time.
#[cfg(target_os = "linux")]
const FIRST_PAUSE: Duration = Duration::from_secs(1);
#[cfg(target_os = "linux")]
const MOST_PAUSE: Duration = Duration::from_secs(60);

/// Counts the changes. Never returns.
#[cfg(target_os = "linux")]
pub(crate) async fn watch(changes: &watch::Sender<HostChanges>) -> Infallible {
    let (mut known, mut is_lost) = (None, false);
    let mut pause = FIRST_PAUSE;
    loop {
        let watched = async {
            let mut kernel = netlink::Netlink::open()?;
            let Err(error) = looks::follow(&mut kernel, &mut known, changes).await;
            io::Result::<Infallible>::Err(error)
        };
        let Err(error) = watched.await;
        // Once: it may be a system call that this process may never make.
        if !mem::replace(&mut is_lost, true) {
            tracing::warn!(%error, "changes of this host's network are not seen for now: attempts keep to their pauses");
        }
        time::sleep(pause).await;
        pause = MOST_PAUSE.min(2 * pause);
    }
}

/// Counts nothing. Never returns.
#[cfg(not(target_os = "linux"))]
pub(crate) async fn watch(_: &watch::Sender<HostChanges>) -> Infallible {
    std::future::pending().await
}
