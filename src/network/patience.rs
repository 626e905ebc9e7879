//! Time limits that count only while this process keeps up with its work.
//!
//! A busy process is slow at both ends of what it waits for: its own part of a handshake waits among the tasks, too. What is
//! ended, or begun a second time, because of that makes the process busier.

use std::time::Duration;

use tokio::time::{self, Instant};

/// A timer that is later than this shows that the process is behind with its work.
const PUNCTUAL: Duration = Duration::from_millis(20);
/// What is waited for may take so many turns among the tasks.
const TURNS: u32 = 10;

/// Waits so long, and longer while the process is behind with its work: ten times as long as the timer was late.
pub(crate) async fn sleep(duration: Duration) {
    let mut rest = duration;
    loop {
        let until = Instant::now() + rest;
        time::sleep_until(until).await;
        let late = until.elapsed();
        if late <= PUNCTUAL {
            return;
        }
        rest = late * TURNS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_process_that_is_behind_waits_longer() {
        let begun = Instant::now();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(begun.elapsed().as_secs(), 1);

        let mut waits = Box::pin(sleep(Duration::from_secs(1)));
        assert!(futures::poll!(&mut waits).is_pending());
        time::advance(Duration::from_secs(2)).await;
        let begun = Instant::now();
        waits.await;
        assert_eq!(begun.elapsed().as_secs(), 10);
    }
}
