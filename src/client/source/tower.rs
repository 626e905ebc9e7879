//! Metrics from a tower service, such as an axum router that has a route for them already.

use std::{
    future,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http::{
    Request, Response, StatusCode, Uri,
    header::{HOST, HeaderValue},
};
use http_body_util::{BodyExt, Empty};
use hyper::body::Body;
use tower_service::Service;

use super::{BoxError, Exposition, ExpositionBody, IntoSource, PullReason, PullRequest, Source, SourceError};
use crate::http::remove_hop_by_hop;

/// A service that answers `GET /metrics` in process, with the headers and the query of the scrape.
///
/// An axum `Router` is one. Its other routes are out of the scraper's reach: nothing but this path is ever asked.
///
/// ```
/// # let metrics = || async { "up 1\n" };
/// let router: axum::Router = axum::Router::new().route("/metrics", axum::routing::get(metrics));
/// let source = narthex::client::Tower::new(router);
/// ```
#[derive(Clone, Debug)]
pub struct Tower<S> {
    service: S,
    path: &'static str,
}

impl<S> Tower<S> {
    /// A service with metrics at `/metrics`.
    pub fn new(service: S) -> Self {
        Self { service, path: "/metrics" }
    }

    /// Asks for another path, which begins with a slash.
    pub fn path(mut self, path: &'static str) -> Self {
        self.path = path;
        self
    }
}

/// Why a service gave no exposition.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TowerError {
    /// The service answered something else than an exposition.
    #[error("the service answered {status} to GET {path}")]
    Status {
        /// The path asked for.
        path: &'static str,
        /// The status of the answer.
        status: StatusCode,
    },
    /// Path and query are no URI together.
    #[error("the service cannot be asked for {path} with this query")]
    Uri {
        /// The path to ask for.
        path: &'static str,
        /// Why this is no URI.
        source: http::uri::InvalidUri,
    },
}

impl<S, F, B> IntoSource for Tower<S>
where
    S: Service<Request<ExpositionBody>, Response = Response<B>, Error: Into<BoxError>, Future = F>,
    S: Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, S::Error>> + Send,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn into_source(self) -> Arc<dyn Source> {
        Arc::new(Asked { service: Mutex::new(self.service), path: self.path })
    }
}

/// Cloned for every pull: a service need not be `Sync`, and one that is busy with a pull keeps no other waiting.
struct Asked<S> {
    service: Mutex<S>,
    path: &'static str,
}

impl<S> Asked<S> {
    fn request(&self, request: PullRequest) -> Result<Request<ExpositionBody>, TowerError> {
        let uri = match request.query {
            Some(query) => format!("{}?{query}", self.path).parse::<Uri>(),
            None => self.path.parse(),
        };
        let mut asked = Request::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        *asked.uri_mut() = uri.map_err(|source| TowerError::Uri { path: self.path, source })?;
        *asked.headers_mut() = request.headers;
        asked.headers_mut().entry(HOST).or_insert(HeaderValue::from_static("localhost"));
        Ok(asked)
    }
}

impl<S, F, B> Source for Asked<S>
where
    S: Service<Request<ExpositionBody>, Response = Response<B>, Error: Into<BoxError>, Future = F>,
    S: Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, S::Error>> + Send,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn pull(&self, request: PullRequest) -> BoxFuture<'_, Result<Exposition, SourceError>> {
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        async move {
            let request = self.request(request).map_err(failed)?;
            future::poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
            let (mut parts, body) = service.call(request).await.map_err(failed)?.into_parts();
            if parts.status != StatusCode::OK {
                let error = TowerError::Status { path: self.path, status: parts.status };
                return Err(SourceError::failed(PullReason::Status(parts.status), error));
            }
            // Of a connection that there is not: the link frames the body in its own way.
            remove_hop_by_hop(&mut parts.headers);
            Ok(Exposition { headers: parts.headers, body: body.map_err(Into::into).boxed_unsync() })
        }
        .boxed()
    }
}

fn failed(error: impl Into<BoxError>) -> SourceError {
    SourceError::Failed(error.into())
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        convert::Infallible,
        task::{Context, Poll},
    };

    use futures::future::{Ready, ready};
    use http::header::CONNECTION;
    use http_body_util::Full;

    use super::*;
    use crate::client::source::tests::{ask, text_of};

    /// Echoes what it was asked; counts, in a way that is not `Sync`, how often it reported itself ready.
    #[derive(Clone, Default)]
    struct Echo {
        ready: Cell<usize>,
    }

    impl Service<Request<ExpositionBody>> for Echo {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.ready.set(self.ready.get() + 1);
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<ExpositionBody>) -> Self::Future {
            let ready_for = self.ready.replace(0);
            let body = format!("{} {} {:?} {ready_for}", request.method(), request.uri(), request.headers().get(HOST));
            let mut response = Response::new(Full::new(body.into()));
            if request.uri().path() == "/nothing" {
                *response.status_mut() = StatusCode::NOT_FOUND;
            }
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            ready(Ok(response))
        }
    }

    #[tokio::test]
    async fn a_service_is_asked_when_ready_and_for_its_path_with_the_query_of_the_scrape() {
        let exposition = ask(&*Tower::new(Echo::default()).into_source()).await.unwrap();
        assert!(exposition.headers.is_empty(), "headers of a connection stay behind: {:?}", exposition.headers);
        assert_eq!(text_of(exposition).await, "GET /metrics?a=b Some(\"localhost\") 1");
        let elsewhere = ask(&*Tower::new(Echo::default()).path("/m").into_source()).await.unwrap();
        assert_eq!(text_of(elsewhere).await, "GET /m?a=b Some(\"localhost\") 1");
    }

    #[tokio::test]
    async fn an_answer_that_is_not_200_is_an_error_with_its_status() {
        let nothing = ask(&*Tower::new(Echo::default()).path("/nothing").into_source()).await;
        assert_eq!(nothing.unwrap_err().to_string(), "the service answered 404 Not Found to GET /nothing");
    }
}
