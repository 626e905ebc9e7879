//! What a node shows over HTTP: its metrics, and whether it is well. Nothing can be changed by it.

use std::sync::Arc;

use axum::{Router, extract::State, response::Response, routing::get};
use http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{router, server, text};
use crate::telemetry::{NodeMetrics, NodeStanding};

/// What is known of a node.
pub trait NodeStatus: Send + Sync {
    /// What it holds and has done.
    fn standing(&self) -> NodeStanding;

    /// Why it is of no use to others yet, if it is not.
    fn unready(&self) -> Option<&'static str>;
}

/// What a node's HTTP side speaks to.
#[derive(Clone)]
pub struct NodeState {
    /// Knows the node.
    pub status: Arc<dyn NodeStatus>,
    /// Shows what is known.
    pub metrics: Arc<NodeMetrics>,
}

/// Answers requests until `stop` fires.
pub async fn serve_node(listener: TcpListener, state: NodeState, stop: CancellationToken) {
    let router = Router::new()
        .route("/", get(async || text::page(ENDPOINTS)))
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(async || text::line(StatusCode::OK, "narthex node is healthy")))
        .route("/-/ready", get(ready))
        .method_not_allowed_fallback(router::method_not_allowed)
        .fallback(async || text::not_found(ENDPOINTS))
        .with_state(state);
    server::accept(listener, MAX_CONNECTIONS, router, stop).await;
}

async fn metrics(State(state): State<NodeState>, headers: HeaderMap) -> Response {
    router::exposition(&headers, |format| state.metrics.encode(&state.status.standing(), format))
}

async fn ready(State(state): State<NodeState>) -> Response {
    match state.status.unready() {
        None => text::line(StatusCode::OK, "narthex node is ready"),
        Some(why) => text::line(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

const ENDPOINTS: &str = "\
narthex node

GET /metrics     metrics of this node
GET /-/healthy   is this process alive
GET /-/ready     does it listen, and is one of its bootstrap nodes linked
";
/// Further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 256;
