//! The web configuration file of Prometheus and its exporters: TLS, passwords, headers and a rate, as YAML.
//!
//! The schema is that of the [exporter-toolkit](https://prometheus.io/docs/prometheus/latest/configuration/https/), where each name
//! and default is explained. A field that it does not have is refused. `http2` is read and changes nothing: answers are HTTP/1.1.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use bcrypt::HashParts;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use zeroize::Zeroizing;

/// The headers that may be set, each with the values that it may have; any if there are none.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];
/// The costs of bcrypt (OpenBSD `bcrypt_pbkdf`, Go's `bcrypt`).
const COSTS: std::ops::RangeInclusive<u32> = 4..=31;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WebConfig {
    pub(super) tls_server_config: TlsServer,
    http_server_config: HttpServer,
    rate_limit: RateLimit,
    /// Hashes of passwords by names.
    pub(super) basic_auth_users: BTreeMap<String, String>,
}

/// Certificates, and how clients show theirs.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsServer {
    pub(super) cert: Option<String>,
    pub(super) key: Option<Zeroizing<String>>,
    pub(super) client_ca: Option<String>,
    pub(super) cert_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) client_ca_file: Option<PathBuf>,
    pub(super) client_auth_type: ClientAuth,
    pub(super) client_allowed_sans: BTreeSet<String>,
    pub(super) cipher_suites: Vec<String>,
    pub(super) curve_preferences: Vec<String>,
    pub(super) min_version: Option<String>,
    pub(super) max_version: Option<String>,
    /// True by default, as in the exporter-toolkit.
    pub(super) prefer_server_cipher_suites: Option<bool>,
}

/// What a client must show, by Go's names (`crypto/tls`, `ClientAuthType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum ClientAuth {
    #[default]
    #[serde(alias = "")]
    NoClientCert,
    RequestClientCert,
    RequireAnyClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpServer {
    #[serde(rename = "http2")]
    _http2: Option<bool>,
    headers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RateLimit {
    interval: Option<String>,
    burst: u32,
}

impl WebConfig {
    /// Reads a file's text. The error is one line without anything secret.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let is_empty = text.lines().all(|line| matches!(line.trim(), "" | "---") || line.trim().starts_with('#'));
        let config =
            if is_empty { Self::default() } else { serde_saphyr::from_str(text).map_err(|error| plain(&error))? };
        config.tls_server_config.check()?;
        config.check_users()?;
        config.headers()?;
        config.rate()?;
        Ok(config)
    }

    fn check_users(&self) -> Result<(), String> {
        for (name, hash) in &self.basic_auth_users {
            let parts: Result<HashParts, _> = hash.parse();
            if !parts.is_ok_and(|parts| COSTS.contains(&parts.get_cost())) {
                return Err(format!(
                    "basic_auth_users: the password of {name:?} is no bcrypt hash: htpasswd -nBC 10 makes one"
                ));
            }
        }
        Ok(())
    }

    /// The headers of every answer.
    pub(super) fn headers(&self) -> Result<HeaderMap, String> {
        let read = |(name, value): (&String, &String)| {
            let (_, values) = HEADERS.iter().find(|(known, _)| known == name).ok_or_else(|| {
                format!("headers: {name:?} cannot be set; {} can", HEADERS.map(|(known, _)| known).join(", "))
            })?;
            if !values.is_empty() && !values.contains(&value.as_str()) {
                return Err(format!("headers: {name} may be {}", values.join(" or ")));
            }
            let value =
                HeaderValue::from_str(value).map_err(|_| format!("headers: no header takes that value of {name}"))?;
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
            Ok((name, value))
        };
        self.http_server_config.headers.iter().map(read).collect()
    }

    /// One request in an interval, and so many at once.
    pub(super) fn rate(&self) -> Result<Option<(Duration, NonZeroU32)>, String> {
        let RateLimit { interval, burst } = &self.rate_limit;
        let interval = match interval.as_deref() {
            None | Some("0" | "0s") => return Ok(None),
            Some(interval) => humantime::parse_duration(interval)
                .map_err(|_| format!("rate_limit: interval {interval:?} is no time such as 100ms, 1s or 1m30s"))?,
        };
        let burst = NonZeroU32::new(*burst).ok_or("rate_limit: burst must be 1 or more, or no request is answered")?;
        Ok((!interval.is_zero()).then_some((interval, burst)))
    }
}

impl TlsServer {
    /// True if there is to be TLS.
    pub(super) fn is_given(&self) -> bool {
        let own = self.cert.is_some() || self.cert_file.is_some() || self.key.is_some() || self.key_file.is_some();
        own || self.client_ca.is_some()
            || self.client_ca_file.is_some()
            || self.client_auth_type != ClientAuth::default()
    }

    /// The paths of the file begin at its directory.
    pub(super) fn below(&mut self, directory: &Path) {
        for path in [&mut self.cert_file, &mut self.key_file, &mut self.client_ca_file].into_iter().flatten() {
            *path = directory.join(&path);
        }
    }

    fn check(&self) -> Result<(), String> {
        for (name, inline, file) in [
            ("cert", self.cert.is_some(), self.cert_file.is_some()),
            ("key", self.key.is_some(), self.key_file.is_some()),
            ("client_ca", self.client_ca.is_some(), self.client_ca_file.is_some()),
        ] {
            if inline && file {
                return Err(format!("tls_server_config has both {name} and {name}_file"));
            }
            if self.is_given() && !inline && !file && name != "client_ca" {
                return Err(format!("tls_server_config lacks {name}_file"));
            }
        }
        let has_ca = self.client_ca.is_some() || self.client_ca_file.is_some();
        match self.client_auth_type {
            ClientAuth::NoClientCert if has_ca => {
                Err("tls_server_config has a client_ca_file and no client_auth_type: say RequireAndVerifyClientCert"
                    .into())
            }
            ClientAuth::VerifyClientCertIfGiven | ClientAuth::RequireAndVerifyClientCert if !has_ca => {
                Err(format!("tls_server_config: {:?} needs a client_ca_file", self.client_auth_type))
            }
            ClientAuth::NoClientCert if !self.client_allowed_sans.is_empty() => {
                Err("tls_server_config: client_allowed_sans needs a client_auth_type".into())
            }
            _ => Ok(()),
        }
    }
}

/// The error in one line. It does not quote values, which may be hashes and keys: a name that is not known is no secret.
fn plain(error: &serde_saphyr::Error) -> String {
    let error = error.without_snippet();
    let line = error.location().map_or_else(String::new, |at| format!("line {}: ", at.line()));
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let is_known = ["unknown field", "unknown variant", "duplicate"].iter().any(|known| first.contains(known));
    let why = if is_known { first } else { "not as a web configuration has it" };
    format!("{line}{why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$05$Q1F.lUbeNcDkyfUCkKShOO/ly3F9WmL1ZDTStcr8k3.8Yt7PDe6ZK";

    #[test]
    fn the_fields_of_the_exporter_toolkit_are_read() {
        let all = format!(
            "tls_server_config:\n  cert_file: a\n  key_file: b\n  client_ca_file: c\n  client_auth_type: RequireAndVerifyClientCert\n  \
             client_allowed_sans: [x]\n  min_version: TLS12\n  max_version: TLS13\n  prefer_server_cipher_suites: true\n  \
             cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n  curve_preferences: [X25519]\nhttp_server_config:\n  \
             http2: true\n  headers:\n    X-Frame-Options: deny\nrate_limit:\n  interval: 1s\n  burst: 5\nbasic_auth_users:\n  \
             alice: {HASH}\n"
        );
        let config = WebConfig::read(&all).expect("read");
        assert_eq!(config.tls_server_config.client_auth_type, ClientAuth::RequireAndVerifyClientCert);
        assert_eq!(config.rate().expect("fine"), Some((Duration::from_secs(1), NonZeroU32::new(5).expect("five"))));
        assert_eq!(config.headers().expect("fine")["x-frame-options"], "deny");
        for nothing in ["", "# nothing\n", "---\n", "tls_server_config: {}\n"] {
            assert!(!WebConfig::read(nothing).expect(nothing).tls_server_config.is_given(), "{nothing}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line_that_quotes_no_hash() {
        let tls = |more: &str| format!("tls_server_config: {{cert_file: a, key_file: b, {more}}}");
        for (text, said) in [
            ("basic_auth_user: {}".to_owned(), "line 1: unknown field `basic_auth_user`"),
            (tls("client_auth: x"), "unknown field `client_auth`"),
            (tls("client_auth_type: Sometimes"), "unknown variant `Sometimes`"),
            (tls("client_ca_file: c"), "no client_auth_type"),
            (tls("client_auth_type: RequireAndVerifyClientCert"), "needs a client_ca_file"),
            (tls("client_allowed_sans: [a]"), "needs a client_auth_type"),
            (tls("cert: c"), "both cert and cert_file"),
            ("tls_server_config: {cert_file: a}".into(), "lacks key_file"),
            ("tls_server_config: {client_auth_type: RequestClientCert}".into(), "lacks cert_file"),
            (format!("basic_auth_users: [{HASH}]"), "line 1: not as a web configuration has it"),
            ("basic_auth_users: {a: hunter2}".into(), "no bcrypt hash"),
            ("http_server_config: {headers: {X-Frame-Options: never}}".into(), "deny or sameorigin"),
            ("http_server_config: {headers: {Server: x}}".into(), "cannot be set"),
            ("rate_limit: {interval: soon, burst: 1}".into(), "\"soon\" is no time"),
            ("rate_limit: {interval: 1s}".into(), "burst must be 1"),
        ] {
            let error = WebConfig::read(&text).expect_err(&text);
            assert!(error.contains(said) && !error.contains('\n'), "{text}: {error}");
            assert!(!error.contains("Q1F") && !error.contains("hunter2"), "{error}");
        }
    }
}
