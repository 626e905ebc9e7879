//! SIGTERM and SIGINT: the first asks a role to release and drain, the second ends the process at once.

use std::{io, process, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::telemetry::log;

/// A second signal within this time belongs to the first.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// A token that the first SIGTERM or SIGINT cancels. From then on a second one ends the process, with the status that
/// a shell gives for that signal.
pub(super) fn stop() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => SignalKind::terminate(),
                _ = interrupt.recv() => SignalKind::interrupt(),
            }
        };
        let first = next().await;
        tracing::info!(signal = first.as_raw_value(), "stopping; a second signal ends at once");
        token.cancel();
        let asked = Instant::now();
        // One request may come as two signals: coreutils' timeout signals the child, then the child's group.
        let mut second = next().await;
        while asked.elapsed() < SAME_REQUEST {
            second = next().await;
        }
        tracing::warn!(signal = second.as_raw_value(), "ending at once, without releasing");
        log::finish("");
        process::exit(128 + second.as_raw_value());
    });
    Ok(stop)
}

/// Ignores SIGHUP, which would end the process: servers re-read their settings at it, and these roles have none to re-read.
pub(super) fn ignore_hangup() -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP: there is nothing to read again; restart to change settings");
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_signal_cancels_the_token() {
        let stop = stop().expect("handlers");
        assert!(!stop.is_cancelled());
        let killed = Command::new("kill").args(["-TERM", &process::id().to_string()]).status().expect("kill runs");
        assert!(killed.success());
        stop.cancelled().await;
    }
}
