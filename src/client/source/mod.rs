//! Sources of a target's metrics.

#[cfg(feature = "metrics")]
mod facade;
mod from_async;
mod registry;
mod text;
#[cfg(feature = "tower")]
mod tower;

use std::{error::Error, fmt, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};

pub use crate::http::{BoxError, PullRequest};
pub use crate::wire::PullReason;
pub use from_async::from_async;
pub use text::Text;
#[cfg(feature = "tower")]
pub use tower::{Tower, TowerError};

/// The bytes of an exposition, on their way.
pub type ExpositionBody = UnsyncBoxBody<Bytes, BoxError>;

/// What a source answers: headers (`Content-Type` at least) and a body, passed on byte for byte.
#[derive(Debug)]
#[non_exhaustive]
pub struct Exposition {
    /// End-to-end headers.
    pub headers: HeaderMap,
    /// The metrics.
    pub body: ExpositionBody,
}

impl Exposition {
    /// The content type of Prometheus's text format, which every reader knows.
    pub const TEXT: &'static str = "text/plain; version=0.0.4; charset=utf-8";
    /// The content type of OpenMetrics 1.0.
    pub const OPEN_METRICS: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// An exposition that is in memory.
    ///
    /// # Panics
    /// If the content type is no header value.
    pub fn new(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self::whole(HeaderValue::from_static(content_type), body.into())
    }

    /// An exposition that streams, or one with more headers than its content type.
    pub fn with_headers(headers: HeaderMap, body: ExpositionBody) -> Self {
        Self { headers, body }
    }

    fn whole(content_type: HeaderValue, body: Bytes) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type)]);
        Self { headers, body: Full::new(body).map_err(|never| match never {}).boxed_unsync() }
    }
}

/// In [Prometheus's text format](Exposition::TEXT).
impl From<String> for Exposition {
    fn from(text: String) -> Self {
        Self::new(Self::TEXT, text)
    }
}

/// Why a source gave no exposition. The scraper receives only the pull's id, and the [`reason`](SourceError::reason).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The source failed.
    #[error(transparent)]
    Failed(BoxError),
    /// The source did not answer before the pull's deadline.
    #[error("no answer before the deadline")]
    Deadline,
    /// The source panicked.
    #[error("it panicked")]
    Panicked,
}

impl SourceError {
    /// A failure of this class, which the scraper is told; the error stays here.
    pub fn failed(reason: PullReason, error: impl Into<BoxError>) -> Self {
        Self::Failed(Box::new(Classed { reason, error: error.into() }))
    }

    /// What the scraper is told.
    pub fn reason(&self) -> PullReason {
        match self {
            Self::Failed(error) => error.downcast_ref().map_or(PullReason::Other, |Classed { reason, .. }| *reason),
            Self::Deadline => PullReason::Timeout,
            Self::Panicked => PullReason::Other,
        }
    }
}

/// An error, to those who read it, whose class is known.
#[derive(Debug)]
struct Classed {
    reason: PullReason,
    error: BoxError,
}

impl fmt::Display for Classed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for Classed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// Gives the metrics of one target.
///
/// ```
/// use futures::future::{BoxFuture, FutureExt};
/// use narthex::client::{Exposition, PullRequest, Source, SourceError};
///
/// struct Depth;
///
/// impl Source for Depth {
///     fn pull(&self, _: PullRequest) -> BoxFuture<'_, Result<Exposition, SourceError>> {
///         async { Ok("queue_depth 3\n".to_owned().into()) }.boxed()
///     }
/// }
/// ```
pub trait Source: Send + Sync + 'static {
    /// Answers one pull. The future is dropped when the deadline passes or the scraper goes away.
    fn pull(&self, request: PullRequest) -> BoxFuture<'_, Result<Exposition, SourceError>>;
}

/// What [`metrics`](super::ClientBuilder::metrics) takes.
///
/// | metrics | source | feature |
/// |---|---|---|
/// | text from a closure | `Fn() -> Result<String, E>` | |
/// | text of another content type | [`Text`] | |
/// | an async closure | [`from_async`] | |
/// | `prometheus-client` | `Arc<prometheus_client::registry::Registry>` | |
/// | `prometheus`, and OpenTelemetry by `opentelemetry-prometheus` | `prometheus::Registry` | `prometheus` |
/// | the `metrics` facade | `metrics_exporter_prometheus::PrometheusHandle` | `metrics` |
/// | an axum router, any tower service | `Tower` | `tower` |
/// | an exporter at a URL | `agent::Exporter` | `agent` |
/// | anything else | a [`Source`], in an [`Arc`] | |
///
/// ```
/// use std::sync::Arc;
///
/// use narthex::client::{IntoSource, Source};
///
/// let source: Arc<dyn Source> = (|| std::fs::read_to_string("/proc/loadavg")).into_source();
/// ```
pub trait IntoSource {
    /// Makes it a source.
    fn into_source(self) -> Arc<dyn Source>;
}

impl Source for Arc<dyn Source> {
    fn pull(&self, request: PullRequest) -> BoxFuture<'_, Result<Exposition, SourceError>> {
        (**self).pull(request)
    }
}

impl IntoSource for Arc<dyn Source> {
    fn into_source(self) -> Self {
        self
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    /// A pull of `?a=b` with a minute to go.
    pub(in crate::client) async fn ask(source: &dyn Source) -> Result<Exposition, SourceError> {
        let deadline = Instant::now() + Duration::from_secs(60);
        source.pull(PullRequest::new(HeaderMap::new(), Some("a=b".to_owned()), deadline)).await
    }

    pub(in crate::client) async fn text_of(exposition: Exposition) -> String {
        String::from_utf8(exposition.body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }
}
