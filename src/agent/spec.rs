//! One target in a file: the table `[[target]]`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue, header::InvalidHeaderValue};
use serde::Deserialize;

use super::{
    Auth, ClientCertificate, Exporter, ExporterError, ExporterSettings, ExporterUrl, Params, TlsSettings, UrlError,
};
use crate::{
    client::{Filter, FilterError, Source, TargetBuilder},
    http::nameable_header,
    wire::{Alias, Labels, Target, TargetError},
};

/// A target of an agent: what is listed, and how the exporter behind it is scraped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetSpec {
    /// What the scraper lists.
    pub(crate) target: Target,
    /// How the agent scrapes. The scraper does not learn these settings.
    pub(crate) exporter: ExporterSettings,
    /// Which metric families pass.
    pub(crate) filter: Filter,
}

impl TargetSpec {
    /// A target with this alias and URL, and defaults for the rest.
    pub(crate) fn new(alias: Alias, url: ExporterUrl) -> Self {
        let target = Target { alias, service: String::new(), labels: Labels::default(), listed: true };
        Self { target, exporter: ExporterSettings::new(url), filter: Filter::default() }
    }

    /// The target for a client, with its source.
    pub(crate) fn builder(&self, source: Arc<dyn Source>) -> TargetBuilder {
        let Target { alias, service, labels, listed } = &self.target;
        let builder = TargetBuilder::new(alias.as_str()).service(service).listed(*listed);
        let builder = labels.iter().fold(builder, |builder, (name, value)| builder.label(name, value));
        builder.metrics(source).filter(self.filter.clone())
    }

    /// The target for a client that is not started, and every file that its scrapes would lack.
    pub(crate) fn rehearse(&self) -> (TargetBuilder, Vec<ExporterError>) {
        let exporter = Exporter::with(self.exporter.clone());
        let unusable = exporter.unusable_files();
        (self.builder(Arc::new(exporter)), unusable)
    }
}

/// Why a well-formed target is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    /// The target cannot be listed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The URL or path is not valid.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A target of a file_sd list is not `host:port`.
    #[error("a target of a file_sd list is host:port; its labels __scheme__ and __metrics_path__ hold the rest")]
    NotHostPort,
    /// `keep` or `drop` is not a valid pattern.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A timeout of zero.
    #[error("timeout must be longer than 0")]
    Timeout,
    /// A header that no pull passes on.
    #[error("{name:?} is no header that can be passed on")]
    RequestHeader { name: String },
    /// The content type cannot be a header's value.
    #[error("fallback_content_type is not fit for a header")]
    ContentType(#[source] InvalidHeaderValue),
    /// Only one of two keys that go together.
    #[error("{given} needs {missing}")]
    Needs { given: &'static str, missing: &'static str },
    /// Two ways to authenticate.
    #[error("username and bearer_token_file exclude each other")]
    TwoAuths,
    /// RFC 7617, section 2: the first colon ends the name.
    #[error("a username has no colon and no control characters")]
    Username,
    /// A TLS setting without TLS.
    #[error("{key} needs an https:// URL")]
    NoTls { key: &'static str },
}

/// The keys, with `_` or `-` as in the rest of a configuration file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    alias: Alias,
    url: ExporterUrl,
    path: Option<String>,
    #[serde(default)]
    service: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default = "listed")]
    listed: bool,
    #[serde(default, with = "humantime_serde")]
    timeout: Option<Duration>,
    #[serde(default)]
    params: Params,
    #[serde(default, alias = "request-headers")]
    request_headers: Vec<String>,
    #[serde(alias = "fallback-content-type")]
    fallback_content_type: Option<String>,
    keep: Option<String>,
    drop: Option<String>,
    #[serde(alias = "ca-file")]
    ca_file: Option<PathBuf>,
    #[serde(alias = "cert-file")]
    cert_file: Option<PathBuf>,
    #[serde(alias = "key-file")]
    key_file: Option<PathBuf>,
    #[serde(alias = "server-name")]
    server_name: Option<String>,
    #[serde(default, alias = "insecure-skip-verify")]
    insecure_skip_verify: bool,
    username: Option<String>,
    #[serde(alias = "password-file")]
    password_file: Option<PathBuf>,
    #[serde(alias = "bearer-token-file")]
    bearer_token_file: Option<PathBuf>,
}

impl Table {
    pub(super) fn alias(&self) -> &Alias {
        &self.alias
    }

    /// Checks keys against each other. Relative paths start at `directory`.
    pub(super) fn spec(self, directory: &Path) -> Result<TargetSpec, SpecError> {
        let tls_key = [
            ("ca_file", self.ca_file.is_some()),
            ("cert_file", self.cert_file.is_some()),
            ("server_name", self.server_name.is_some()),
            ("insecure_skip_verify", self.insecure_skip_verify),
        ];
        if let Some((key, _)) = tls_key.iter().find(|(_, given)| *given)
            && !self.url.is_tls()
        {
            return Err(SpecError::NoTls { key });
        }
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(SpecError::Timeout);
        }
        let path = |path: PathBuf| directory.join(path);
        let auth = match (self.username, self.password_file, self.bearer_token_file) {
            (None, None, None) => None,
            (None, None, Some(token_file)) => Some(Auth::Bearer { token_file: path(token_file) }),
            (Some(username), Some(password_file), None) => {
                if username.contains(|c: char| c == ':' || c.is_control()) {
                    return Err(SpecError::Username);
                }
                Some(Auth::Basic { username, password_file: path(password_file) })
            }
            (Some(_), None, None) => return Err(SpecError::Needs { given: "username", missing: "password_file" }),
            (None, Some(_), _) => return Err(SpecError::Needs { given: "password_file", missing: "username" }),
            (Some(_), _, Some(_)) => return Err(SpecError::TwoAuths),
        };
        let client = match (self.cert_file, self.key_file) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some(ClientCertificate { cert_file: path(cert), key_file: path(key) }),
            (Some(_), None) => return Err(SpecError::Needs { given: "cert_file", missing: "key_file" }),
            (None, Some(_)) => return Err(SpecError::Needs { given: "key_file", missing: "cert_file" }),
        };
        let filter = Filter::new(self.keep.as_deref(), self.drop.as_deref())?;
        let fallback = self.fallback_content_type.map(HeaderValue::try_from).transpose();
        Target::check_name("service", &self.service)?;
        let mut labels = Labels::default();
        for (name, value) in self.labels {
            labels.insert(name, value)?;
        }
        Ok(TargetSpec {
            target: Target { alias: self.alias, service: self.service, labels, listed: self.listed },
            exporter: ExporterSettings {
                url: match &self.path {
                    Some(path) => self.url.with_path(path)?,
                    None => self.url,
                },
                timeout: self.timeout,
                params: self.params,
                request_headers: self.request_headers.iter().map(|name| header_name(name)).collect::<Result<_, _>>()?,
                fallback_content_type: fallback.map_err(SpecError::ContentType)?,
                tls: TlsSettings {
                    ca_file: self.ca_file.map(path),
                    client,
                    server_name: self.server_name,
                    insecure_skip_verify: self.insecure_skip_verify,
                },
                auth,
            },
            filter,
        })
    }
}

/// Targets are listed unless they say otherwise.
fn listed() -> bool {
    true
}

fn header_name(name: &str) -> Result<HeaderName, SpecError> {
    nameable_header(name).ok_or_else(|| SpecError::RequestHeader { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(keys: &str) -> Result<TargetSpec, String> {
        let table: Table = toml::from_str(keys).map_err(|error| error.message().to_owned())?;
        table.spec(Path::new("/etc/narthex")).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_is_read_and_paths_start_at_the_files_directory() {
        let spec = read(
            r#"
            alias = "db-1"
            url = "https://10.0.0.5:9187"
            path = "/probe?module=pg"
            service = "postgres"
            labels = { region = "eu" }
            timeout = "5s"
            params = ["collect[]"]
            request_headers = ["X-Scope-OrgID"]
            fallback_content_type = "text/plain; version=0.0.4"
            keep = "pg_.*"
            drop = "pg_settings_.*"
            ca_file = "ca.pem"
            cert_file = "/run/secrets/agent.pem"
            key_file = "agent.key"
            server_name = "db-1.internal"
            username = "prometheus"
            password_file = "db.password"
            "#,
        )
        .expect("fine");
        assert_eq!(spec.target.labels.value("region"), Some("eu"));
        assert_eq!(spec.filter, Filter::new(Some("pg_.*"), Some("pg_settings_.*")).expect("patterns"));
        let exporter = &spec.exporter;
        assert_eq!(exporter.url.to_string(), "https://10.0.0.5:9187/probe?..");
        assert_eq!(exporter.timeout, Some(Duration::from_secs(5)));
        assert_eq!(exporter.params, Params::Named(vec!["collect[]".into()]));
        assert_eq!(exporter.request_headers, [HeaderName::from_static("x-scope-orgid")]);
        assert_eq!(exporter.tls.ca_file.as_deref(), Some(Path::new("/etc/narthex/ca.pem")));
        let client = exporter.tls.client.as_ref().expect("a certificate");
        assert_eq!(client.cert_file, Path::new("/run/secrets/agent.pem"));
        assert_eq!(client.key_file, Path::new("/etc/narthex/agent.key"));
        let password_file = "/etc/narthex/db.password".into();
        assert_eq!(exporter.auth, Some(Auth::Basic { username: "prometheus".into(), password_file }));
    }

    #[test]
    fn contradictions_are_refused_with_the_key() {
        for (keys, reason) in [
            ("", "missing field `url`"),
            ("timout = \"1s\"\nurl = \"http://h\"", "unknown field `timout`"),
            ("url = \"h:9100\"", "expected a URL such as"),
            ("url = \"http://h/x\"\npath = \"/y\"", "the URL has a path already"),
            ("url = \"http://h\"\ntimeout = \"0s\"", "timeout must be longer than 0"),
            ("url = \"http://h\"\nparams = 1", "expected true, false or a list of names"),
            ("url = \"http://h\"\nfallback_content_type = \"a\\nb\"", "fallback_content_type"),
            ("url = \"http://h\"\nrequest_headers = [\"Host\"]", "\"Host\" is no header that can be passed on"),
            ("url = \"http://h\"\nrequest_headers = [\"Cookie\"]", "\"Cookie\" is no header that can be passed on"),
            ("url = \"http://h\"\nrequest_headers = [\"a b\"]", "\"a b\" is no header that can be passed on"),
            ("url = \"http://h\"\nkeep = \"a(\"", "a( is not a regular expression"),
            ("url = \"http://h\"\nca_file = \"ca.pem\"", "ca_file needs an https:// URL"),
            ("url = \"http://h\"\ninsecure_skip_verify = true", "insecure_skip_verify needs an https:// URL"),
            ("url = \"https://h\"\ncert_file = \"c.pem\"", "cert_file needs key_file"),
            ("url = \"https://h\"\nkey_file = \"c.key\"", "key_file needs cert_file"),
            ("url = \"http://h\"\nusername = \"u\"", "username needs password_file"),
            ("url = \"http://h\"\npassword_file = \"p\"", "password_file needs username"),
            ("url = \"http://h\"\nusername = \"u:v\"\npassword_file = \"p\"", "no colon"),
            ("url = \"http://h\"\nusername = \"u\"\npassword_file = \"p\"\nbearer_token_file = \"t\"", "exclude"),
            ("url = \"http://h\"\nlabels = { job = \"x\" }", "label job is reserved"),
        ] {
            let error = read(&format!("alias = \"a\"\n{keys}")).expect_err(keys);
            assert!(error.contains(reason), "{keys}: {error}");
        }
        assert!(read("alias = \"a b\"\nurl = \"http://h\"").expect_err("no alias").contains("a b"));
    }
}
