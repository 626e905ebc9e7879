//! The headers of a scrape: those of the answer, and the time for the pull.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

use crate::{scraper::config::ScrapeConfig, wire::scrape_timeout};

/// Part of the `Accept` header of every browser.
const HTML: &[u8] = b"html";

/// How long a pull may take, as asked for in `headers`: a little less than Prometheus waits, so that our answer is
/// there first.
/// An error is the header's value, if that is not a positive decimal number.
pub(super) fn time_to_pull<'a>(headers: &'a HeaderMap, config: &ScrapeConfig) -> Result<Duration, &'a HeaderValue> {
    let timeout = scrape_timeout(headers)?.unwrap_or(config.timeout_default).min(config.timeout_max);
    Ok(timeout - config.margin.min(timeout / 10))
}

/// The headers of a peer's answer that describe the exposition. Others would be obeyed by a browser as if they were the
/// scraper's own (`Clear-Site-Data`, `Refresh`, `Set-Cookie`, `Strict-Transport-Security`), and Prometheus reads none.
pub(super) fn for_prometheus(answer: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LENGTH, header::VARY] {
        for value in answer.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    headers
}

/// True if a browser asks, which would render the answer as a page.
///
/// A peer may answer with any `Content-Type`, and a person may open the URL of a scrape: a page made by a peer would
/// act as a page of this scraper, whose API can release aliases. Such an answer is sent with
/// `Content-Security-Policy: sandbox`, which Prometheus does not get.
pub(super) fn asks_for_a_page(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|accept| accept.as_bytes().windows(HTML.len()).any(|part| part.eq_ignore_ascii_case(HTML)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::SCRAPE_TIMEOUT_HEADER;

    fn timeout(value: &str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(SCRAPE_TIMEOUT_HEADER, HeaderValue::from_str(value).expect("a header"))]);
        time_to_pull(&headers, &ScrapeConfig::default()).ok()
    }

    #[test]
    fn a_pull_has_a_little_less_time_than_prometheus_waits() {
        assert_eq!(timeout("10"), Some(Duration::from_millis(9500)));
        assert_eq!(timeout("2.000"), Some(Duration::from_millis(1800)));
        assert_eq!(timeout("0.7"), Some(Duration::from_millis(630)));
        assert_eq!(timeout("3600"), Some(Duration::from_millis(119_500)));
        assert_eq!(time_to_pull(&HeaderMap::new(), &ScrapeConfig::default()), Ok(Duration::from_millis(9500)));
    }

    #[test]
    fn a_timeout_that_is_no_positive_decimal_is_refused() {
        let digits = "9".repeat(40);
        for text in ["", ".", "0", "0.0", "-1", "+1", "1e3", "inf", "NaN", "2s", "1.2.3", "0x1", &digits] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }
}
