//! How long to wait between attempts.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// Pauses between attempts at something that should come back: 0.25 s, doubling to `most`, each with jitter.
pub(crate) fn redial_backoff(most: Duration) -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(most)
        .with_jitter()
        .without_max_times()
        .build()
}
