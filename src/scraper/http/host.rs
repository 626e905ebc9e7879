//! The name by which a request reached the scraper.
//!
//! A browser is answered only if it asks by an address, or by a name that is known to be ours: see [`browser`].

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, StatusCode, Uri, header, uri::Authority};

use super::router::Shared;
use crate::{
    http::{
        LocalAddr,
        browser::{self, without_brackets},
        text,
    },
    identity::HostPort,
};

/// Refuses a browser that asks by a name that is not known to be ours.
pub(super) async fn refuse_rebound(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let is_ours = |host: &str| {
        let advertised = shared.advertise.iter().map(|ours| ours.host.as_str());
        let mut names =
            ["localhost"].into_iter().chain(advertised).chain(shared.allowed_hosts.iter().map(String::as_str));
        names.any(|name| name.eq_ignore_ascii_case(host))
    };
    if browser::is_rebound(&request, is_ours) {
        return text::line(
            StatusCode::FORBIDDEN,
            "a browser must ask by the IP address of this scraper, by localhost, or by a name that is listed in its \
             setting http-allowed-host: any other name may be that of a page that wants to read this (DNS rebinding)",
        );
    }
    next.run(request).await
}

impl LocalAddr {
    /// The address to scrape for a Prometheus that asked for `/sd` like this: the host that it used, which is known to
    /// lead here, or else our end of the connection, which is an address unless it is a Unix socket's. The text is short and
    /// safe to display and cache: a host name or an address, with or without a port.
    pub(super) fn asked_as(self, uri: &Uri, headers: &HeaderMap) -> Option<String> {
        let mut named = headers.get_all(header::HOST).iter();
        let host = match (uri.authority(), named.next(), named.next()) {
            (Some(authority), _, _) => Some(authority.as_str()),
            (None, Some(host), None) => host.to_str().ok(),
            _ => None,
        };
        match (host.and_then(target), self) {
            (Some(host), _) => Some(host.to_string()),
            (None, Self::Tcp(local)) => Some(local.to_string()),
            (None, Self::Unix) => None,
        }
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
        let Self::Tcp(local) = self else { return false };
        let by_address = host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical() == local.ip());
        port == local.port() && (by_address || host.eq_ignore_ascii_case("localhost"))
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
            assert_eq!(local().asked_as(&Uri::from_static("/sd"), &headers).as_deref(), Some(target));
        }
        let absolute = Uri::from_static("http://other:1/sd");
        assert_eq!(local().asked_as(&absolute, &HeaderMap::new()).as_deref(), Some("other:1"));
    }

    #[test]
    fn a_missing_doubled_or_odd_host_gives_way_to_our_end_of_the_connection() {
        let uri = Uri::from_static("/sd");
        assert_eq!(local().asked_as(&uri, &HeaderMap::new()).as_deref(), Some(LOCAL));
        let long = "a".repeat(300);
        for odd in ["", "a\"b", "a b", "a/b", "host:99999", "host:0", "host:", "user@host", "žluť", &long] {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_str(odd).expect("a header"))]);
            assert_eq!(local().asked_as(&uri, &headers).as_deref(), Some(LOCAL), "{odd}");
        }
        let mut two = HeaderMap::new();
        two.append(header::HOST, HeaderValue::from_static("one"));
        two.append(header::HOST, HeaderValue::from_static("two"));
        assert_eq!(local().asked_as(&uri, &two).as_deref(), Some(LOCAL));
        assert_eq!(LocalAddr::Unix.asked_as(&uri, &two), None, "a Unix socket has no address");
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
