//! The URL of an exporter.
//!
//! The endpoint comes from the agent's own settings alone. A scraper adds at most query parameters, and only those that
//! [`Params`] allows.

use std::{fmt, path::PathBuf, str::FromStr};

use http::{Uri, uri::PathAndQuery};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, de};

/// The path of a URL without one, as in Prometheus.
const DEFAULT_PATH: &str = "/metrics";

/// `http://host:port/path`, `https://...`, or an exporter on a Unix socket: `unix:/run/x.sock:/metrics`, which can
/// also be written `http+unix://%2Frun%2Fx.sock/metrics`. The default path is `/metrics`.
///
/// Printed without its query, which may contain a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExporterUrl {
    endpoint: Endpoint,
    path: PathAndQuery,
    /// True if the path was written, false if it is the default.
    explicit: bool,
}

/// The exporter's end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp {
        tls: bool,
        /// Without the brackets of an IPv6 address.
        host: String,
        port: u16,
        /// Host and port as written, for the `Host` header.
        authority: String,
    },
    Unix(PathBuf),
}

/// Why a text is not the URL of an exporter. The text may contain a password and is not printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// None of the forms.
    #[error("expected a URL such as http://127.0.0.1:9100/metrics, https://host/metrics or unix:/run/x.sock:/metrics")]
    Form,
    /// Another scheme.
    #[error("only http://, https:// and unix: URLs can be asked")]
    Scheme,
    /// Credentials have their own settings, which keep them out of logs.
    #[error("a user name or password in a URL is not supported: give username and password_file")]
    UserInfo,
    /// Both the URL and the setting `path` have a path.
    #[error("the URL has a path already")]
    PathTwice,
    /// Not a path.
    #[error("a path begins with / and has no spaces")]
    Path,
}

impl ExporterUrl {
    /// The same endpoint with this path (and query).
    ///
    /// # Errors
    /// [`UrlError::PathTwice`] if the URL has a path already, [`UrlError::Path`] for a text that is no path.
    #[cfg(any(test, feature = "cli"))]
    pub(crate) fn with_path(self, path: &str) -> Result<Self, UrlError> {
        if self.explicit {
            return Err(UrlError::PathTwice);
        }
        Ok(Self { path: path_and_query(path)?, explicit: true, ..self })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn path(&self) -> &PathAndQuery {
        &self.path
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self.endpoint, Endpoint::Tcp { tls: true, .. })
    }

    /// The value of the `Host` header.
    pub(super) fn host_header(&self) -> &str {
        match &self.endpoint {
            Endpoint::Tcp { authority, .. } => authority,
            Endpoint::Unix(_) => "localhost",
        }
    }

    /// The path that `location` points to, in an answer to a request for `requested`. `None` if another endpoint is meant:
    /// an exporter must not lead the agent elsewhere.
    pub(super) fn redirected(&self, requested: &PathAndQuery, location: &str) -> Option<PathAndQuery> {
        let location = location.split('#').next().unwrap_or_default();
        let scheme = if self.is_tls() { "https" } else { "http" };
        let absolute = match location {
            _ if location.starts_with("//") => format!("{scheme}:{location}"),
            _ if location.starts_with('/') => return location.parse().ok(),
            _ if location.starts_with('?') => return format!("{}{location}", requested.path()).parse().ok(),
            _ if location.split(['/', '?']).next()?.contains(':') => location.to_owned(),
            // A path relative to the requested one.
            _ => return format!("{}{location}", &requested.path()[..=requested.path().rfind('/')?]).parse().ok(),
        };
        let to: Uri = absolute.parse().ok()?;
        let (to_scheme, authority) = (to.scheme_str()?, to.authority()?);
        let same_endpoint = match &self.endpoint {
            Endpoint::Tcp { tls, host, port, .. } => {
                let to_port = authority.port_u16().unwrap_or(default_port(*tls));
                bare_host(authority.host()).eq_ignore_ascii_case(host) && to_port == *port
            }
            Endpoint::Unix(_) => authority.as_str() == self.host_header(),
        };
        let plain = !authority.as_str().contains('@');
        (to_scheme == scheme && same_endpoint && plain).then(|| to.path_and_query().cloned()).flatten()
    }

    fn unix(socket: &str, path: &str) -> Result<Self, UrlError> {
        if !socket.starts_with('/') || socket.contains('\0') {
            return Err(UrlError::Form);
        }
        let explicit = !path.is_empty();
        let path = path_and_query(if explicit { path } else { DEFAULT_PATH })?;
        Ok(Self { endpoint: Endpoint::Unix(socket.into()), path, explicit })
    }
}

impl FromStr for ExporterUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once(':').ok_or(UrlError::Form)?;
        if scheme.eq_ignore_ascii_case("unix") {
            let rest = rest.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(rest);
            let (socket, path) = rest.rfind(":/").map_or((rest, ""), |at| (&rest[..at], &rest[at + 1..]));
            return Self::unix(socket, path);
        }
        let rest = rest.strip_prefix("//").ok_or(UrlError::Form)?;
        if scheme.eq_ignore_ascii_case("http+unix") {
            let (socket, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let socket = percent_decode_str(socket).decode_utf8().ok().filter(|_| is_well_escaped(socket));
            return Self::unix(&socket.ok_or(UrlError::Form)?, path);
        }
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(UrlError::Scheme);
        }
        let url = Self::try_from(text.parse::<Uri>().map_err(|_| UrlError::Form)?)?;
        // As Prometheus does with a target that names no path. A parsed URL always has one.
        let explicit = rest.contains(['/', '?']);
        let path = if explicit { url.path } else { PathAndQuery::from_static(DEFAULT_PATH) };
        Ok(Self { path, explicit, ..url })
    }
}

/// A parsed URL keeps its path: `/` is no default.
impl TryFrom<Uri> for ExporterUrl {
    type Error = UrlError;

    fn try_from(url: Uri) -> Result<Self, UrlError> {
        let tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(UrlError::Scheme),
            None => return Err(UrlError::Form),
        };
        let authority = url.authority().ok_or(UrlError::Form)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::UserInfo);
        }
        let host = bare_host(authority.host());
        let port = authority.port_u16().unwrap_or(default_port(tls));
        let odd_port = authority.port_u16().is_none() && authority.as_str().len() > authority.host().len();
        if host.is_empty() || port == 0 || odd_port {
            return Err(UrlError::Form);
        }
        let endpoint = Endpoint::Tcp { tls, host: host.to_owned(), port, authority: authority.to_string() };
        let path = url.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { endpoint, path, explicit: true })
    }
}

impl fmt::Display for ExporterUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp { tls, authority, .. } => write!(f, "http{}://{authority}", if *tls { "s" } else { "" })?,
            Endpoint::Unix(socket) => write!(f, "unix:{}:", socket.display())?,
        }
        let hidden = if self.path.query().is_some() { "?.." } else { "" };
        write!(f, "{}{hidden}", self.path.path())
    }
}

impl<'de> Deserialize<'de> for ExporterUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Which query parameters of a scrape reach the exporter. A scrape never sets parameters that the URL has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Params {
    /// None: the agent requests exactly the URL.
    #[default]
    None,
    /// Those of these names.
    Named(Vec<String>),
    /// All. An exporter that probes the parameter `target` (blackbox, snmp) then probes whatever the scraper names.
    All,
}

impl Params {
    /// The path to request for a scrape with this query.
    pub(super) fn applied(&self, to: &PathAndQuery, query: Option<&str>) -> PathAndQuery {
        let own: Vec<_> = pairs(to.query().unwrap_or_default()).map(name).collect();
        let passes = |pair: &&str| {
            let name = name(pair);
            let listed = match self {
                Self::None => false,
                Self::Named(names) => names.contains(&name),
                Self::All => true,
            };
            // Some servers treat ; as &: the value of one parameter must not contain another.
            listed && !own.contains(&name) && !pair.contains(';')
        };
        let passed: Vec<&str> = pairs(query.unwrap_or_default()).filter(passes).collect();
        if passed.is_empty() {
            return to.clone();
        }
        let mark = if to.query().is_some() { '&' } else { '?' };
        // A query that does not parse is dropped whole.
        format!("{to}{mark}{}", passed.join("&")).parse().unwrap_or_else(|_| to.clone())
    }
}

/// `true`, `false`, or the names.
impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected true, false or a list of names such as [\"collect[]\"]")]
        enum Written {
            All(bool),
            Named(Vec<String>),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::All(true) => Self::All,
            Written::All(false) => Self::None,
            Written::Named(names) => Self::Named(names),
        })
    }
}

fn pairs(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|pair| !pair.is_empty())
}

/// A parameter's name, decoded.
fn name(pair: &str) -> String {
    let raw = pair.split('=').next().unwrap_or_default().replace('+', " ");
    percent_decode_str(&raw).decode_utf8_lossy().into_owned()
}

/// True if each `%` begins an escape (RFC 3986, section 2.1).
fn is_well_escaped(text: &str) -> bool {
    let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    text.split('%').skip(1).all(is_escape)
}

fn path_and_query(text: &str) -> Result<PathAndQuery, UrlError> {
    if !text.starts_with('/') {
        return Err(UrlError::Path);
    }
    text.parse().map_err(|_| UrlError::Path)
}

fn bare_host(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ExporterUrl {
        text.parse().expect(text)
    }

    #[test]
    fn every_form_is_parsed_and_a_missing_path_means_slash_metrics() {
        for (text, printed) in [
            ("http://127.0.0.1:9100", "http://127.0.0.1:9100/metrics"),
            ("http://127.0.0.1:9100/", "http://127.0.0.1:9100/"),
            ("HTTPS://host", "https://host/metrics"),
            ("http://[::1]:9100/x?token=secret", "http://[::1]:9100/x?.."),
            ("http://host?x=1", "http://host/?.."),
            ("unix:/run/x.sock", "unix:/run/x.sock:/metrics"),
            ("unix:///run/x.sock:/m?a=b", "unix:/run/x.sock:/m?.."),
            ("http+unix://%2Frun%2Fx.sock/m", "unix:/run/x.sock:/m"),
            ("http+unix://%2Frun%2Fx.sock", "unix:/run/x.sock:/metrics"),
        ] {
            assert_eq!(url(text).to_string(), printed, "{text}");
        }
        let Endpoint::Tcp { tls: true, host, port: 443, .. } = url("https://[::1]/m").endpoint else { panic!("TCP") };
        assert_eq!(host, "::1");
    }

    #[test]
    fn invalid_urls_are_refused_and_never_printed() {
        for (text, error) in [
            ("host:9100", UrlError::Form),
            ("9100", UrlError::Form),
            ("http://", UrlError::Form),
            ("http://:80/", UrlError::Form),
            ("http://h:/", UrlError::Form),
            ("http://h:0/", UrlError::Form),
            ("http://h:99999/", UrlError::Form),
            ("unix:relative.sock", UrlError::Form),
            ("http+unix://run/x", UrlError::Form),
            ("http+unix://%2Frun%2/m", UrlError::Form),
            ("http+unix://%2Fr%zz/m", UrlError::Form),
            ("ftp://h/", UrlError::Scheme),
            ("http://user:hunter2@h/", UrlError::UserInfo),
            ("unix:/x.sock:/a b", UrlError::Path),
        ] {
            assert_eq!(text.parse::<ExporterUrl>(), Err(error), "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn a_path_is_given_once() {
        assert_eq!(url("http://h").with_path("/a?b=c").expect("fine").path.as_str(), "/a?b=c");
        assert_eq!(url("unix:/x.sock").with_path("/a").expect("fine").to_string(), "unix:/x.sock:/a");
        assert_eq!(url("http://h/x").with_path("/a"), Err(UrlError::PathTwice));
        assert_eq!(url("http://h").with_path("a"), Err(UrlError::Path));
    }

    #[test]
    fn a_redirect_stays_at_the_same_endpoint() {
        let from = |text: &str, location: &str| {
            let url = url(text);
            url.redirected(url.path(), location).map(|path| path.to_string())
        };
        let exporter = "http://Host:9100/a/metrics?x=1";
        for (location, to) in [
            ("/new?y=2#part", "/new?y=2"),
            ("http://host:9100/new", "/new"),
            ("//host:9100/new", "/new"),
            ("other", "/a/other"),
            ("?y=2", "/a/metrics?y=2"),
        ] {
            assert_eq!(from(exporter, location).as_deref(), Some(to), "{location}");
        }
        assert_eq!(from("https://h/m", "https://h:443/n").as_deref(), Some("/n"));
        assert_eq!(from("unix:/x.sock", "http://localhost/n").as_deref(), Some("/n"));
        for location in [
            "http://other:9100/",
            "http://host:9101/",
            "http://host/",
            "https://host:9100/",
            "//other/",
            "http://host:9100@other/",
            "http://user@host:9100/",
            "file:///etc/passwd",
            "unix:/run/docker.sock:/",
            "http:/x",
        ] {
            assert_eq!(from(exporter, location), None, "{location}");
        }
        assert_eq!(from("unix:/x.sock", "http://127.0.0.1/n"), None);
    }

    #[test]
    fn only_listed_parameters_pass_and_none_that_the_url_sets() {
        let applied =
            |params: &Params, text: &str, query: &str| params.applied(url(text).path(), Some(query)).to_string();
        let query = "collect[]=cpu&target=evil&collect%5B%5D=mem&x=1;target=evil";
        assert_eq!(applied(&Params::None, "http://h/m", query), "/m");
        let named = Params::Named(vec!["collect[]".into(), "x".into()]);
        assert_eq!(applied(&named, "http://h/m", query), "/m?collect[]=cpu&collect%5B%5D=mem");
        let fixed = "http://h/probe?target=fixed";
        assert_eq!(applied(&Params::All, fixed, "t%61rget=evil&%74arget=evil&y=1"), "/probe?target=fixed&y=1");
        assert_eq!(applied(&Params::All, "http://h/m", ""), "/m");
    }
}
