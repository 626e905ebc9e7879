//! Lobby's HTTP API, as lobbyd answers it: paths, parameters, status codes, bodies.
//!
//! What lobbyd gets wrong is not copied: a host without a `host` label is a target by its own name, a missing list is 503 and not
//! an empty one, and the token is compared in constant time.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{self, Body},
    extract::{Path, Query, Request, State, rejection::PathRejection},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde::Serialize;
use serde_json::json;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{Group, Host, LabelsChange, LabelsError, NoList, targets::TargetGroup};
use crate::{
    http::{self as server, BindError, HttpLimits, Listener, TokenFile, browser, text},
    identity::HostPort,
    secret_file::SecretFileError,
    telemetry::{Chain, Refusals},
};

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=UTF-8");
/// Longest list of labels in a request.
const MAX_BODY: usize = 64 << 10;
/// Longest time for it.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What callers must show.
#[derive(Debug)]
pub(crate) enum LobbyToken {
    Nothing,
    #[cfg(feature = "cli")]
    Given(String),
    File(TokenFile),
}

/// The bound listener of the API.
pub(crate) struct LobbyListener {
    listener: Listener,
    local: SocketAddr,
    token: LobbyToken,
    default_port: u16,
}

struct Api<G> {
    group: G,
    token: LobbyToken,
    default_port: u16,
}

/// An answer that is no success.
enum Refusal {
    Message(StatusCode, String),
    Text(StatusCode, String),
}

impl LobbyListener {
    /// Listens. Targets without a port of their own get `default_port`.
    pub(crate) async fn bind(listen: &HostPort, token: LobbyToken, default_port: u16) -> Result<Self, BindError> {
        let (listener, local) = server::bind(listen).await?;
        Ok(Self { listener, local, token, default_port })
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Answers until `stop` fires.
    pub(crate) async fn serve<G: Group>(
        self,
        group: G,
        limits: HttpLimits,
        refusals: Arc<Refusals>,
        stop: CancellationToken,
    ) {
        let Self { listener, token, default_port, .. } = self;
        let api = Arc::new(Api { group, token, default_port });
        let router = Router::new()
            .route("/", get(discoveries::<G>))
            .route("/v1/discovery", get(discovery::<G>))
            .route("/v1/discoveries", get(discoveries::<G>))
            .route("/v1/resolve", get(resolve::<G>))
            .route("/v1/prometheus/{name}", get(prometheus::<G>))
            .route("/v1/labels", post(labels::<G>).delete(labels::<G>))
            .method_not_allowed_fallback(async || message(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"))
            .fallback(any(async || message(StatusCode::NOT_FOUND, "Not Found")))
            .layer(middleware::from_fn_with_state(Arc::clone(&api), admit::<G>))
            .with_state(api);
        server::accept(listener, limits, refusals, router, stop).await;
    }
}

/// Every path needs the token, and no page of a browser gets in by a name of its own.
async fn admit<G: Group>(State(api): State<Arc<Api<G>>>, request: Request, next: Next) -> Response {
    if browser::is_rebound(&request, |host| host.eq_ignore_ascii_case("localhost"))
        || (request.method() != Method::GET && is_foreign(request.headers()))
    {
        let message = "access denied: a browser must ask by an IP address or localhost, and for no other page";
        return pretty(StatusCode::FORBIDDEN, &json!({ "message": message }));
    }
    match api.token.is_shown(request.headers()).await {
        Ok(true) => next.run(request).await,
        Ok(false) => pretty(StatusCode::FORBIDDEN, &json!({ "message": "access denied" })),
        Err(_) => text::line(StatusCode::SERVICE_UNAVAILABLE, "the token's file cannot be read"),
    }
}

/// True if a page of another site sends this.
fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let own = headers.get(header::HOST).map(|host| [b"http://", host.as_bytes()].concat());
    own.as_deref() != Some(origin.as_bytes())
}

async fn discovery<G: Group>(State(api): State<Arc<Api<G>>>) -> Response {
    match api.group.own().await {
        Ok(host) => pretty(StatusCode::OK, &host),
        Err(error) => text::line(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("gathering identification info error: {}", Chain(&error)),
        ),
    }
}

async fn discoveries<G: Group>(State(api): State<Arc<Api<G>>>, uri: Uri) -> Result<Response, Refusal> {
    let (labels, prefixes) = (parameter(&uri, "labels")?, parameter(&uri, "prefixes")?);
    let hosts = api.group.hosts().await?;
    let wanted = |label: &str| match (&labels, &prefixes) {
        (Some(labels), _) => labels.split(',').any(|wanted| wanted == label),
        (None, Some(prefixes)) => prefixes.split(',').any(|wanted| label.starts_with(wanted)),
        (None, None) => true,
    };
    let all = labels.is_none() && prefixes.is_none();
    let matching = hosts.iter().filter_map(|host| {
        let labels: Vec<String> = host.labels.iter().filter(|label| wanted(label)).cloned().collect();
        (all || !labels.is_empty()).then(|| Host { labels, ..host.clone() })
    });
    Ok(pretty(StatusCode::OK, &matching.collect::<Vec<_>>()))
}

async fn resolve<G: Group>(State(api): State<Arc<Api<G>>>, uri: Uri) -> Result<Response, Refusal> {
    let label = parameter(&uri, "label")?.unwrap_or_default();
    let hosts = api.group.hosts().await?;
    let named: Vec<&str> =
        hosts.iter().filter(|host| host.labels.contains(&label)).map(|host| host.hostname.as_str()).collect();
    Ok(pretty(StatusCode::OK, &named))
}

async fn prometheus<G: Group>(
    State(api): State<Arc<Api<G>>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let Ok(Path(name)) = name else {
        return Err(Refusal::Message(StatusCode::BAD_REQUEST, "the name is no UTF-8".to_owned()));
    };
    let hosts = api.group.hosts().await?;
    let groups: Vec<_> = hosts.iter().filter_map(|host| TargetGroup::of(host, &name, api.default_port)).collect();
    Ok(pretty(StatusCode::OK, &groups))
}

async fn labels<G: Group>(State(api): State<Arc<Api<G>>>, method: Method, body: Body) -> Result<&'static str, Refusal> {
    let change = if method == Method::DELETE { LabelsChange::Delete } else { LabelsChange::Add };
    let bad = |why: &str| Refusal::Text(StatusCode::BAD_REQUEST, format!("reading request body error: {why}"));
    let body = time::timeout(BODY_TIME, body::to_bytes(body, MAX_BODY)).await;
    let body = body.map_err(|_| bad("it took too long"))?.map_err(|_| bad("it broke off, or is longer than 64 KiB"))?;
    let body = std::str::from_utf8(&body).map_err(|_| bad("it is no text"))?;
    let labels = body.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    api.group.change(change, labels).await.map_err(|error| match error {
        LabelsError::Invalid(why) => Refusal::Text(StatusCode::BAD_REQUEST, why),
        // As lobbyd, whose callers look for 400.
        LabelsError::Failed(why) => {
            Refusal::Text(StatusCode::BAD_REQUEST, format!("error while saving new set of labels: {why}"))
        }
    })?;
    Ok("OK")
}

/// The value of a parameter of the query; none if it is not there or empty.
fn parameter(uri: &Uri, name: &str) -> Result<Option<String>, Refusal> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| Refusal::Message(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(pairs.into_iter().find(|(given, value)| given == name && !value.is_empty()).map(|(_, value)| value))
}

/// JSON as lobbyd writes it.
fn pretty(status: StatusCode, value: &impl Serialize) -> Response {
    let mut body = serde_json::to_vec_pretty(value).expect("text is JSON");
    body.push(b'\n');
    (status, [(header::CONTENT_TYPE, JSON)], body).into_response()
}

fn message(status: StatusCode, message: &str) -> Response {
    let body = format!("{}\n", json!({ "message": message }));
    (status, [(header::CONTENT_TYPE, JSON)], body).into_response()
}

impl LobbyToken {
    /// True if the request shows the token, with `Token ` before it or without.
    async fn is_shown(&self, headers: &HeaderMap) -> Result<bool, SecretFileError> {
        let Some(shown) = headers.get(header::AUTHORIZATION) else { return Ok(matches!(self, Self::Nothing)) };
        let shown = shown.as_bytes();
        let shown = shown.strip_prefix(b"Token ").unwrap_or(shown);
        match self {
            Self::Nothing => Ok(true),
            #[cfg(feature = "cli")]
            Self::Given(token) => Ok(server::is_token(token.as_bytes(), shown)),
            Self::File(file) => file.is(shown).await,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Message(status, why) => message(status, &why),
            Self::Text(status, why) => text::line(status, why),
        }
    }
}

impl From<NoList> for Refusal {
    fn from(error: NoList) -> Self {
        Self::Text(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}
