//! Watches this host's network: the ways out of it, its addresses and carriers.
//!
//! Whoever waits before another attempt wakes up when there is a new way ([`HostChanges::any`]); and links that were made over
//! another one are tested at once ([`HostChanges::ways`]), which keep-alives would take half a minute for. The kernel's messages
//! only say that it is worth looking: what has changed is seen by comparing two looks. On Linux (netlink); elsewhere, and where
//! there is no netlink, nothing changes here, and all goes on by the clock.

mod changes;
#[cfg(any(target_os = "linux", test))]
mod looks;
#[cfg(target_os = "linux")]
mod netlink;

use std::{convert::Infallible, future};

use tokio::sync::watch;

pub(crate) use changes::HostChanges;

/// Counts the changes. Never returns.
pub(crate) async fn watch(changes: &watch::Sender<HostChanges>) -> Infallible {
    #[cfg(target_os = "linux")]
    let watched = async { looks::follow(&mut netlink::Netlink::open()?, changes).await };
    #[cfg(not(target_os = "linux"))]
    let watched = async {
        let _ = changes;
        std::io::Result::<Infallible>::Err(std::io::ErrorKind::Unsupported.into())
    };
    let Err(error) = watched.await;
    tracing::debug!(%error, "changes of this host's network are not watched: attempts keep to their pauses");
    future::pending().await
}
