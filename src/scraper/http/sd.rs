//! `GET /sd`: the list for Prometheus's `http_sd_configs`.
//!
//! Prometheus keeps the list that it has unless it gets status 200, `Content-Type: application/json` and a whole, valid
//! list; it drops every target on `[]`. So whenever the table is not known for certain the answer is 503.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use tokio::task;

use super::{
    list_body,
    readers::{NoList, Reading},
    router::Shared,
    sd_chunks::SdChunks,
    sd_list::{Fragment, Listed},
    table_list::{Rendered, TableUnknown},
    viewer::Viewer,
};
use crate::{
    http::{LocalAddr, text},
    registry::Listing,
    scraper::outcome::SdOutcome,
    wire::{Alias, is_label_name},
};

/// The answer on a Unix socket to who names no host.
const NO_ADDRESS: &str = "the address to scrape is unknown: ask with a Host, or have the scraper advertise one";
/// Most filters of a request: each costs a look at every alias.
const MAX_FILTERS: usize = 16;

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(local): Extension<LocalAddr>,
    Extension(viewer): Extension<Viewer>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let (outcome, response) = answer(&shared, viewer, local, &uri, &headers).await;
    shared.metrics.sd_request(outcome);
    response
}

async fn answer(
    shared: &Shared,
    viewer: Viewer,
    local: LocalAddr,
    uri: &Uri,
    headers: &HeaderMap,
) -> (SdOutcome, Response) {
    let filters = match read_filters(uri) {
        Ok(filters) => filters,
        Err(why) => return (SdOutcome::BadRequest, text::line(StatusCode::BAD_REQUEST, why)),
    };
    let host = shared.advertise.as_ref().map(ToString::to_string).or_else(|| local.asked_as(uri, headers));
    let Some(host) = host else {
        return (SdOutcome::BadRequest, text::line(StatusCode::BAD_REQUEST, NO_ADDRESS));
    };
    let (list, reading) = match shared.readers.admit(|| shared.sd.current()).await {
        Ok(admitted) => admitted,
        Err(no_list) => return refused(no_list),
    };
    match chunks(list, host, viewer, filters, reading).await {
        Ok((chunks, reading)) => {
            let len = chunks.left();
            let mut response = list_body::answer(chunks, len, "application/json", reading);
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("Host"));
            (SdOutcome::Ok, response)
        }
        Err(unknown) => refused(unknown.into()),
    }
}

fn refused(no_list: NoList) -> (SdOutcome, Response) {
    let outcome = match no_list {
        NoList::Unknown(_) => SdOutcome::Unavailable,
        NoList::NoPlace => SdOutcome::Overloaded,
    };
    (outcome, no_list.into_response())
}

/// The reader keeps its place while its list is made, also if it does not wait for it.
async fn chunks(
    list: Arc<Rendered<Vec<Fragment>>>,
    host: String,
    viewer: Viewer,
    filters: Vec<Filter>,
    reading: Reading,
) -> Result<(SdChunks, Reading), TableUnknown> {
    if filters.is_empty() && !viewer.is_scoped() {
        return Ok((SdChunks::whole(list, &host), reading));
    }
    let matching = move || {
        let mut sight = viewer.sight();
        let wanted = |listed: &Listed| filters.iter().all(|filter| filter.passes(listed)) && sight.listed(listed);
        (SdChunks::matching(list, &host, wanted), reading)
    };
    task::spawn_blocking(matching).await.map_err(|_| TableUnknown::Stopped)
}

/// The values that a field may have: one of them, or none of them if they are negated. What is listed passes all filters.
#[derive(Debug)]
struct Filter {
    field: Field,
    negated: bool,
    values: Vec<String>,
}

/// What a filter looks at.
#[derive(Debug, PartialEq, Eq)]
enum Field {
    Service,
    Alias,
    /// Of a beacon.
    Kind,
    Label(String),
}

/// Reads the query of `uri`. An unknown parameter is refused, as the list would hold more than was meant; and so are
/// filters that nothing can pass, as Prometheus would drop every target without an error.
fn read_filters(uri: &Uri) -> Result<Vec<Filter>, String> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| error.to_string())?;
    if pairs.len() > MAX_FILTERS {
        return Err(format!("{} filters; at most {MAX_FILTERS} are allowed", pairs.len()));
    }
    let mut filters: Vec<Filter> = Vec::new();
    for (name, value) in pairs {
        let (field, value) = Field::read(&name, value)?;
        let (negated, value) = match value.strip_prefix('!') {
            Some(value) => (true, value.to_owned()),
            None => (false, value),
        };
        match filters.iter_mut().find(|filter| filter.field == field && filter.negated == negated) {
            Some(filter) => filter.values.push(value),
            None => filters.push(Filter { field, negated, values: vec![value] }),
        }
    }
    let asks_for = |field| filters.iter().any(|filter| filter.field == field && !filter.negated);
    if asks_for(Field::Alias) && asks_for(Field::Kind) {
        return Err("alias and kind together list nothing: only beacons have a kind, and they have no alias".into());
    }
    let opposed = |filter: &Filter| filters.iter().any(|other| filter.lists_nothing_beside(other));
    if let Some(filter) = filters.iter().find(|filter| opposed(filter)) {
        return Err(format!("{:?} is both asked for and negated, which lists nothing", filter.values));
    }
    Ok(filters)
}

impl Filter {
    fn passes(&self, listed: &Listed) -> bool {
        self.values.iter().any(|value| self.field.is(value, listed)) != self.negated
    }

    /// True if the other one negates every value.
    fn lists_nothing_beside(&self, other: &Self) -> bool {
        let negates_all = || self.values.iter().all(|value| other.values.contains(value));
        !self.negated && other.negated && self.field == other.field && negates_all()
    }
}

impl Field {
    fn is(&self, value: &str, listed: &Listed) -> bool {
        match (self, listed) {
            (Self::Service, Listed::Alias { lease, .. }) => lease.service == value,
            (Self::Alias, Listed::Alias { lease, .. }) => lease.alias.as_str() == value,
            (Self::Service, Listed::Beacon { group, .. }) => group.label("service") == value,
            (Self::Kind, Listed::Beacon { beacon, .. }) => beacon.name.kind() == value,
            // As in Prometheus, a label with an empty value is a label that is not there.
            (Self::Label(name), Listed::Alias { lease, .. }) => Listing::label(lease, name) == value,
            (Self::Label(name), Listed::Beacon { group, .. }) => group.label(name) == value,
            (Self::Alias, Listed::Beacon { .. }) | (Self::Kind, Listed::Alias { .. }) => false,
        }
    }

    /// The field that a parameter names, and the value.
    fn read(name: &str, value: String) -> Result<(Self, String), String> {
        match name {
            "service" => Ok((Self::Service, value)),
            "alias" => match value.strip_prefix('!').unwrap_or(&value).parse::<Alias>() {
                Ok(_) => Ok((Self::Alias, value)),
                Err(error) => Err(error.to_string()),
            },
            "kind" => Ok((Self::Kind, value)),
            "label" => match value.split_once(':') {
                Some((name, _)) if !is_label_name(name) => {
                    Err(format!("{name:?} is no name of a label: label=env:prod filters, label=env:!prod negates"))
                }
                Some((name, value)) => Ok((Self::Label(name.to_owned()), value.to_owned())),
                None => Err(format!("label={value:?} is not of the form name:value")),
            },
            _ => Err(format!(
                "unknown parameter {name:?}: there are service, alias, kind and label; service=!web negates"
            )),
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
        assert!(refused("alias=a&kind=nodes").contains("list nothing"));
        assert!(refused("label=!a:x").contains("label=env:!prod"));
        assert!(refused("label=:x").contains("no name of a label"));
        assert!(refused("alias=a%20b").contains("\"a b\""));
        assert!(refused("alias=!").contains("alias"));
        assert!(refused("service=a&service=!a").contains("lists nothing"));
        assert!(refused("label=e:a&service=x&label=e:!a&label=e:!b").contains("lists nothing"));
        assert!(read_filters(&"/sd?service=a&service=b&service=!a".parse().expect("a URI")).is_ok());
        assert!(refused("service!=a").contains("service=!web"));
        assert!(refused(&["alias=a"; MAX_FILTERS + 1].join("&")).contains("at most 16"));
    }
}
