//! Browsers, whose pages are strangers on the operator's own machine.
//!
//! With DNS rebinding the name of any web page may lead here, and the browser then lets the page read what we answer. The
//! page cannot choose the `Host`, which is its own name, nor can its browser be taken for Prometheus. So a browser is
//! answered only if it asks by an address, which cannot be rebound, or by a name that is known to be ours.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Request, header, uri::Authority};

/// Headers that browsers send and scrapers do not. A page cannot suppress `Accept-Language`; browsers send `Sec-Fetch-*`
/// over HTTPS and to loopback only, and `Origin` only with some requests.
const OF_BROWSERS: [HeaderName; 5] = [
    header::ACCEPT_LANGUAGE,
    header::ORIGIN,
    header::REFERER,
    HeaderName::from_static("sec-fetch-site"),
    HeaderName::from_static("sec-fetch-mode"),
];
/// How every browser's `User-Agent` begins.
const BROWSER: &[u8] = b"Mozilla/";

/// True of a browser's request by a name that is not known to be ours.
pub(crate) fn is_rebound<B>(request: &Request<B>, is_ours: impl Fn(&str) -> bool) -> bool {
    // No page makes its browser send a URL in the first line, as for a proxy.
    if request.uri().authority().is_some() || !is_of_a_browser(request.headers()) {
        return false;
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let is_known = |host: &str| without_brackets(host).parse::<IpAddr>().is_ok() || is_ours(host);
    !host.is_some_and(|host| hosts.next().is_none() && is_known(host.host()))
}

fn is_of_a_browser(headers: &HeaderMap) -> bool {
    OF_BROWSERS.iter().any(|name| headers.contains_key(name))
        || headers.get_all(header::USER_AGENT).iter().any(|agent| agent.as_bytes().starts_with(BROWSER))
}

pub(crate) fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}
