//! `GET /sd`: the list for Prometheus's `http_sd_configs`.
//!
//! Prometheus keeps the list that it has unless it gets status 200, `Content-Type: application/json` and a whole, valid
//! list; it drops every target on `[]`. So whenever the table is not known for certain the answer is 503.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{Query, State},
    response::Response,
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task, time,
};

use super::{router::Shared, sd_body::SdChunks, sd_list::SdUnknown};
use crate::{
    http::{LocalAddr, text},
    registry::Lease,
    scraper::outcome::SdOutcome,
    telemetry::Limit,
};

/// How long a request waits for its turn.
const TURN_LIMIT: Duration = Duration::from_secs(5);
/// Seconds after which Prometheus may ask again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(local): Extension<LocalAddr>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let (outcome, response) = answer(&shared, local, &uri, &headers).await;
    shared.metrics.sd_request(outcome);
    response
}

async fn answer(shared: &Shared, local: LocalAddr, uri: &Uri, headers: &HeaderMap) -> (SdOutcome, Response) {
    let filters = match read_filters(uri) {
        Ok(filters) => filters,
        Err(why) => return (SdOutcome::BadRequest, text::line(StatusCode::BAD_REQUEST, why)),
    };
    let host = match &shared.advertise {
        Some(advertise) => advertise.to_string(),
        None => local.asked_as(uri, headers),
    };
    let Some(turn) = turn(&shared.sd_readers).await else {
        shared.network.refusals().count(Limit::SdReaders, format_args!("a request for the list for {host}"));
        let mut response = text::line(StatusCode::SERVICE_UNAVAILABLE, "too many lists are being sent: try again");
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        return (SdOutcome::Overloaded, response);
    };
    match chunks(shared, host, filters).await {
        Ok(chunks) => {
            let mut response = Response::new(Body::new(chunks.into_body(turn)));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("Host"));
            (SdOutcome::Ok, response)
        }
        Err(why) => (SdOutcome::Unavailable, text::line(StatusCode::SERVICE_UNAVAILABLE, why.to_string())),
    }
}

async fn turn(readers: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    time::timeout(TURN_LIMIT, Arc::clone(readers).acquire_owned()).await.ok()?.ok()
}

async fn chunks(shared: &Shared, host: String, filters: Vec<Filter>) -> Result<SdChunks, SdUnknown> {
    let list = shared.sd.current().await?;
    if filters.is_empty() {
        return Ok(SdChunks::whole(list, &host));
    }
    let wanted = move |lease: &Lease| filters.iter().all(|filter| filter.matches(lease));
    task::spawn_blocking(move || SdChunks::matching(list, &host, wanted)).await.map_err(|_| SdUnknown::Stopped)
}

/// One parameter of the query. A lease must match all.
#[derive(Debug)]
enum Filter {
    Service(String),
    Alias(String),
    Label { name: String, value: String },
}

/// Reads the query of `uri`. An unknown parameter is refused, as the list would hold more than was meant.
fn read_filters(uri: &Uri) -> Result<Vec<Filter>, String> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| error.to_string())?;
    pairs.into_iter().map(|(name, value)| Filter::read(&name, value)).collect()
}

impl Filter {
    fn matches(&self, lease: &Lease) -> bool {
        match self {
            Self::Service(service) => lease.service == *service,
            Self::Alias(alias) => lease.alias.as_str() == alias,
            // As in Prometheus, a label with an empty value is a label that is not there.
            Self::Label { name, value } => lease.labels.value(name).unwrap_or_default() == value,
        }
    }

    fn read(name: &str, value: String) -> Result<Self, String> {
        match name {
            "service" => Ok(Self::Service(value)),
            "alias" => Ok(Self::Alias(value)),
            "label" => match value.split_once(':') {
                Some((name, value)) => Ok(Self::Label { name: name.to_owned(), value: value.to_owned() }),
                None => Err(format!("label={value:?} is not of the form name:value")),
            },
            _ => Err(format!("unknown parameter {name:?}: there are service, alias and label")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_that_are_no_filter_are_refused_by_name() {
        let refused = |query: &str| read_filters(&format!("/sd?{query}").parse().expect("a URI")).expect_err("refused");
        assert!(refused("job=x").contains("\"job\""));
        assert!(refused("service=a&Label=a:b").contains("\"Label\""));
        assert!(refused("label=a").contains("\"a\""));
    }
}
