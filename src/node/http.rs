//! The node's HTTP API: metrics, health and readiness. No request changes anything.

use std::sync::Arc;

use axum::{Router, extract::State, response::Response, routing::get};
use http::{HeaderMap, StatusCode};
use tokio_util::sync::CancellationToken;

use super::metrics::{NodeMetrics, NodeState};
use crate::{
    http::{HttpLimits, Listener, accept, text},
    network::Network,
};

/// The list of paths: the answer to `/`, and a part of each 404.
const ENDPOINTS: &str = "\
narthex node

GET /metrics     metrics of this node
GET /-/healthy   is this process alive
GET /-/ready     does it listen, and is one of its bootstrap nodes linked
";
type Shared = (Network, Arc<NodeMetrics>);

pub(super) async fn serve(listener: Listener, limits: HttpLimits, network: Network, stop: CancellationToken) {
    let refusals = Arc::clone(network.refusals());
    let own = NodeMetrics::new(network.refusals());
    let shared: Shared = (network, Arc::new(own));
    let router = Router::new()
        .route("/", get(async || text::page(ENDPOINTS)))
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(async || text::line(StatusCode::OK, "narthex node is healthy")))
        .route("/-/ready", get(ready))
        .method_not_allowed_fallback(text::method_not_allowed)
        .fallback(async || text::not_found(ENDPOINTS))
        .with_state(shared);
    accept(listener, limits, refusals, router, stop).await;
}

async fn metrics(State((network, metrics)): State<Shared>, headers: HeaderMap) -> Response {
    let links = network.links();
    let state = NodeState {
        peers: links.counts().direct,
        connections: links.connections(),
        inbound: network.inbound(),
        counts: network.node_counts(),
    };
    text::exposition(&headers, |format| metrics.encode(&state, format))
}

/// Ready while peers can connect and a bootstrap node is linked.
async fn ready(State((network, _)): State<Shared>) -> Response {
    let missing = if !network.is_listening() {
        "peers cannot connect: no listener is left"
    } else if !network.has_a_node() {
        "none of the bootstrap nodes is linked"
    } else {
        return text::line(StatusCode::OK, "narthex node is ready");
    };
    text::line(StatusCode::SERVICE_UNAVAILABLE, missing)
}
