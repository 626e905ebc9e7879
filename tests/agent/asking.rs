//! Asks a source for metrics, as a client does for a scrape.

use std::{error::Error, sync::Arc};

use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use narthex::{
    agent::{Exporter, ExporterSettings},
    client::{IntoSource, PullRequest, Source, SourceError},
};
use tokio::time::Instant;

use crate::support::SOON;

pub(crate) type Asked = Arc<dyn Source>;

/// The exporter at this URL, with the settings that `set` changes.
pub(crate) fn source(url: &str, set: impl FnOnce(&mut ExporterSettings)) -> Asked {
    let mut settings = ExporterSettings::new(url.parse().expect("a URL"));
    set(&mut settings);
    Exporter::with(settings).into_source()
}

pub(crate) fn request(query: Option<&str>) -> PullRequest {
    let mut headers = HeaderMap::new();
    headers.insert("x-prometheus-scrape-timeout-seconds", HeaderValue::from_static("10"));
    PullRequest::new(headers, query.map(str::to_owned), Instant::now() + SOON)
}

pub(crate) async fn pull(source: &Asked, query: Option<&str>) -> Result<(HeaderMap, String), SourceError> {
    let exposition = source.pull(request(query)).await?;
    let body = exposition.body.collect().await.map_err(SourceError::Failed)?.to_bytes();
    Ok((exposition.headers, String::from_utf8_lossy(&body).into_owned()))
}

pub(crate) async fn text(source: &Asked) -> String {
    pull(source, None).await.expect("an exposition").1
}

/// The error with its causes, as the agent's log has it.
pub(crate) async fn failure(source: &Asked) -> String {
    let failure = pull(source, None).await.expect_err("no exposition");
    let mut error: &dyn Error = &failure;
    let mut text = error.to_string();
    while let Some(source) = error.source() {
        text = format!("{text}: {source}");
        error = source;
    }
    text
}
