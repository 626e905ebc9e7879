//! Who may use which route: each has what it needs in the table of `router`, and nothing is answered before this is checked.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
    routing::MethodRouter,
};
use http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};

use super::{router::Shared, viewer::Viewer};
use crate::{
    access::Right,
    http::{CHALLENGES, ClientAddr, Denied, text},
    telemetry::LabelValue,
};

/// Seconds after which a client that was turned away may ask again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("60");

/// What a request to a route must show.
#[derive(Clone, Copy, Debug)]
pub(super) enum Needs {
    /// Nothing: anybody may ask.
    Nothing,
    /// That it comes from a user with this right.
    The(Right),
}

/// A path, what a request to it needs, and the handlers of some methods.
pub(super) type Route = (&'static str, Needs, MethodRouter<Arc<Shared>>);

/// The handlers, which see those requests alone that may be answered, each with its [`Viewer`].
pub(super) fn guarded(
    shared: &Arc<Shared>,
    needs: Needs,
    handlers: MethodRouter<Arc<Shared>>,
) -> MethodRouter<Arc<Shared>> {
    match needs {
        Needs::Nothing => handlers,
        Needs::The(right) => handlers.route_layer(middleware::from_fn_with_state((Arc::clone(shared), right), check)),
    }
}

async fn check(State((shared, right)): State<(Arc<Shared>, Right)>, mut request: Request, next: Next) -> Response {
    match viewer(&shared, right, request.headers(), request.extensions()).await {
        Ok(viewer) => {
            request.extensions_mut().insert(viewer);
            next.run(request).await
        }
        Err(refusal) => refusal,
    }
}

/// Who asks, if this user has the right.
pub(super) async fn viewer(
    shared: &Shared,
    right: Right,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<Viewer, Response> {
    let Some(ClientAddr(from)) = extensions.get() else {
        return Err(text::line(StatusCode::INTERNAL_SERVER_ERROR, "the request comes from nowhere"));
    };
    let refused = |denied| {
        shared.metrics.denied(denied);
        if let Some(count) = shared.denials.due() {
            tracing::warn!(count, last = %from, why = LabelValue::as_str(denied), "HTTP requests were denied; the next such line in a minute");
        }
    };
    match shared.gate.authenticate(headers, *from).await {
        Ok(user) if user.rights.contains(&right) => Ok(Viewer::new(user, &shared.registry)),
        Ok(user) => {
            refused(Denied::NoRight);
            Err(text::line(StatusCode::FORBIDDEN, format!("user {:?} has no right {right}", user.name)))
        }
        Err(denied) => {
            refused(denied);
            Err(unauthenticated(denied))
        }
    }
}

fn unauthenticated(denied: Denied) -> Response {
    if denied == Denied::TooOften {
        let mut response = text::line(StatusCode::TOO_MANY_REQUESTS, "too many wrong passwords: try again in a minute");
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        return response;
    }
    let mut response = text::line(StatusCode::UNAUTHORIZED, "a user's name and password, or a token, is needed");
    for challenge in CHALLENGES {
        response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// Keeps the rate of requests, and gives each answer the headers that the web configuration file has. Probes have no rate.
pub(super) async fn paced(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let is_probe = request.uri().authority().is_none() && request.uri().path().starts_with("/-/");
    let admitted = if is_probe { Some(shared.gate.headers().await) } else { shared.gate.admit().await };
    let Some(headers) = admitted else {
        return text::line(
            StatusCode::TOO_MANY_REQUESTS,
            "more requests than the rate_limit of the web configuration file",
        );
    };
    let mut response = next.run(request).await;
    response.headers_mut().extend(headers);
    response
}
