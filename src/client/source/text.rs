//! Metrics that blocking code writes.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http::HeaderValue;
use tokio::{sync::Semaphore, task};

use super::{BoxError, Exposition, IntoSource, PullRequest, Source, SourceError};

/// Most threads that one source may hold.
const MAX_THREADS: usize = 8;

/// A source whose text comes from a closure that may block, in a content type of its choice.
///
/// ```
/// use narthex::client::{Exposition, Text};
///
/// let source = Text::new(Exposition::OPEN_METRICS, || Ok("orders_total 3\n# EOF\n".to_owned()));
/// ```
#[derive(Clone)]
pub struct Text {
    content_type: HeaderValue,
    write: Arc<dyn Fn() -> Result<Bytes, BoxError> + Send + Sync>,
    /// Bounds the threads that a closure which hangs can hold.
    permits: Arc<Semaphore>,
}

impl Text {
    /// From a closure that returns the text.
    ///
    /// # Panics
    /// If the content type is no header value.
    pub fn new(
        content_type: &'static str,
        write: impl Fn() -> Result<String, BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self::from_bytes(content_type, move || write().map(Bytes::from))
    }

    /// From a callback that writes into a buffer, as OpenTelemetry's text exporters and `prometheus::Encoder` do.
    ///
    /// # Panics
    /// If the content type is no header value.
    pub fn writing(
        content_type: &'static str,
        write: impl Fn(&mut Vec<u8>) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self::from_bytes(content_type, move || {
            let mut text = Vec::new();
            write(&mut text)?;
            Ok(text.into())
        })
    }

    fn from_bytes(
        content_type: &'static str,
        write: impl Fn() -> Result<Bytes, BoxError> + Send + Sync + 'static,
    ) -> Self {
        let content_type = HeaderValue::from_static(content_type);
        Self { content_type, write: Arc::new(write), permits: Arc::new(Semaphore::new(MAX_THREADS)) }
    }
}

impl Source for Text {
    fn pull(&self, _: PullRequest) -> BoxFuture<'_, Result<Exposition, SourceError>> {
        async {
            let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| SourceError::Deadline)?;
            let write = Arc::clone(&self.write);
            let written = task::spawn_blocking(move || {
                let _permit = permit;
                write()
            });
            let text = written.await.map_err(|_| SourceError::Panicked)?.map_err(SourceError::Failed)?;
            Ok(Exposition::whole(self.content_type.clone(), text))
        }
        .boxed()
    }
}

impl IntoSource for Text {
    fn into_source(self) -> Arc<dyn Source> {
        Arc::new(self)
    }
}

/// Prometheus's text format, version 0.0.4, from a closure. It may block: it runs on a thread of its own.
impl<F, E> IntoSource for F
where
    F: Fn() -> Result<String, E> + Send + Sync + 'static,
    E: Into<BoxError>,
{
    fn into_source(self) -> Arc<dyn Source> {
        Text::new(Exposition::TEXT, move || self().map_err(Into::into)).into_source()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http::header::CONTENT_TYPE;

    use super::*;
    use crate::client::source::tests::{ask, text_of};

    #[tokio::test]
    async fn text_comes_in_the_content_type_of_its_choice() {
        let written = Text::writing(Exposition::OPEN_METRICS, |out| Ok(write!(out, "a {}\n# EOF\n", 1)?));
        for source in [written, Text::new(Exposition::OPEN_METRICS, || Ok("a 1\n# EOF\n".to_owned()))] {
            let exposition = ask(&*source.into_source()).await.unwrap();
            assert_eq!(exposition.headers[CONTENT_TYPE], Exposition::OPEN_METRICS);
            assert_eq!(text_of(exposition).await, "a 1\n# EOF\n");
        }
    }

    #[tokio::test]
    async fn a_closure_that_fails_or_panics_gives_an_error_that_names_it() {
        let failing = (|| Err::<String, _>("out of paper")).into_source();
        assert_eq!(ask(&*failing).await.unwrap_err().to_string(), "out of paper");
        let panicking = Text::new(Exposition::TEXT, || panic!("as the test wants")).into_source();
        assert!(matches!(ask(&*panicking).await, Err(SourceError::Panicked)));
    }
}
