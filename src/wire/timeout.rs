//! Prometheus's header for the timeout of a scrape.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header with the scrape timeout of Prometheus and vmagent: decimal seconds (`10`, `0.7`, `2.000`).
pub const SCRAPE_TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// Reads the scrape timeout; `None` if the header is missing.
///
/// # Errors
/// The header's value, if that is not a positive decimal number.
pub fn scrape_timeout(headers: &HeaderMap) -> Result<Option<Duration>, &HeaderValue> {
    headers.get(&SCRAPE_TIMEOUT_HEADER).map(|value| decimal_seconds(value).ok_or(value)).transpose()
}

/// Sets the scrape timeout, in whole milliseconds.
pub fn set_scrape_timeout(headers: &mut HeaderMap, limit: Duration) {
    let seconds = limit.as_millis() as f64 / 1000.0;
    headers.insert(SCRAPE_TIMEOUT_HEADER, HeaderValue::from_str(&seconds.to_string()).expect("digits and a dot"));
}

fn decimal_seconds(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    // Stricter than what Rust reads as a number: no sign, no exponent, no `inf`.
    if text.len() > 32 || !text.bytes().all(|c| c.is_ascii_digit() || c == b'.') {
        return None;
    }
    let seconds = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
    (!seconds.is_zero()).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_prometheus_and_vmagent_write_them() {
        let read = |text: &'static str| {
            let headers = HeaderMap::from_iter([(SCRAPE_TIMEOUT_HEADER, HeaderValue::from_static(text))]);
            scrape_timeout(&headers).ok()
        };
        assert_eq!(read("10"), Some(Some(Duration::from_secs(10))));
        assert_eq!(read("0.700"), Some(Some(Duration::from_millis(700))));
        for nonsense in ["", ".", "-1", "0", "NaN", "inf", "1e3", "ten", "1.2.3"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(scrape_timeout(&headers), Ok(None));
        for (limit, text) in [(Duration::from_micros(2_500_999), "2.5"), (Duration::from_secs(10), "10")] {
            set_scrape_timeout(&mut headers, limit);
            assert_eq!(headers[SCRAPE_TIMEOUT_HEADER], text);
        }
        set_scrape_timeout(&mut headers, Duration::MAX);
        assert!(headers[SCRAPE_TIMEOUT_HEADER].as_bytes().iter().all(u8::is_ascii_digit));
    }
}
