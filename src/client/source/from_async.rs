//! Metrics from an async closure.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};

use super::{BoxError, Exposition, PullRequest, Source, SourceError};

/// A source that calls an async closure for every pull.
///
/// The closure gives a `String` in Prometheus's text format, or an [`Exposition`] with a content type of its choice and
/// perhaps a body that streams. Its future is dropped when the pull's deadline passes or the scraper goes away. It must
/// not block: what does belongs into a plain closure or a [`Text`](super::Text).
///
/// ```
/// # async fn depth_of_queue() -> std::io::Result<u64> { Ok(3) }
/// let source = narthex::client::from_async(|_request| async {
///     let depth = depth_of_queue().await?;
///     Ok::<_, std::io::Error>(format!("queue_depth {depth}\n"))
/// });
/// ```
pub fn from_async<F, Fut, T, E>(ask: F) -> Arc<dyn Source>
where
    F: Fn(PullRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Into<Exposition>,
    E: Into<BoxError>,
{
    Arc::new(Async(move |request| {
        let asked = ask(request);
        async move { asked.await.map(Into::into).map_err(|error| SourceError::Failed(error.into())) }.boxed()
    }))
}

struct Async<F>(F);

impl<F> Source for Async<F>
where
    F: Fn(PullRequest) -> BoxFuture<'static, Result<Exposition, SourceError>> + Send + Sync + 'static,
{
    fn pull(&self, request: PullRequest) -> BoxFuture<'_, Result<Exposition, SourceError>> {
        (self.0)(request)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::header::CONTENT_TYPE;

    use super::*;
    use crate::client::source::tests::{ask, text_of};

    #[tokio::test]
    async fn an_async_closure_sees_the_request_and_chooses_the_content_type() {
        let source = from_async(|request| async move {
            let text = format!("asked{{query={:?}}} 1\n# EOF\n", request.query.unwrap_or_default());
            Ok::<_, Infallible>(Exposition::new(Exposition::OPEN_METRICS, text))
        });
        let exposition = ask(&*source).await.unwrap();
        assert_eq!(exposition.headers[CONTENT_TYPE], Exposition::OPEN_METRICS);
        assert_eq!(text_of(exposition).await, "asked{query=\"a=b\"} 1\n# EOF\n");
    }

    #[tokio::test]
    async fn a_plain_string_is_prometheus_text_and_an_error_stays_an_error() {
        let exposition = ask(&*from_async(|_| async { Ok::<_, Infallible>("a 1\n".to_owned()) })).await.unwrap();
        assert_eq!(exposition.headers[CONTENT_TYPE], Exposition::TEXT);
        let failing = from_async(|_| async { Err::<String, _>("no database") });
        assert_eq!(ask(&*failing).await.unwrap_err().to_string(), "no database");
    }
}
