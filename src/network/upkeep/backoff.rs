//! How long to wait between attempts.

use std::{iter, time::Duration};

use rand::Rng;

/// The first pause, before the random part of it is taken off.
const FIRST: Duration = Duration::from_millis(250);

/// Pauses between attempts at something that should come back: 0.25 s, doubling to `cap`, each shortened at random by up to
/// half. So no pause is longer than `cap`.
pub(crate) fn redial_backoff(cap: Duration) -> impl Iterator<Item = Duration> {
    redial_backoff_to(move || cap)
}

/// As [`redial_backoff`], with a cap that may change between two pauses.
pub(crate) fn redial_backoff_to(mut cap: impl FnMut() -> Duration) -> impl Iterator<Item = Duration> {
    let mut next = FIRST;
    iter::from_fn(move || {
        let pause = next.min(cap());
        next = pause * 2;
        Some(pause.mul_f64(rand::rng().random_range(0.5..=1.0)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_cap_and_their_jitter_stays_within() {
        let cap = Duration::from_secs(15);
        let mut most = FIRST;
        for pause in redial_backoff(cap).take(12) {
            assert!((most / 2..=most).contains(&pause), "{pause:?}, and at most {most:?}");
            most = cap.min(2 * most);
        }
    }
}
