//! Where a command asks a scraper: a URL, or the Unix socket that the scraper listens on.

use std::{fmt, path::PathBuf, str::FromStr};

use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

use crate::{
    http::unix_path,
    identity::HostPort,
    scraper::{HttpAddr, HttpAddrError},
    telemetry::Chain,
};

const EXPECTED: &str =
    "expected a URL such as http://127.0.0.1:19960 or https://scraper.example:19960, or unix:/run/narthex/http.sock";

/// `http://HOST:PORT/PATH`, `https://..`, `unix:SOCKET` or `unix:SOCKET:/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ScraperUrl {
    pub(super) server: Server,
    /// With its query; `/` if none was given.
    path: PathAndQuery,
}

/// What to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Tcp { tls: bool, authority: Authority },
    Unix(PathBuf),
}

impl ScraperUrl {
    /// The scraper that this value of its own `--http` starts; or a URL.
    pub(super) fn of_http_side(text: &str) -> Result<Self, String> {
        if text.contains("://") || text.starts_with("unix:") {
            return text.parse();
        }
        let mut address: HostPort = text.parse().map_err(|error| Chain(&error).to_string())?;
        match address.ip() {
            Some(ip) if ip.is_unspecified() => address.host = if ip.is_ipv4() { "127.0.0.1" } else { "::1" }.to_owned(),
            _ => {}
        }
        format!("http://{address}").parse()
    }

    /// The scraper itself, and the path and query asked for.
    pub(super) fn split(self) -> (Self, PathAndQuery) {
        (Self { server: self.server, path: PathAndQuery::from_static("/") }, self.path)
    }

    /// The request target of a scraper's `path` behind this URL.
    pub(super) fn target(&self, path: &str) -> String {
        format!("{}{path}", self.path.path().trim_end_matches('/'))
    }

    /// What requests have as their `Host`.
    pub(super) fn host(&self) -> &str {
        match &self.server {
            Server::Tcp { authority, .. } => authority.as_str(),
            Server::Unix(_) => "localhost",
        }
    }
}

impl FromStr for ScraperUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("unix:") {
            let (socket, path) = rest
                .get(1..)
                .and_then(|rest| rest.find(":/"))
                .map(|at| at + 1)
                .map_or((rest, "/"), |at| (&rest[..at], &rest[at + 1..]));
            let socket = unix_path(&format!("unix:{socket}")).flatten();
            let socket = socket.ok_or_else(|| HttpAddrError::Unix.to_string())?;
            let path = path.parse().map_err(|error| format!("{EXPECTED}: {error}"))?;
            return Ok(Self { server: Server::Unix(socket), path });
        }
        let url: Uri = text.parse().map_err(|error| format!("{EXPECTED}: {error}"))?;
        let tls = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(EXPECTED.into()),
        };
        let authority = url.authority().ok_or(EXPECTED)?;
        if authority.as_str().contains('@') {
            return Err("a user name or password in a URL is not taken: give it in --http-config.file".into());
        }
        if authority.host().is_empty() || authority.as_str().ends_with(':') {
            return Err(EXPECTED.into());
        }
        let path = url.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { server: Server::Tcp { tls, authority: authority.clone() }, path })
    }
}

impl fmt::Display for ScraperUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            Server::Tcp { tls, authority } => {
                let scheme = if *tls { "https" } else { "http" };
                write!(f, "{scheme}://{authority}{}", self.path)
            }
            Server::Unix(socket) => {
                HttpAddr::Unix(socket.clone()).fmt(f)?;
                if self.path == "/" { Ok(()) } else { write!(f, ":{}", self.path) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_http_https_or_a_socket_without_credentials() {
        for (text, shown) in [
            ("HTTP://h/x", "http://h/x"),
            ("https://h:1", "https://h:1/"),
            ("http://[::1]:1/sd?service=a", "http://[::1]:1/sd?service=a"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("unix:///run/x.sock", "unix:/run/x.sock"),
            ("unix:/run/x.sock:/sd?label=a:/b", "unix:/run/x.sock:/sd?label=a:/b"),
        ] {
            assert_eq!(text.parse::<ScraperUrl>().expect(text).to_string(), shown);
        }
        for (text, reason) in [
            ("ftp://h/", "expected a URL"),
            ("h:9100", "expected a URL"),
            ("http://", "expected a URL"),
            ("http://:80/", "expected a URL"),
            ("http://h:/", "expected a URL"),
            ("http://u:p@h/", "user name or password"),
            ("unix:run/x.sock", "an absolute path"),
            ("unix:", "an absolute path"),
        ] {
            let error = text.parse::<ScraperUrl>().expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn the_http_side_is_read_as_the_scraper_reads_it() {
        for (text, url) in [
            ("127.0.0.1:19960", "http://127.0.0.1:19960/"),
            ("0.0.0.0:1", "http://127.0.0.1:1/"),
            ("[::]:1", "http://[::1]:1/"),
            ("http://h:1/narthex", "http://h:1/narthex"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
        ] {
            assert_eq!(ScraperUrl::of_http_side(text).expect("fine").to_string(), url);
        }
        assert!(ScraperUrl::of_http_side("nonsense").is_err() && ScraperUrl::of_http_side("https://h/").is_ok());
    }

    #[test]
    fn requests_go_below_the_path_of_the_url() {
        let url: ScraperUrl = "http://h:1/narthex/".parse().expect("fine");
        assert_eq!(url.target("/sd"), "/narthex/sd");
        let (scraper, path) = "unix:/run/x.sock:/sd?service=a".parse::<ScraperUrl>().expect("fine").split();
        assert_eq!((scraper.target(path.as_str()).as_str(), scraper.host()), ("/sd?service=a", "localhost"));
    }
}
