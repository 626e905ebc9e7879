//! How long to wait between attempts.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// Pauses between attempts at something that should come back: 0.25 s, doubling to `cap`, each plus jitter of up to as
/// much again. `cap` is the cap of the backoff before jitter; a pause is at most twice this.
pub(crate) fn redial_backoff(cap: Duration) -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(cap)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_quarter_of_a_second_to_the_cap_with_jitter_of_as_much() {
        let cap = Duration::from_secs(15);
        let mut least = Duration::from_millis(250);
        for pause in redial_backoff(cap).take(12) {
            assert!((least..=2 * least).contains(&pause), "{pause:?} after {least:?}");
            least = cap.min(2 * least);
        }
    }
}
