//! Tickets, for the scraper's owner: makes, lists and revokes them.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    extract::{Path, State, rejection::JsonRejection},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{
    access::{AliasGlob, Grant, IssueError, IssuedTicket, MAX_KEYS, Quota, Scope, SecretNameError},
    http::text,
    identity::{DialAddress, PublicKey},
    scraper::ticket_desk::TicketDesk,
    telemetry::Chain,
    wire::{Labels, MAX_ADDRESSES},
};

/// Ten years: times beyond 9999 have no text.
const MOST_SECONDS: u64 = 10 * 366 * 24 * 60 * 60;
/// Where tickets are made and listed.
pub(crate) const TICKETS_PATH: &str = "/v1/tickets";

/// A ticket that is asked for.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    /// Patterns of aliases; all aliases if there is none.
    pub(crate) aliases: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) max_aliases: Option<usize>,
    /// Seconds from now.
    pub(crate) expires_in: Option<u64>,
    pub(crate) uses: Option<u32>,
    /// Where the scraper is dialled; what it knows itself if there is none.
    pub(crate) addresses: Vec<String>,
    /// Further keys of the scraper.
    pub(crate) also: Vec<PublicKey>,
}

/// A ticket that was made.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Made {
    /// The line itself.
    pub(crate) ticket: String,
    /// Where it says that the scraper is.
    pub(crate) scrapers: Vec<String>,
}

/// The end of a ticket.
#[derive(Debug, Serialize, Deserialize)]
struct Revoked {
    /// Aliases that were registered with it.
    released: usize,
}

pub(super) fn router<S>(desk: TicketDesk) -> Router<S> {
    Router::new().route(TICKETS_PATH, get(list).post(make)).route("/v1/tickets/{name}", delete(revoke)).with_state(desk)
}

async fn list(State(desk): State<TicketDesk>) -> Json<Vec<IssuedTicket>> {
    Json(desk.issued())
}

async fn make(State(desk): State<TicketDesk>, wanted: Result<Json<Wanted>, JsonRejection>) -> Response {
    let asked = wanted.map_err(|error| error.body_text()).and_then(|Json(wanted)| Asked::try_from(wanted));
    let asked = match asked {
        Ok(asked) => asked,
        Err(why) => return text::line(StatusCode::BAD_REQUEST, why),
    };
    match desk.issue(asked.grant, &asked.addresses, &asked.also).await {
        Ok(ticket) => {
            let scrapers = ticket.scrapers().iter().map(ToString::to_string).collect();
            (StatusCode::CREATED, Json(Made { ticket: ticket.expose_text().to_string(), scrapers })).into_response()
        }
        Err(error) => {
            let status = match error {
                IssueError::Name(_) | IssueError::TooLong => StatusCode::BAD_REQUEST,
                IssueError::Exists | IssueError::TooMany | IssueError::Nowhere => StatusCode::CONFLICT,
                IssueError::Io(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            text::line(status, Chain(&error).to_string())
        }
    }
}

async fn revoke(State(desk): State<TicketDesk>, Path(name): Path<String>) -> Response {
    let unknown = || text::line(StatusCode::NOT_FOUND, "there is no ticket of that name: see narthex ticket list");
    let Ok(name) = name.parse() else { return unknown() };
    match desk.revoke(name).await {
        Ok(Some(released)) => Json(Revoked { released }).into_response(),
        Ok(None) => unknown(),
        Err(error) => text::line(StatusCode::SERVICE_UNAVAILABLE, Chain(&error).to_string()),
    }
}

/// A [`Wanted`] ticket, checked.
struct Asked {
    grant: Grant,
    addresses: Vec<DialAddress>,
    also: Vec<PublicKey>,
}

impl TryFrom<Wanted> for Asked {
    type Error = String;

    fn try_from(wanted: Wanted) -> Result<Self, String> {
        let mut labels = Labels::default();
        for (name, value) in wanted.labels {
            labels.insert(name, value).map_err(|error| error.to_string())?;
        }
        let globs =
            wanted.aliases.iter().map(|glob| glob.parse::<AliasGlob>().map_err(|error| format!("{glob:?}: {error}")));
        let addresses = wanted
            .addresses
            .iter()
            .map(|address| address.parse::<DialAddress>().map_err(|error| format!("{address:?}: {error}")));
        let expires_at = match wanted.expires_in {
            Some(seconds) if seconds > MOST_SECONDS => return Err("a ticket is open for ten years at most".to_owned()),
            Some(seconds) => SystemTime::now().checked_add(Duration::from_secs(seconds)),
            None => None,
        };
        if wanted.also.len() > MAX_ADDRESSES || wanted.addresses.len() > MAX_ADDRESSES {
            return Err(format!("a ticket has {MAX_ADDRESSES} addresses and {MAX_ADDRESSES} further keys at most"));
        }
        if wanted.uses.is_some_and(|uses| uses as usize > MAX_KEYS) {
            return Err(format!("a ticket has {MAX_KEYS} uses at most"));
        }
        if wanted.uses == Some(0) || wanted.max_aliases == Some(0) {
            return Err("a ticket that nobody could use".to_owned());
        }
        let quota = Quota { max_aliases: wanted.max_aliases, ..Quota::default() };
        let scope = Scope { aliases: globs.collect::<Result<_, _>>()?, labels, quota, ..Scope::default() };
        let name = wanted.name.parse().map_err(|error: SecretNameError| error.to_string())?;
        let addresses = addresses.collect::<Result<_, _>>()?;
        Ok(Self { grant: Grant { name, scope, expires_at, uses: wanted.uses }, addresses, also: wanted.also })
    }
}
