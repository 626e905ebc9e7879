//! A pace for log lines that others cause: one a minute, with a count.

use std::{
    mem,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Between two lines: strangers could fill the log.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The pace of one kind of line.
#[derive(Debug, Default)]
pub(crate) struct LogPace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    /// Events since the last line.
    unlogged: u64,
}

impl LogPace {
    /// Counts an event. If a line is due, returns how many events the line stands for.
    pub(crate) fn due(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.unlogged += 1;
        if state.last.is_some_and(|last| last.elapsed() <= LOG_EVERY) {
            return None;
        }
        state.last = Some(Instant::now());
        Some(mem::take(&mut state.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_a_minute_counts_all_events() {
        let pace = LogPace::default();
        assert_eq!([(); 3].map(|()| pace.due()), [Some(1), None, None]);
        tokio::time::advance(LOG_EVERY * 2).await;
        assert_eq!(pace.due(), Some(3));
    }
}
