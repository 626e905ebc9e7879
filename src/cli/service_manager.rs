//! What systemd hears of a role (`Type=notify`, `WatchdogSec=`): that it serves, lives, and ends. Without systemd nothing is
//! sent.

use std::{convert::Infallible, future, time::Duration};

use sd_notify::NotifyState;
use tokio::{task, time};

/// Says that the role serves, once `serves` is done, and from then on, twice in the time that systemd gives, that tasks run.
pub(super) async fn keep_told(serves: impl Future<Output = ()>) -> Infallible {
    serves.await;
    tell(NotifyState::Ready);
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| *limit > Duration::ZERO) else {
        return future::pending().await;
    };
    let mut ticks = time::interval(limit / 2);
    loop {
        ticks.tick().await;
        // This future may have a thread of its own; a new task runs only if the threads of the others do.
        if task::spawn(future::ready(())).await.is_ok() {
            tell(NotifyState::Watchdog);
        }
    }
}

/// Says that the role ends.
pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    let what = state.to_string();
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, what, "systemd could not be told");
    }
}
