//! One exporter, asked over HTTP/1.1 for every pull.
//!
//! The exporter's answer is streamed through byte for byte: no re-encoding, no buffering of whole bodies. Its first bytes are
//! looked at, and passed on as well.
//! Dropping the pull, or its body, closes the exporter's connection if its answer is not complete.
//!
//! The agent alone decides on the URL. Of a pull the exporter receives the headers that Prometheus needs, and the query
//! parameters that [`Params`](super::Params) lets through.

use std::{io::ErrorKind, sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Empty, Limited};
use tokio::time::{self, Instant};

use super::{
    answer::Answer,
    auth::Auth,
    begun::Begun,
    connection::{self, ExporterPool},
    tls::{Tls, TlsError, TlsSettings},
    url::{ExporterUrl, Params, UrlError},
};
use crate::{
    client::{BoxError, Exposition, IntoSource, PullReason, PullRequest, Source, SourceError},
    http::{PooledBody, PooledBodyError, SendError, passed_headers, remove_hop_by_hop},
    secret_file::SecretFileError,
    telemetry::remote_message,
    wire::{REASON_HEADER, scrape_timeout, set_scrape_timeout},
};

/// Redirects followed: a path with or without a slash at the end takes one.
const MAX_REDIRECTS: usize = 3;
/// Most bytes of a redirect's body that are read to save a connection.
const SHORT_BODY: usize = 16 * 1024;
/// Most characters of a redirect's `Location` in an error.
const MAX_LOCATION: usize = 200;

/// An answer's body, which gives its connection back to the pool at the end.
type ExporterBody = PooledBody<(), ()>;

/// Why an exporter gave no exposition.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExporterError {
    /// The exporter does not accept connections.
    #[error("cannot connect to exporter {url}")]
    Connect {
        /// Which exporter.
        url: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The name of the exporter's host has no address.
    #[error("cannot find the host of exporter {url}")]
    Resolve {
        /// Which exporter.
        url: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The exporter or the agent could not prove its identity.
    #[error("no TLS with exporter {url}")]
    Tls {
        /// Which exporter.
        url: String,
        /// Why.
        source: TlsError,
    },
    /// The password or token could not be read.
    #[error("no credentials for exporter {url}")]
    Credentials {
        /// Which exporter.
        url: String,
        /// Why.
        source: SecretFileError,
    },
    /// The exporter broke off, or does not speak HTTP.
    #[error("exporter {url} broke off")]
    Http {
        /// Which exporter.
        url: String,
        /// How.
        source: BoxError,
    },
    /// The exporter answered something else than an exposition.
    #[error("exporter {url} answered {status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Status {
        /// Which exporter.
        url: String,
        /// The status of the answer.
        status: StatusCode,
        /// The first line of its plain text, escaped and cut to 200 characters.
        message: String,
    },
    /// A redirect leads to another host or port, or nowhere.
    #[error("exporter {url} answered {status} to {location:?}: only its own host and port are followed")]
    Redirect {
        /// Which exporter.
        url: String,
        /// The status of the answer.
        status: StatusCode,
        /// The header, without a query, cut.
        location: String,
    },
    /// Too many redirects follow each other.
    #[error("exporter {url} redirects more than {MAX_REDIRECTS} times")]
    Redirects {
        /// Which exporter.
        url: String,
    },
}

impl ExporterError {
    /// What the scraper is told of it.
    fn reason(&self) -> PullReason {
        match self {
            Self::Connect { source, .. } => match source.kind() {
                // The file of a Unix socket may be missing.
                ErrorKind::ConnectionRefused | ErrorKind::NotFound => PullReason::Refused,
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => PullReason::Unreachable,
                ErrorKind::TimedOut => PullReason::Timeout,
                _ => PullReason::Other,
            },
            Self::Resolve { .. } => PullReason::Dns,
            Self::Tls { .. } => PullReason::Tls,
            Self::Status { status, .. } | Self::Redirect { status, .. } => PullReason::Status(*status),
            Self::Credentials { .. } | Self::Http { .. } | Self::Redirects { .. } => PullReason::Other,
        }
    }
}

/// Settings of one exporter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExporterSettings {
    /// The URL of the metrics.
    pub url: ExporterUrl,
    /// Most time for an answer, whatever the scrape allows. Default: what the scrape allows.
    pub timeout: Option<Duration>,
    /// Query parameters of a scrape that are passed on. Default: none.
    pub params: Params,
    /// Headers of a scrape that are passed on beside Prometheus's own, if the scraper passes them on as well. Default: none.
    /// `Authorization`, `Cookie`, `Host` and those of a connection or a body are never passed on.
    pub request_headers: Vec<HeaderName>,
    /// The `Content-Type` of answers without one, which Prometheus 3 refuses. Default: answers are passed on as
    /// they are.
    pub fallback_content_type: Option<HeaderValue>,
    /// For `https://`.
    pub tls: TlsSettings,
    /// Credentials of the agent. Default: none.
    pub auth: Option<Auth>,
}

impl ExporterSettings {
    /// Everything by default.
    pub fn new(url: ExporterUrl) -> Self {
        let (params, tls) = (Params::default(), TlsSettings::default());
        Self { url, timeout: None, params, request_headers: Vec::new(), fallback_content_type: None, tls, auth: None }
    }
}

/// An exporter as a source of metrics.
///
/// ```
/// use std::time::Duration;
///
/// use narthex::agent::{Exporter, ExporterSettings};
///
/// let node = Exporter::new("http://127.0.0.1:9100/metrics".parse()?)?;
///
/// let mut settings = ExporterSettings::new("https://127.0.0.1:9187/metrics".parse()?);
/// settings.timeout = Some(Duration::from_secs(5));
/// settings.tls.ca_file = Some("/etc/ssl/postgres.pem".into());
/// let postgres = Exporter::with(settings);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Exporter {
    settings: ExporterSettings,
    host: HeaderValue,
    tls: Tls,
    pool: ExporterPool,
}

impl Exporter {
    /// An exporter that is asked at `url` for every pull.
    ///
    /// # Errors
    /// [`UrlError`] for anything but an `http://` or `https://` URL with a host.
    pub fn new(url: Uri) -> Result<Self, UrlError> {
        Ok(Self::with(ExporterSettings::new(url.try_into()?)))
    }

    /// An exporter that is asked by these settings. The files that they name are read when they are needed.
    pub fn with(settings: ExporterSettings) -> Self {
        let host = HeaderValue::from_str(settings.url.host_header()).unwrap_or(HeaderValue::from_static("localhost"));
        let tls = Tls::new(settings.tls.clone());
        Self { settings, host, tls, pool: connection::pool() }
    }

    /// Errors of the files that the settings name. Blocks.
    #[cfg(feature = "cli")]
    pub(super) fn unusable_files(&self) -> Vec<ExporterError> {
        let url = || self.url();
        let auth = self.settings.auth.as_ref().and_then(Auth::unusable);
        let auth = auth.map(|source| ExporterError::Credentials { url: url(), source });
        auth.into_iter().chain(self.tls.unusable().map(|source| ExporterError::Tls { url: url(), source })).collect()
    }

    fn url(&self) -> String {
        self.settings.url.to_string()
    }

    /// Follows redirects to the end.
    async fn answer(&self, request: PullRequest) -> Result<Response<ExporterBody>, ExporterError> {
        let headers = self.headers(request.headers, request.deadline).await?;
        let mut path = self.settings.params.applied(self.settings.url.path(), request.query.as_deref());
        for _ in 0..=MAX_REDIRECTS {
            let response = self.ask(&path, &headers).await?;
            match self.redirect(&path, &response)? {
                Some(elsewhere) => path = elsewhere,
                None => return Ok(response),
            }
            // A short body is read to its end, which gives the connection back to the pool.
            let _ = Limited::new(response.into_body(), SHORT_BODY).collect().await;
        }
        Err(ExporterError::Redirects { url: self.url() })
    }

    fn redirect(
        &self,
        asked: &PathAndQuery,
        response: &Response<ExporterBody>,
    ) -> Result<Option<PathAndQuery>, ExporterError> {
        let status = response.status();
        let location = match (status.as_u16(), response.headers().get(header::LOCATION)) {
            (301 | 302 | 303 | 307 | 308, Some(location)) => String::from_utf8_lossy(location.as_bytes()),
            _ => return Ok(None),
        };
        match self.settings.url.redirected(asked, &location) {
            Some(elsewhere) => Ok(Some(elsewhere)),
            None => {
                // What follows may be a secret.
                let location = location.split_inclusive('?').next().unwrap_or_default();
                let location = location.chars().take(MAX_LOCATION).collect();
                Err(ExporterError::Redirect { url: self.url(), status, location })
            }
        }
    }

    async fn ask(&self, path: &PathAndQuery, headers: &HeaderMap) -> Result<Response<ExporterBody>, ExporterError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = path.clone().into();
        *request.headers_mut() = headers.clone();
        let open = connection::open(&self.settings.url, &self.tls, &self.pool);
        self.pool.send((), request, open).await.map_err(|error| match error {
            SendError::Open(error) => error,
            SendError::Http(source) => ExporterError::Http { url: self.url(), source: source.into() },
        })
    }

    /// The headers of a pull that the exporter receives, and the agent's own.
    async fn headers(&self, pull: HeaderMap, deadline: Instant) -> Result<HeaderMap, ExporterError> {
        let mut headers = passed_headers(pull, &self.settings.request_headers);
        // Exporters that end by themselves a little before their time is over (blackbox, sql, snmp) must do so before the
        // pull does: Prometheus's own limit is too late for that.
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = self.settings.timeout.map_or(left, |cap| cap.min(left));
        if scrape_timeout(&headers).ok().flatten().is_none_or(|stated| stated > limit) {
            set_scrape_timeout(&mut headers, limit);
        }
        if let Some(auth) = &self.settings.auth {
            let value = auth.header().await;
            let value = value.map_err(|source| ExporterError::Credentials { url: self.url(), source })?;
            headers.insert(header::AUTHORIZATION, value);
        }
        headers.insert(header::HOST, self.host.clone());
        Ok(headers)
    }

    async fn exposition(&self, request: PullRequest) -> Result<Exposition, ExporterError> {
        let (began, deadline) = (Instant::now(), request.deadline);
        let (parts, body) = self.answer(request).await?.into_parts();
        if parts.status != StatusCode::OK {
            // Reading the message must leave time to report the status.
            let until = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
            let message = if is_plain_text(&parts.headers) { remote_message(body, until).await } else { String::new() };
            return Err(ExporterError::Status { url: self.url(), status: parts.status, message });
        }
        let mut headers = parts.headers;
        remove_hop_by_hop(&mut headers);
        headers.remove(REASON_HEADER);
        if let Some(fallback) = &self.settings.fallback_content_type
            && headers.get(header::CONTENT_TYPE).is_none_or(HeaderValue::is_empty)
        {
            headers.insert(header::CONTENT_TYPE, fallback.clone());
        }
        let cap = self.settings.timeout.and_then(|cap| began.checked_add(cap));
        let body = match cap {
            Some(cap) => body.until(time::sleep_until(cap)),
            None => body,
        };
        let body = body.map_err(|error| match error {
            PooledBodyError::BrokeOff(error) => BoxError::from(error),
            PooledBodyError::Ended => SourceError::Deadline.into(),
        });
        let body = Begun::new(body.boxed_unsync()).await;
        let body = body.map_err(|source| ExporterError::Http { url: self.url(), source })?;
        // The scraper is told if it is no metrics. It is passed on as it is: Prometheus decides.
        if !matches!(Answer::of(&headers, body.beginning()), Answer::Metrics | Answer::Empty) {
            headers.insert(REASON_HEADER, PullReason::NotMetrics.header());
        }
        Ok(Exposition { headers, body: body.boxed_unsync() })
    }
}

impl Source for Exporter {
    fn pull(&self, request: PullRequest) -> BoxFuture<'_, Result<Exposition, SourceError>> {
        async move {
            let cap = self.settings.timeout.unwrap_or(Duration::MAX);
            match time::timeout(cap, self.exposition(request)).await {
                Ok(asked) => asked.map_err(|error| SourceError::failed(error.reason(), error)),
                Err(_) => Err(SourceError::Deadline),
            }
        }
        .boxed()
    }
}

impl IntoSource for Exporter {
    fn into_source(self) -> Arc<dyn Source> {
        Arc::new(self)
    }
}

fn is_plain_text(headers: &HeaderMap) -> bool {
    let is_text = |kind: &HeaderValue| kind.as_bytes().starts_with(b"text/plain");
    headers.get(header::CONTENT_TYPE).is_none_or(is_text) && !headers.contains_key(header::CONTENT_ENCODING)
}
