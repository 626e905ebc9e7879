//! The name by which a request reached the scraper.
//!
//! With DNS rebinding the name of any web page may lead here, and the browser then lets the page read what we answer. The
//! page cannot choose the `Host`, which is its own name, nor can its browser be taken for Prometheus. So a browser is
//! answered only if it asks by an address, which cannot be rebound, or by a name that is known to be ours.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderName, StatusCode, Uri, header, uri::Authority};

use super::router::Shared;
use crate::{
    http::{LocalAddr, text},
    identity::HostPort,
};

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

/// Refuses a browser that asks by a name that is not known to be ours.
pub(super) async fn refuse_rebound(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    // No page makes its browser send a URL in the first line, as for a proxy.
    if request.uri().authority().is_some() || !is_of_a_browser(request.headers()) {
        return next.run(request).await;
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    match host {
        Some(host) if hosts.next().is_none() && is_known(host.host(), &shared) => next.run(request).await,
        _ => text::line(
            StatusCode::FORBIDDEN,
            "a browser must ask by the IP address of this scraper, by localhost, or by a name that is listed in its \
             setting http-allowed-host: any other name may be that of a page that wants to read this (DNS rebinding)",
        ),
    }
}

fn is_of_a_browser(headers: &HeaderMap) -> bool {
    OF_BROWSERS.iter().any(|name| headers.contains_key(name))
        || headers.get_all(header::USER_AGENT).iter().any(|agent| agent.as_bytes().starts_with(BROWSER))
}

fn is_known(host: &str, shared: &Shared) -> bool {
    let advertised = shared.advertise.iter().map(|ours| ours.host.as_str());
    let mut names = ["localhost"].into_iter().chain(advertised).chain(shared.allowed_hosts.iter().map(String::as_str));
    without_brackets(host).parse::<IpAddr>().is_ok() || names.any(|name| name.eq_ignore_ascii_case(host))
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

impl LocalAddr {
    /// The address to scrape for a Prometheus that asked for `/sd` like this: the host that it used, which is known to
    /// lead here, or else our end of the connection. The text is short and safe to display and cache: a host name or an
    /// address, with or without a port.
    pub(super) fn asked_as(self, uri: &Uri, headers: &HeaderMap) -> String {
        let mut named = headers.get_all(header::HOST).iter();
        let host = match (uri.authority(), named.next(), named.next()) {
            (Some(authority), _, _) => Some(authority.as_str()),
            (None, Some(host), None) => host.to_str().ok(),
            _ => None,
        };
        host.and_then(target).map_or_else(|| self.0.to_string(), |host| host.to_string())
    }

    /// True if `authority` (of a URL with the scheme `http`) is certainly this scraper: our end of the connection,
    /// `localhost` with its port, or the advertised address.
    ///
    /// Other names may lead here as well, but a name proves nothing: with DNS rebinding, any web page has one.
    pub(super) fn is_ours(self, authority: &Authority, advertise: Option<&HostPort>) -> bool {
        let (host, port) = (authority.host(), authority.port_u16().unwrap_or(80));
        let host = without_brackets(host);
        if advertise.is_some_and(|ours| ours.host.eq_ignore_ascii_case(host) && ours.port == port) {
            return true;
        }
        let by_address = host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical() == self.0.ip());
        port == self.0.port() && (by_address || host.eq_ignore_ascii_case("localhost"))
    }
}

/// Reads a host with or without a port; the default is HTTP's own.
fn target(text: &str) -> Option<HostPort> {
    let host = text.parse().or_else(|_| format!("{text}:80").parse::<HostPort>()).ok()?;
    (host.port != 0).then_some(host)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use http::HeaderValue;

    use super::*;

    const LOCAL: &str = "127.0.0.1:19960";

    fn local() -> LocalAddr {
        LocalAddr::from(LOCAL.parse::<SocketAddr>().expect("an address"))
    }

    #[test]
    fn the_host_that_prometheus_used_is_the_target() {
        let cases = [
            ("scraper.example:19960", "scraper.example:19960"),
            ("scraper", "scraper:80"),
            ("[::1]:19960", "[::1]:19960"),
            ("[::1]", "[::1]:80"),
        ];
        for (host, target) in cases {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            assert_eq!(local().asked_as(&Uri::from_static("/sd"), &headers), target);
        }
        let absolute = Uri::from_static("http://other:1/sd");
        assert_eq!(local().asked_as(&absolute, &HeaderMap::new()), "other:1");
    }

    #[test]
    fn a_missing_doubled_or_odd_host_gives_way_to_our_end_of_the_connection() {
        let uri = Uri::from_static("/sd");
        assert_eq!(local().asked_as(&uri, &HeaderMap::new()), LOCAL);
        let long = "a".repeat(300);
        for odd in ["", "a\"b", "a b", "a/b", "host:99999", "host:0", "host:", "user@host", "žluť", &long] {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_str(odd).expect("a header"))]);
            assert_eq!(local().asked_as(&uri, &headers), LOCAL, "{odd}");
        }
        let mut two = HeaderMap::new();
        two.append(header::HOST, HeaderValue::from_static("one"));
        two.append(header::HOST, HeaderValue::from_static("two"));
        assert_eq!(local().asked_as(&uri, &two), LOCAL);
    }

    #[test]
    fn only_our_own_address_localhost_and_the_advertised_one_are_ours() {
        let advertise: HostPort = "scraper.example:80".parse().expect("fine");
        let ours = |authority: &str| local().is_ours(&authority.parse().expect("an authority"), Some(&advertise));
        for authority in [LOCAL, "localhost:19960", "LOCALHOST:19960", "scraper.example", "Scraper.Example:80"] {
            assert!(ours(authority), "{authority}");
        }
        for authority in ["127.0.0.1", "localhost", "127.0.0.2:19960", "evil.example:19960", "scraper.example:81"] {
            assert!(!ours(authority), "{authority}");
        }
        let v6 = LocalAddr::from("[::ffff:127.0.0.1]:1".parse::<SocketAddr>().expect("an address"));
        assert!(v6.is_ours(&"127.0.0.1:1".parse().expect("an authority"), None));
    }
}
