//! Prometheus's `proxy_url`: requests that name another host in their first line.
//!
//! With `proxy_url: http://<scraper>` and aliases as targets, Prometheus sends `GET http://<alias>/metrics HTTP/1.1`
//! (RFC 9112, section 3.2.2). That is a scrape of the alias; its port, which Prometheus adds (`:80`), is
//! ignored. So is the path, which a job has for other proxies (`/probe`): the peer learns the alias alone, and asks the URL
//! of its own settings. This is no proxy to anywhere: a host that is no alias is 404.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{Method, StatusCode, uri::Scheme};

use super::{rights, router::Shared, scrape::scrape};
use crate::{
    access::Right,
    http::{LocalAddr, text},
};

/// The reason for refusing other schemes. `scheme: https` makes Prometheus ask for a tunnel.
const PLAIN: &str = "aliases are scraped with scheme http, as the link to the peer is encrypted anyway";

/// Answers requests in absolute form that name an alias; others go on to the routes, also those that name this scraper.
pub(super) async fn route(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if request.method() == Method::CONNECT {
        return text::line(StatusCode::METHOD_NOT_ALLOWED, format!("CONNECT is not served: {PLAIN}"));
    }
    let Some(authority) = request.uri().authority().cloned() else {
        return next.run(request).await;
    };
    let local = request.extensions().get::<LocalAddr>();
    if local.is_some_and(|local| local.is_ours(&authority, shared.advertise.as_ref())) {
        return next.run(request).await;
    }
    if request.uri().scheme() != Some(&Scheme::HTTP) {
        return text::line(StatusCode::BAD_REQUEST, format!("no such scheme here: {PLAIN}"));
    }
    match rights::viewer(&shared, Right::Scrape, request.headers(), request.extensions()).await {
        Ok(viewer) => scrape(&shared, &viewer, authority.host(), request.into_parts().0).await,
        Err(refusal) => refusal,
    }
}
