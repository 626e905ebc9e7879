//! The registration API: HTTP callers keep [beacons](crate::registry::Beacon), on a listener of its own.
//!
//! `/register`, `/unregister` and `/list` are those of the Dynamic Target Registration Server: any method, parameters in the query or
//! in an urlencoded body, the token as the whole value of `Authorization`, empty answers. Beyond it `/register` takes
//! `lease`, what fails has a line of text that says why, and nothing a caller sends ends the process.

use std::{
    error::Error,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::{self, Body, Bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::any,
};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use http_body_util::LengthLimitError;
use percent_encoding::percent_decode_str;
use serde::Serializer;
use tokio::{sync::Semaphore, task, time};
use tokio_util::sync::CancellationToken;

use super::router::Shared;
use crate::{
    http::{self as server, Listener, TokenFile, text},
    registry::{Beacon, BeaconError, BeaconName, Kept, OWN_KINDS, RegistryError},
    scraper::{
        config::{RegistrationApi, ScraperError},
        outcome::BeaconOutcome,
    },
    telemetry::{Chain, LabelValue},
};

/// Longest body of a request: the longest beacon, percent-encoded.
const MAX_BODY: usize = 512 << 10;
/// Longest time for the body of a request.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Lists that are made and sent at once; further requests wait.
const LISTS: usize = 4;
/// The answer to `/`, and a part of each 404.
const ENDPOINTS: &str = "\
narthex registration API

POST /register    kind, key, data, and a lease such as 10m if the beacon is to go by itself
POST /unregister  kind, key
GET  /list?kind=  the data of each key
";

/// The bound listener and what its handlers need.
pub(in crate::scraper) struct BeaconsApi {
    listener: Listener,
    local: SocketAddr,
    token: TokenFile,
    strict: bool,
}

/// What handlers use.
struct Api {
    shared: Arc<Shared>,
    token: TokenFile,
    strict: bool,
    lists: Arc<Semaphore>,
}

/// An answer that is no success.
struct Refusal(StatusCode, BeaconOutcome, String);

type Answer = Result<(BeaconOutcome, Response), Refusal>;

impl BeaconsApi {
    /// Listens.
    pub(in crate::scraper) async fn bind(config: &RegistrationApi) -> Result<Self, ScraperError> {
        let token = TokenFile::new(config.token_file.clone());
        let (listener, local) = server::bind(&config.listen).await.map_err(ScraperError::BindRegistrationApi)?;
        Ok(Self { listener, local, token, strict: config.strict })
    }

    pub(in crate::scraper) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Answers until `stop` fires.
    pub(in crate::scraper) async fn serve(self, shared: Arc<Shared>, stop: CancellationToken) {
        let Self { listener, token, strict, .. } = self;
        let (limits, refusals) = (shared.connections, Arc::clone(shared.network.refusals()));
        let lists = Arc::new(Semaphore::new(LISTS));
        let api = Arc::new(Api { shared, token, strict, lists });
        let router = Router::new()
            .route("/register", any(register))
            .route("/unregister", any(unregister))
            .route("/list", any(list))
            .route("/", any(async || text::page(ENDPOINTS)))
            .fallback(async || text::not_found(ENDPOINTS))
            .with_state(api);
        server::accept(listener, limits, refusals, router, stop).await;
    }
}

async fn register(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let parameters = api.parameters(request).await?;
        let lease = parameters.lease()?;
        let data = parameters.value("data").to_owned();
        let beacon = Beacon::new(parameters.name()?, data, lease, SystemTime::now())?;
        let (name, not_listed) = (beacon.name.clone(), beacon.groups.clone().err());
        let kept = api.shared.registry.register_beacon(beacon).await?.map_err(|limit| {
            let why = format!("the limit {} is reached", limit.as_str());
            Refusal(StatusCode::INSUFFICIENT_STORAGE, BeaconOutcome::Full, why)
        })?;
        if let (Kept::Registered | Kept::Updated, Some(why)) = (kept, not_listed) {
            tracing::debug!(beacon = %name, %why, "the beacon is not in /sd");
        }
        let outcome = match kept {
            Kept::Registered => BeaconOutcome::Registered,
            Kept::Updated => BeaconOutcome::Updated,
            Kept::Renewed => BeaconOutcome::Renewed,
        };
        Ok((outcome, StatusCode::OK.into_response()))
    };
    api.end(answer.await)
}

async fn unregister(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let name = api.parameters(request).await?.name()?;
        // As with the original, what is not there was unregistered before.
        api.shared.registry.unregister_beacon(&name).await?;
        Ok((BeaconOutcome::Unregistered, StatusCode::OK.into_response()))
    };
    api.end(answer.await)
}

async fn list(State(api): State<Arc<Api>>, uri: Uri, headers: HeaderMap) -> Response {
    let answer = async {
        api.admit(&headers).await?;
        // Whatever the method, the kind stands in the query.
        let kind = Parameters::of(uri.query().unwrap_or_default(), "")?.value("kind").to_owned();
        if kind.is_empty() {
            return Err(BeaconError::Empty.into());
        }
        let registry = &api.shared.registry;
        if registry.is_loaded() && !registry.is_complete() {
            return Err(Refusal::unavailable(
                "the store was damaged, and not everything that was noted is there again",
            ));
        }
        // Held until the answer is made: a list may be as large as the table.
        let permit = Arc::clone(&api.lists).acquire_owned().await;
        let beacons = match registry.beacons_of(&kind).map_err(|error| Refusal::unavailable(&error.to_string()))? {
            None if api.strict => {
                let why = format!("no beacon of kind {kind:?} was ever registered");
                return Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, BeaconOutcome::UnknownKind, why));
            }
            beacons => beacons.unwrap_or_default(),
        };
        let json = task::spawn_blocking(move || {
            let _permit = permit;
            let mut json = Vec::new();
            let data = beacons.iter().map(|beacon| (beacon.name.key(), &beacon.data));
            serde_json::Serializer::new(&mut json).collect_map(data).expect("text is JSON");
            json
        });
        let json = json.await.map_err(|_| Refusal::unavailable("the process ends"))?;
        Ok((BeaconOutcome::Listed, ([(header::CONTENT_TYPE, "application/json")], json).into_response()))
    };
    api.end(answer.await)
}

impl Api {
    /// Refuses a request that does not show the token.
    async fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match self.token.is_shown(headers).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal(StatusCode::UNAUTHORIZED, BeaconOutcome::Unauthorized, String::new())),
            Err(_) => Err(Refusal::unavailable("the token's file cannot be read")),
        }
    }

    /// The parameters of a request that shows the token. Of others no body is read.
    async fn parameters(&self, request: Request) -> Result<Parameters, Refusal> {
        let (parts, body) = request.into_parts();
        self.admit(&parts.headers).await?;
        // As the original: other methods, and other kinds of bodies, have their parameters in the query alone.
        let body = match parts.method {
            Method::POST | Method::PUT | Method::PATCH if is_form(&parts.headers) => read(body).await?,
            _ => Bytes::new(),
        };
        let body = std::str::from_utf8(&body).map_err(|_| Refusal::bad("the body is no text"))?;
        Parameters::of(parts.uri.query().unwrap_or_default(), body)
    }

    fn end(&self, answer: Answer) -> Response {
        let (outcome, response) = answer.unwrap_or_else(|Refusal(status, outcome, why)| {
            let response = if why.is_empty() { status.into_response() } else { text::line(status, why) };
            (outcome, response)
        });
        self.shared.metrics.beacon_request(outcome);
        response
    }
}

impl Refusal {
    fn unavailable(why: &str) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, BeaconOutcome::Unavailable, why.to_owned())
    }

    fn bad(why: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, BeaconOutcome::BadRequest, why.into())
    }
}

impl From<BeaconError> for Refusal {
    fn from(error: BeaconError) -> Self {
        Self::bad(error.to_string())
    }
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        Self::unavailable(&Chain(&error).to_string())
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()?.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"))
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    match time::timeout(BODY_TIME, body::to_bytes(body, MAX_BODY)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if error.source().is_some_and(|source| source.is::<LengthLimitError>()) => {
            let why = format!("the body has more than {MAX_BODY} bytes");
            Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, BeaconOutcome::BadRequest, why))
        }
        Ok(Err(_)) => Err(Refusal::bad("the body broke off")),
        Err(_) => {
            let why = format!("the body took longer than {BODY_TIME:?}");
            Err(Refusal(StatusCode::REQUEST_TIMEOUT, BeaconOutcome::BadRequest, why))
        }
    }
}

/// Names and values of a request. The first of a name counts, and the body before the query.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn of(query: &str, body: &str) -> Result<Self, Refusal> {
        let pairs = [body, query].into_iter().flat_map(|part| part.split('&'));
        let pairs = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// The value; empty if there is none.
    fn value(&self, name: &str) -> &str {
        self.0.iter().find(|(given, _)| given == name).map_or("", |(_, value)| value)
    }

    fn name(&self) -> Result<BeaconName, Refusal> {
        let kind = self.value("kind");
        if kind.starts_with(OWN_KINDS) {
            return Err(Refusal::bad(format!("kinds that begin with {OWN_KINDS} are narthex's own")));
        }
        Ok(BeaconName::new(kind, self.value("key"))?)
    }

    fn lease(&self) -> Result<Option<Duration>, Refusal> {
        match self.value("lease") {
            "" => Ok(None),
            lease => match humantime::parse_duration(lease) {
                Ok(lease) if lease.as_secs() > 0 => Ok(Some(lease)),
                _ => Err(Refusal::bad(format!("lease={lease:?} is no time such as 90s, 10m or 3h"))),
            },
        }
    }
}

/// Decodes a part of a query or an urlencoded body. The error names what no such part may have.
fn decode(part: &str) -> Result<String, Refusal> {
    let mut escapes = part.split('%').skip(1);
    if !escapes.all(|after| after.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))) {
        return Err(Refusal::bad("a percent sign is not followed by two hex digits"));
    }
    let spaced = part.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(String::from).map_err(|_| Refusal::bad("a parameter is no UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(query: &str, body: &str) -> Option<Vec<(String, String)>> {
        Parameters::of(query, body).ok().map(|parameters| parameters.0)
    }

    #[test]
    fn parameters_are_read_as_the_original_reads_them() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let both = parameters("kind=q&key=a%2Fb+c", "kind=b");
        assert_eq!(both, Some(vec![pair("kind", "b"), pair("kind", "q"), pair("key", "a/b c")]));
        assert_eq!(parameters("", "kind=&data=%C3%BC"), Some(vec![pair("kind", ""), pair("data", "ü")]));
        for unfit in ["key=%", "key=%2", "key=%zz", "key=%ff", "%=a"] {
            assert!(parameters(unfit, "").is_none() && parameters("", unfit).is_none(), "{unfit}");
        }
    }

    #[test]
    fn forms_are_told_by_their_type() {
        let is_form = |kind: &str| {
            super::is_form(&HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().expect("a value"))]))
        };
        assert!(
            is_form("application/x-www-form-urlencoded") && is_form("Application/X-WWW-Form-Urlencoded; charset=utf-8")
        );
        assert!(!is_form("application/json") && !is_form("") && !super::is_form(&HeaderMap::new()));
    }
}
