//! Which headers of a scrape are passed on: from the scraper to a peer, and from an agent to its exporter.
//!
//! Others stay behind. A reverse proxy before the scraper adds credentials under names of its own, which a peer must not
//! collect; and a scraper could use others to be taken for somebody else by an exporter, to lead the exporter elsewhere, or
//! to have it wait for a body.

use http::{HeaderMap, HeaderName, header};

use super::hop_by_hop::{is_hop_by_hop, remove_hop_by_hop};

/// What Prometheus and its like send, beside its own `X-Prometheus-*`.
const PASSED: [HeaderName; 5] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::USER_AGENT,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];
/// Prometheus's own headers begin with this.
const OF_PROMETHEUS: &str = "x-prometheus-";
/// Credentials for the scraper or a reverse proxy before it, the name of the one who is asked, and what a body needs.
const NEVER: [HeaderName; 5] =
    [header::AUTHORIZATION, header::COOKIE, header::HOST, header::CONTENT_LENGTH, header::EXPECT];

/// The headers of a scrape that are passed on: Prometheus's, and those that `named` adds.
pub(crate) fn passed_headers(mut scrape: HeaderMap, named: &[HeaderName]) -> HeaderMap {
    remove_hop_by_hop(&mut scrape);
    let mut headers = HeaderMap::new();
    for (name, value) in scrape.iter().filter(|(name, _)| is_passed(name, named)) {
        headers.append(name, value.clone());
    }
    headers
}

/// The header of this name, if a setting may add it to those that are passed on.
#[cfg(feature = "cli")]
pub(crate) fn nameable_header(name: &str) -> Option<HeaderName> {
    HeaderName::try_from(name).ok().filter(may_be_named)
}

fn is_passed(name: &HeaderName, named: &[HeaderName]) -> bool {
    PASSED.contains(name) || name.as_str().starts_with(OF_PROMETHEUS) || may_be_named(name) && named.contains(name)
}

fn may_be_named(name: &HeaderName) -> bool {
    !NEVER.contains(name) && !is_hop_by_hop(name)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn headers_of_prometheus_and_named_ones_pass_and_neither_credentials_nor_those_of_a_connection() {
        let mut scrape = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Listed"),
            ("connection", "x-second"),
            ("x-listed", "1"),
            ("x-second", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "Basic x"),
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
            ("host", "scraper"),
            ("x-auth-token", "x"),
            ("x-scope-orgid", "tenant"),
            ("accept", "text/plain"),
            ("accept", "*/*"),
            ("accept-encoding", "gzip"),
            ("x-prometheus-scrape-timeout-seconds", "2"),
        ] {
            scrape.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let names = |named: &[HeaderName]| {
            let passed = passed_headers(scrape.clone(), named);
            let mut names: Vec<_> = passed.iter().map(|(name, _)| name.as_str().to_owned()).collect();
            names.sort_unstable();
            names.join(" ")
        };
        let of_prometheus = "accept accept accept-encoding x-prometheus-scrape-timeout-seconds";
        assert_eq!(names(&[]), of_prometheus);
        let named = ["x-scope-orgid", "x-listed", "authorization", "cookie", "host", "te", "proxy-authorization"];
        assert_eq!(names(&named.map(HeaderName::from_static)), format!("{of_prometheus} x-scope-orgid"));
    }
}
