//! The routes of the HTTP API.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use axum::{
    Extension, Router,
    extract::State,
    middleware,
    response::Response,
    routing::{delete, get, post},
};
use http::{HeaderMap, StatusCode};

use super::{
    api, host, proxy,
    readers::Readers,
    rights::{self, Needs, Route},
    scrape, sd,
    sd_list::SdList,
    table_list::TableUnknown,
    views::{self, Views},
};
use crate::{
    access::Right,
    http::{
        Gate, HttpLimits, LocalAddr,
        text::{self, exposition},
    },
    identity::{HostPort, PublicKey},
    network::Network,
    registration_log::LogCounts,
    registry::{NotLoaded, Registry},
    scraper::{
        config::{HttpConfig, ScrapeConfig},
        last_scrapes::LastScrapes,
        metrics::{ScraperMetrics, ScraperState},
        pull::Pull,
        reload::Reloader,
        shares::Shares,
    },
    telemetry::LogPace,
    wire::Alias,
};

/// The list of paths: the answer to `/`, and a part of each 404.
const ENDPOINTS: &str = "\
narthex scraper

GET    /sd                       targets for Prometheus's http_sd_configs
                                 filters: ?service=S ?alias=A ?kind=K ?label=NAME:VALUE, !S negates
GET    /scrape/{alias}/metrics   metrics of a target
GET    /metrics                  metrics of this scraper
GET    /metrics/aliases          how each alias is linked, as metrics
GET    /-/healthy                is this process alive
GET    /-/ready                  is the table of aliases loaded, and can it be stored
POST   /-/reload                 read the settings again, where that is allowed
GET    /api/v1/aliases           the table of aliases
GET    /api/v1/aliases/{alias}   one alias
DELETE /api/v1/aliases/{alias}   release an alias
DELETE /api/v1/aliases?peer=     release all aliases of a peer, or ?secret= of a secret
";

/// The parts of a scraper that handlers use.
pub(in crate::scraper) struct Shared {
    pub(super) registry: Registry,
    pub(super) pull: Arc<dyn Pull>,
    pub(super) network: Network,
    pub(super) metrics: Arc<ScraperMetrics>,
    pub(super) connections: HttpLimits,
    pub(super) advertise: Option<HostPort>,
    pub(super) allowed_hosts: Vec<String>,
    pub(super) scrape: ScrapeConfig,
    pub(super) scrapes: Arc<Shares<PublicKey, Alias>>,
    pub(super) last_scrapes: LastScrapes,
    pub(super) sd: SdList,
    pub(super) views: Views,
    pub(super) readers: Arc<Readers>,
    /// None if nobody may ask for a reload.
    reloader: Option<Reloader>,
    pub(super) gate: Arc<Gate>,
    /// Of lines about requests that are denied.
    pub(super) denials: LogPace,
    log_counts: Arc<LogCounts>,
}

impl Shared {
    pub(in crate::scraper) fn connections(&self) -> HttpLimits {
        self.connections
    }

    pub(in crate::scraper) fn last_scrapes(&self) -> &LastScrapes {
        &self.last_scrapes
    }

    pub(in crate::scraper) fn new(
        config: HttpConfig,
        gate: Arc<Gate>,
        registry: Registry,
        pull: Arc<dyn Pull>,
        network: Network,
        metrics: Arc<ScraperMetrics>,
    ) -> Self {
        let last_scrapes = LastScrapes::new(registry.clone());
        Self {
            sd: SdList::new(registry.clone(), network.links().clone()),
            views: Views::new(&registry, network.links(), &last_scrapes),
            last_scrapes,
            readers: Readers::new(config.max_sd_readers, Arc::clone(network.refusals())),
            registry,
            pull,
            network,
            metrics,
            connections: config.connections,
            advertise: config.advertise,
            allowed_hosts: config.allowed_hosts,
            scrapes: Shares::new(config.scrape.max_concurrent, usize::MAX),
            scrape: config.scrape,
            reloader: None,
            gate,
            denials: LogPace::default(),
            log_counts: Arc::default(),
        }
    }

    /// With the counts of a registration log.
    pub(in crate::scraper) fn logging(self, log_counts: Arc<LogCounts>) -> Self {
        Self { log_counts, ..self }
    }

    /// With `POST /-/reload`, which asks this one.
    pub(in crate::scraper) fn reloading(self, reloader: Option<Reloader>) -> Self {
        Self { reloader, ..self }
    }
}

/// Every route, with what a request to it needs. Scrapes in absolute form are beside these: see `proxy`.
fn routes() -> [Route; 12] {
    use Needs::{Nothing, The};
    use Right::{Admin, Api, Scrape, Sd};
    [
        ("/-/healthy", Nothing, get(healthy)),
        ("/-/ready", Nothing, get(ready)),
        ("/-/reload", The(Admin), post(reload)),
        ("/sd", The(Sd), get(sd::list)),
        ("/scrape/{alias}/metrics", The(Scrape), get(scrape::by_path)),
        ("/", The(Api), get(endpoints)),
        ("/metrics", The(Api), get(metrics)),
        ("/metrics/aliases", The(Api), get(views::metrics)),
        ("/api/v1/aliases", The(Api), get(views::aliases)),
        ("/api/v1/aliases/{alias}", The(Api), get(api::alias)),
        ("/api/v1/aliases", The(Admin), delete(api::release_all)),
        ("/api/v1/aliases/{alias}", The(Admin), delete(api::release)),
    ]
}

/// All routes. Requests must carry a [`LocalAddr`](crate::http::LocalAddr) and a [`ClientAddr`](crate::http::ClientAddr).
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let guarded = |router: Router<_>, (path, needs, handlers): Route| {
        router.route(path, rights::guarded(&shared, needs, handlers))
    };
    routes()
        .into_iter()
        .fold(Router::new(), guarded)
        .method_not_allowed_fallback(text::method_not_allowed)
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), proxy::route))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), host::refuse_rebound))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), rights::paced))
        .with_state(shared)
}

/// `GET /metrics`: OpenMetrics for those that ask for it, else the older text format that everything reads.
async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let Shared { registry, network, metrics, .. } = &*shared;
    let state = ScraperState {
        loaded: registry.is_loaded(),
        store_failing: registry.store_failing(),
        aliases: registry.counts(),
        table_bytes: registry.table_bytes(),
        totals: registry.totals(),
        links: network.links().counts(),
        inbound: network.inbound(),
        holders: network.holders(),
        bootstrap: network.bootstrap().len(),
        logged: shared.log_counts.written.load(Relaxed),
        unlogged: shared.log_counts.lost.load(Relaxed),
    };
    exposition(&headers, |format| metrics.encode(state, format))
}

async fn healthy() -> Response {
    text::line(StatusCode::OK, "narthex scraper is healthy")
}

/// Ready once the table is loaded, and while it can be stored. A store that was damaged does not make it unready, as
/// registrations are acknowledged. Scrapes go on in any case.
async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let refusal = match &shared.registry {
        registry if !registry.is_loaded() => TableUnknown::NotLoaded(NotLoaded),
        registry if registry.store_failing() => TableUnknown::StoreFailing,
        _ => return text::line(StatusCode::OK, "narthex scraper is ready"),
    };
    text::line(StatusCode::SERVICE_UNAVAILABLE, refusal.to_string())
}

/// As Prometheus's: 403 unless it was switched on.
async fn reload(
    State(shared): State<Arc<Shared>>,
    Extension(local): Extension<LocalAddr>,
    headers: HeaderMap,
) -> Response {
    if !api::is_from_here(&shared, &local, &headers) {
        return text::line(StatusCode::FORBIDDEN, "nothing is reloaded for a web page of another origin");
    }
    let Some(reloader) = &shared.reloader else {
        return text::line(StatusCode::FORBIDDEN, "reloads over HTTP are not switched on: send SIGHUP");
    };
    match reloader.reload().await {
        Ok(()) => text::line(StatusCode::OK, "the settings were read again"),
        Err(error) => text::line(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn endpoints() -> Response {
    text::page(ENDPOINTS)
}

async fn not_found() -> Response {
    text::not_found(ENDPOINTS)
}
