//! Rules for keys, for the scraper's owner: lists and changes them.

use axum::{
    Json, Router,
    extract::{Path, State, rejection::JsonRejection},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{
    access::{AliasGlob, Rule},
    http::text,
    identity::PublicKey,
    scraper::{
        enforcement::Enforced,
        peer_desk::{PeerDesk, PeerDeskError},
    },
    telemetry::Chain,
};

/// Where rules are listed, and changed below.
pub(crate) const PEERS_PATH: &str = "/v1/peers";

/// The rules in force.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Rules {
    pub(crate) peers: Vec<PeerRule>,
    /// What keys without a rule may hold; none if they may not register, or if nothing is said of them.
    pub(crate) others: Option<Vec<AliasGlob>>,
    /// True if keys without a rule may not register at all, but for what `others` says.
    pub(crate) is_allow_list: bool,
}

/// The rule of a key.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PeerRule {
    pub(crate) key: PublicKey,
    #[serde(flatten)]
    pub(crate) rule: RuleText,
}

/// A rule, as it is sent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RuleText {
    /// These aliases, or all if there is no pattern.
    Allow(Vec<AliasGlob>),
    Block(()),
}

/// What a new rule took away.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Changed {
    /// Aliases that were released.
    pub(crate) released: usize,
}

pub(super) fn router<S>(desk: PeerDesk) -> Router<S> {
    Router::new().route(PEERS_PATH, get(list)).route("/v1/peers/{key}", put(change)).with_state(desk)
}

async fn list(State(desk): State<PeerDesk>) -> Json<Rules> {
    let rules = desk.rules();
    let peers = rules.keys().map(|(key, rule)| {
        let rule = match rule {
            Rule::Allow(globs) => RuleText::Allow(globs.to_vec()),
            Rule::Block => RuleText::Block(()),
        };
        PeerRule { key: *key, rule }
    });
    let peers = peers.collect();
    Json(Rules { peers, others: rules.others().map(<[_]>::to_vec), is_allow_list: rules.is_allow_list() })
}

async fn change(
    State(desk): State<PeerDesk>,
    Path(key): Path<String>,
    rule: Result<Json<RuleText>, JsonRejection>,
) -> Response {
    let Ok(key) = key.parse::<PublicKey>() else {
        return text::line(StatusCode::BAD_REQUEST, "expected a public key");
    };
    let rule = match rule {
        Ok(Json(RuleText::Allow(globs))) => Rule::Allow(globs.into()),
        Ok(Json(RuleText::Block(()))) => Rule::Block,
        Err(error) => return text::line(StatusCode::BAD_REQUEST, error.body_text()),
    };
    match desk.change(key, rule).await {
        Ok(Enforced { released, .. }) => Json(Changed { released }).into_response(),
        Err(error @ PeerDeskError::File(_)) => text::line(StatusCode::CONFLICT, Chain(&error).to_string()),
        Err(error) => text::line(StatusCode::SERVICE_UNAVAILABLE, Chain(&error).to_string()),
    }
}
