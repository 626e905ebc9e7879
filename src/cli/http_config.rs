//! `--http-config.file`: how a command shows who it is, and whom it trusts, as Prometheus's own programs have it.
//!
//! The fields are those of `http_config` in the [configuration of Prometheus](https://prometheus.io/docs/prometheus/latest/configuration/configuration/#http_config),
//! without those that mean nothing here. Paths start at the directory of the file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail, ensure};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{
    agent::{ClientCertificate, Tls, TlsSettings, basic, credentials},
    private_file, secret_file, small_file,
};

/// Headers that a request has for itself.
const RESERVED: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::USER_AGENT,
];
/// Most bytes of the file.
const MAX_LEN: u64 = 1 << 20;

/// The file, for every command that asks a scraper over HTTP.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Credentials {
    /// A file with a password or token, and TLS settings, as promtool takes it (YAML, http_config of Prometheus), for a scraper with users or
    /// an https:// URL
    #[arg(long = "http-config.file", id = "http_config.file", value_name = "FILE")]
    file: Option<PathBuf>,
}

/// What a request needs.
pub(super) struct HttpClient {
    pub(super) headers: HeaderMap,
    pub(super) tls: Tls,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpConfig {
    basic_auth: Option<BasicAuth>,
    authorization: Option<Authorization>,
    /// The older form of `authorization`.
    bearer_token: Option<Zeroizing<String>>,
    bearer_token_file: Option<PathBuf>,
    tls_config: TlsConfig,
    http_headers: BTreeMap<String, Header>,
    /// Answers are neither redirects nor HTTP/2.
    #[serde(rename = "follow_redirects")]
    _follow_redirects: Option<bool>,
    #[serde(rename = "enable_http2")]
    _enable_http2: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BasicAuth {
    username: Option<String>,
    username_file: Option<PathBuf>,
    password: Option<Zeroizing<String>>,
    password_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Authorization {
    r#type: Option<String>,
    credentials: Option<Zeroizing<String>>,
    credentials_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TlsConfig {
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    server_name: Option<String>,
    insecure_skip_verify: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Header {
    values: Vec<String>,
    secrets: Vec<Zeroizing<String>>,
    files: Vec<PathBuf>,
}

impl Credentials {
    /// Reads the file and all that it names, which may have changed since the last request. Blocks.
    pub(super) fn read(&self) -> anyhow::Result<HttpClient> {
        match &self.file {
            Some(file) => read(file).with_context(|| format!("{} cannot be used", file.display())),
            None => Ok(HttpClient { headers: HeaderMap::new(), tls: Tls::new(TlsSettings::default()) }),
        }
    }
}

fn read(file: &Path) -> anyhow::Result<HttpClient> {
    let (bytes, metadata) = small_file::read(file, MAX_LEN)?;
    let text = small_file::text(&bytes)?;
    let is_empty = text.lines().all(|line| matches!(line.trim(), "" | "---") || line.trim().starts_with('#'));
    let config: HttpConfig = match is_empty {
        true => HttpConfig::default(),
        false => serde_saphyr::from_str(text).map_err(|error| anyhow!(plain(&error)))?,
    };
    if config.has_secrets() {
        private_file::check(file, &metadata)?;
    }
    let dir = file.parent().unwrap_or(Path::new(""));
    let headers = config.headers(dir)?;
    Ok(HttpClient { headers, tls: Tls::new(config.tls_config.settings(dir)?) })
}

impl HttpConfig {
    fn has_secrets(&self) -> bool {
        self.basic_auth.as_ref().is_some_and(|basic| basic.password.is_some())
            || self.bearer_token.is_some()
            || self.authorization.as_ref().is_some_and(|authorization| authorization.credentials.is_some())
            || self.http_headers.values().any(|header| !header.secrets.is_empty())
    }

    fn headers(&self, dir: &Path) -> anyhow::Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        for (name, Header { values, secrets, files }) in &self.http_headers {
            let name: HeaderName = name.parse().map_err(|_| anyhow!("http_headers: {name:?} is no header"))?;
            ensure!(!RESERVED.contains(&name), "http_headers: {name} cannot be set");
            let unfit = || anyhow!("http_headers: a value of {name} is none");
            for value in values {
                headers.append(&name, HeaderValue::from_str(value).map_err(|_| unfit())?);
            }
            for secret in secrets {
                headers.append(&name, sensitive(secret.as_bytes()).ok_or_else(unfit)?);
            }
            for path in files {
                headers.append(&name, sensitive(&secret_file::read(&dir.join(path))?).ok_or_else(unfit)?);
            }
        }
        let bearer = (self.bearer_token.is_some() || self.bearer_token_file.is_some()).then(|| Authorization {
            r#type: None,
            credentials: self.bearer_token.clone(),
            credentials_file: self.bearer_token_file.clone(),
        });
        let shown = match (&self.basic_auth, &self.authorization, &bearer) {
            (None, None, None) => None,
            (Some(basic), None, None) => Some(basic.header(dir)?),
            (None, Some(authorization), None) | (None, None, Some(authorization)) => Some(authorization.header(dir)?),
            _ => bail!("more than one of basic_auth, authorization and bearer_token is given"),
        };
        headers.extend(shown.map(|value| (header::AUTHORIZATION, value)));
        Ok(headers)
    }
}

impl BasicAuth {
    fn header(&self, dir: &Path) -> anyhow::Result<HeaderValue> {
        let username = match (&self.username, &self.username_file) {
            (Some(name), None) => name.clone(),
            (None, Some(path)) => {
                let (bytes, _) =
                    small_file::read(&dir.join(path), MAX_LEN).with_context(|| path.display().to_string())?;
                small_file::text(&bytes)?.trim_end().to_owned()
            }
            _ => bail!("basic_auth needs username or username_file"),
        };
        let password = one("basic_auth", ["password", "password_file"], &self.password, &self.password_file, dir)?;
        basic(&username, &password).context("basic_auth: the password cannot be sent")
    }
}

impl Authorization {
    fn header(&self, dir: &Path) -> anyhow::Result<HeaderValue> {
        let names = ["credentials", "credentials_file"];
        let shown = one("authorization", names, &self.credentials, &self.credentials_file, dir)?;
        let scheme = self.r#type.as_deref().unwrap_or("Bearer");
        ensure!(!scheme.eq_ignore_ascii_case("basic"), "authorization: type Basic is basic_auth");
        credentials(scheme, &shown).context("authorization: the credentials cannot be sent")
    }
}

impl TlsConfig {
    fn settings(self, dir: &Path) -> anyhow::Result<TlsSettings> {
        let client = match (self.cert_file, self.key_file) {
            (Some(cert), Some(key)) => Some(ClientCertificate::new(dir.join(cert), dir.join(key))),
            (None, None) => None,
            _ => bail!("tls_config: cert_file and key_file belong together"),
        };
        Ok(TlsSettings {
            ca_file: self.ca_file.map(|path| dir.join(path)),
            client,
            server_name: self.server_name,
            insecure_skip_verify: self.insecure_skip_verify,
        })
    }
}

/// A secret of the file itself, or of another one, without the line end of the latter.
fn one(
    of: &str,
    names: [&str; 2],
    inline: &Option<Zeroizing<String>>,
    file: &Option<PathBuf>,
    dir: &Path,
) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    match (inline, file) {
        (Some(text), None) if !text.is_empty() => Ok(Zeroizing::new(text.as_bytes().to_vec())),
        (None, Some(path)) => {
            let bytes = Zeroizing::new(secret_file::read(&dir.join(path))?.trim_ascii_end().to_vec());
            ensure!(!bytes.is_empty(), "{} is empty", dir.join(path).display());
            Ok(bytes)
        }
        _ => bail!("{of} needs {} or {}", names[0], names[1]),
    }
}

fn sensitive(bytes: &[u8]) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(bytes.trim_ascii_end()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The error in one line, without values, which may be secrets: the name of a field is none.
fn plain(error: &serde_saphyr::Error) -> String {
    let error = error.without_snippet();
    let line = error.location().map_or_else(String::new, |at| format!("line {}: ", at.line()));
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let is_known = ["unknown field", "duplicate"].iter().any(|known| first.contains(known));
    format!("{line}{}", if is_known { first } else { "not as http_config of Prometheus has it" })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    struct Dir(tempfile::TempDir);

    impl Dir {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a directory"))
        }

        fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
            let path = self.0.path().join(name);
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            path
        }

        fn shown(&self, text: &str) -> anyhow::Result<String> {
            let headers = read(&self.write("http.yml", text, 0o600))?.headers;
            Ok(headers.get(header::AUTHORIZATION).map_or("", |value| value.to_str().expect("text")).to_owned())
        }
    }

    #[test]
    fn passwords_and_tokens_of_the_file_or_beside_it_are_shown_as_prometheus_does() {
        let dir = Dir::new();
        dir.write("secret", "open sesame\n", 0o600);
        dir.write("name", "Aladdin\n", 0o644);
        let basic = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="; // RFC 7617, section 2
        for (text, expected) in [
            ("", ""),
            ("basic_auth: {username: Aladdin, password: open sesame}", basic),
            ("basic_auth: {username_file: name, password_file: secret}", basic),
            ("authorization: {credentials: t-1}", "Bearer t-1"),
            ("bearer_token: t-1", "Bearer t-1"),
            ("bearer_token_file: secret", "Bearer open sesame"),
            ("authorization: {type: Token, credentials_file: secret}", "Token open sesame"),
            ("follow_redirects: true\nenable_http2: true\ntls_config: {server_name: x}", ""),
        ] {
            assert_eq!(dir.shown(text).expect(text), expected, "{text}");
        }
        let headers = read(&dir.write("http.yml", "http_headers: {X-Scope-OrgID: {values: [a]}}", 0o600));
        assert_eq!(headers.expect("fine").headers["x-scope-orgid"], "a");
    }

    #[test]
    fn what_others_may_read_and_what_means_nothing_is_refused_without_its_text() {
        let dir = Dir::new();
        dir.write("open", "hunter2", 0o644);
        for (text, said) in [
            ("authorization: {credentials_file: open}", "chmod 600"),
            ("authorization: {credentials_file: none}", "cannot read"),
            ("basic_auth: {password: hunter2}", "needs username or username_file"),
            ("basic_auth: {username: a}", "needs password or password_file"),
            ("basic_auth: {username: a, password: ''}", "needs password or password_file"),
            ("http_headers: {Content-Length: {values: [hunter2]}}", "cannot be set"),
            ("basic_auth: {username: a, password: hunter2}\nauthorization: {credentials: hunter2}", "more than one"),
            ("bearer_token: hunter2\nauthorization: {credentials: hunter2}", "more than one"),
            ("authorization: {type: Basic, credentials: hunter2}", "is basic_auth"),
            ("tls_config: {cert_file: a}", "belong together"),
            ("oauth2: {client_id: hunter2}", "unknown field `oauth2`"),
            ("basic_auth: hunter2", "not as http_config of Prometheus has it"),
            ("http_headers: {Authorization: {values: [hunter2]}}", "cannot be set"),
        ] {
            let error = format!("{:#}", dir.shown(text).expect_err(text));
            assert!(error.contains(said) && !error.contains("hunter2") && !error.contains('\n'), "{text}: {error}");
        }
        let wide = dir.write("wide.yml", "authorization: {credentials: hunter2}", 0o644);
        let error = format!("{:#}", read(&wide).map(drop).expect_err("others may read it"));
        assert!(error.contains("chmod 600"), "{error}");
    }
}
