//! Durations and keys as people read them.

use std::time::Duration;

/// Characters of a key that tell it from others: 40 bits.
#[cfg(feature = "cli")]
pub(crate) const KEY_CHARS: usize = 8;

/// A duration to three digits: `262ms`, `1.53s`, `2m 5s`.
pub(crate) fn short_duration(duration: Duration) -> String {
    let (seconds, ms) = (duration.as_secs(), duration.as_secs_f64() * 1e3);
    match seconds {
        0 if duration.is_zero() => "0s".to_owned(),
        0 if ms < 1.0 => format!("{}us", duration.as_micros()),
        0 if ms < 10.0 => format!("{ms:.2}ms"),
        0 if ms < 100.0 => format!("{ms:.1}ms"),
        0 => format!("{}ms", duration.as_millis()),
        _ if duration.subsec_nanos() == 0 && seconds < 60 => format!("{seconds}s"),
        1..10 => format!("{:.2}s", duration.as_secs_f64()),
        10..60 => format!("{:.1}s", duration.as_secs_f64()),
        60..3600 => parts(seconds, 60, "m", "s"),
        3600..86_400 => parts(seconds / 60, 60, "h", "m"),
        _ => parts(seconds / 3600, 24, "d", "h"),
    }
}

/// The larger unit, and the smaller one if there is some of it.
fn parts(count: u64, in_larger: u64, larger: &str, smaller: &str) -> String {
    match (count / in_larger, count % in_larger) {
        (large, 0) => format!("{large}{larger}"),
        (large, small) => format!("{large}{larger} {small}{smaller}"),
    }
}

/// The begin of a key's text. `narthex targets` shows the same.
#[cfg(feature = "cli")]
pub(crate) fn short_key(key: &str) -> &str {
    key.get(..KEY_CHARS).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_or_two_units() {
        for (nanos, text) in [
            (0, "0s"),
            (999, "0us"),
            (17_000, "17us"),
            (1_234_567, "1.23ms"),
            (12_345_678, "12.3ms"),
            (261_870_854, "261ms"),
            (1_000_000_000, "1s"),
            (1_534_000_000, "1.53s"),
            (29_740_000_000, "29.7s"),
            (125_400_000_000, "2m 5s"),
            (3_600_000_000_000, "1h"),
            (11_400_000_000_000, "3h 10m"),
            (180_000_000_000_000, "2d 2h"),
        ] {
            assert_eq!(short_duration(Duration::from_nanos(nanos)), text);
        }
    }
}
