//! Whether the exporters of an agent answer with metrics, asked as a pull asks them.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use tokio::time::{self, Instant};

use super::report::{Check, Checks};
use crate::{
    agent::{Answer, Beginning, Exporter, TargetSpec, has_known_type},
    client::{BoxError, PullRequest, Source, SourceError},
    telemetry::Chain,
    wire::SCRAPE_TIMEOUT_HEADER,
};

/// Bytes from the begin of an answer that are looked into.
const BEGINNING: usize = 16 * 1024;
/// Characters of an unknown text that are shown.
const SHOWN: usize = 40;

/// One pull of each target, all at the same time.
pub(super) fn checks(targets: &[TargetSpec], wait: Duration) -> Vec<Checks<'_>> {
    targets.iter().map(|target| -> Checks<'_> { Box::pin(async move { vec![check(target, wait).await] }) }).collect()
}

async fn check(target: &TargetSpec, wait: Duration) -> Check {
    let name = format!("exporter {}", target.target.alias);
    let url = target.exporter.url.to_string();
    let advice = || format!("is the exporter running at {url}? Ask it yourself: curl {url}");
    match time::timeout(wait, pull(target, wait)).await {
        Ok(Ok(pulled)) => pulled.check(name, &url),
        Ok(Err(error)) => Check::failed(name, Chain(&*error).to_string(), advice()),
        Err(_) => Check::failed(name, format!("{url} has not answered whole within {wait:?}"), advice()),
    }
}

/// An answer with status 200.
struct Pulled {
    headers: HeaderMap,
    beginning: Vec<u8>,
    len: u64,
}

async fn pull(target: &TargetSpec, wait: Duration) -> Result<Pulled, BoxError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("text/plain;version=0.0.4;q=0.5,*/*;q=0.1"));
    headers.insert(SCRAPE_TIMEOUT_HEADER, wait.as_secs_f64().to_string().parse()?);
    let request = PullRequest::new(headers, None, Instant::now() + wait);
    let exposition = match Exporter::with(target.exporter.clone()).pull(request).await {
        Ok(exposition) => exposition,
        Err(SourceError::Failed(error)) => return Err(error),
        Err(error) => return Err(error.into()),
    };
    let (headers, mut body) = (exposition.headers, exposition.body);
    let (mut beginning, mut len) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            len += data.len() as u64;
            beginning.extend_from_slice(&data[..data.len().min(BEGINNING - beginning.len())]);
        }
    }
    Ok(Pulled { headers, beginning, len })
}

impl Pulled {
    fn check(&self, name: String, url: &str) -> Check {
        let kind = self.headers.get(header::CONTENT_TYPE).map(|kind| String::from_utf8_lossy(kind.as_bytes()));
        let kind = kind.as_deref().filter(|kind| !kind.is_empty());
        let failed = |what: &str, advice: &str| Check::failed(name.clone(), format!("{url} answers {what}"), advice);
        let is_all = self.len == self.beginning.len() as u64;
        let beginning = Beginning { bytes: &self.beginning, is_all };
        match Answer::of(&self.headers, beginning) {
            Answer::Metrics if has_known_type(&self.headers) => {
                Check::ok(name, format!("{url} answers {} bytes of metrics", self.len))
            }
            Answer::Metrics => {
                let kind = kind.map_or_else(|| "no Content-Type".to_owned(), |kind| format!("the Content-Type {kind}"));
                let detail = format!("{url} answers {} bytes of metrics with {kind}", self.len);
                Check::warning(
                    name,
                    detail,
                    match kind.starts_with("no ") {
                        true => "Prometheus 3 refuses them: give the target a fallback_content_type",
                        false => {
                            "Prometheus 3 refuses them unless its job has a fallback_scrape_protocol: have the exporter answer text/plain"
                        }
                    },
                )
            }
            Answer::Html => failed(
                "an HTML page, no metrics",
                "mend the path of the URL, which most exporters have at /metrics; if it is a page to log in, give the target credentials",
            ),
            Answer::Json => failed(
                "JSON, no metrics",
                "mend the URL: it needs Prometheus's format, which some have at another path or with a query such as ?format=prometheus",
            ),
            Answer::Empty => failed(
                if self.len == 0 { "an empty body, no metrics" } else { "no sample" },
                "mend the path of the URL, or see why the exporter has nothing to say",
            ),
            Answer::Text => {
                let text = String::from_utf8_lossy(&self.beginning);
                let line: String = text.trim_start().lines().next().unwrap_or_default().chars().take(SHOWN).collect();
                failed(
                    &format!("text that is no metrics, which begins with {line:?}"),
                    "mend the path of the URL, which most exporters have at /metrics",
                )
            }
        }
    }
}
