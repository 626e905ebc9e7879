//! Whether the exporters of an agent answer, asked as a pull asks them.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use tokio::time::{self, Instant};

use super::report::{Check, Checks};
use crate::{
    agent::{Exporter, TargetSpec},
    client::{BoxError, PullRequest, Source, SourceError},
    telemetry::Chain,
    wire::SCRAPE_TIMEOUT_HEADER,
};

/// One pull of each target, all at the same time.
pub(super) fn checks(targets: &[TargetSpec], wait: Duration) -> Vec<Checks<'_>> {
    targets.iter().map(|target| -> Checks<'_> { Box::pin(async move { vec![check(target, wait).await] }) }).collect()
}

async fn check(target: &TargetSpec, wait: Duration) -> Check {
    let name = format!("exporter {}", target.target.alias);
    let url = target.exporter.url.to_string();
    let advice = || format!("is the exporter running at {url}? Ask it yourself: curl {url}");
    match time::timeout(wait, pull(target, wait)).await {
        Ok(Ok(len)) => Check::ok(name, format!("{url} answers {len} bytes")),
        Ok(Err(error)) => Check::failed(name, Chain(&*error).to_string(), advice()),
        Err(_) => Check::failed(name, format!("{url} has not answered whole within {wait:?}"), advice()),
    }
}

async fn pull(target: &TargetSpec, wait: Duration) -> Result<u64, BoxError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("text/plain;version=0.0.4;q=0.5,*/*;q=0.1"));
    headers.insert(SCRAPE_TIMEOUT_HEADER, wait.as_secs_f64().to_string().parse()?);
    let request = PullRequest::new(headers, None, Instant::now() + wait);
    let mut body = match Exporter::with(target.exporter.clone()).pull(request).await {
        Ok(exposition) => exposition.body,
        Err(SourceError::Failed(error)) => return Err(error),
        Err(error) => return Err(error.into()),
    };
    let mut len = 0;
    while let Some(frame) = body.frame().await {
        len += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(len)
}
