//! `GET /api/v1/aliases` and `GET /metrics/aliases`: the whole table, rendered for all readers of one second together.

use std::{
    mem,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Extension,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::HeaderMap;
use tokio::{sync::Mutex, task};

use super::{
    api::AliasView,
    list_body::{self, CHUNK},
    router::Shared,
    table_list::{Rendered, TableList, TableUnknown},
    viewer::Viewer,
};
use crate::{
    network::Links,
    registry::{Contents, Lease, Registry},
    scraper::{alias_metrics, last_scrapes::LastScrapes},
    telemetry::ExpositionFormat,
};

/// How old a view may be: leases run down and round trips are measured all the time.
const MAX_AGE: Duration = Duration::from_secs(1);

/// A view as bytes, in chunks that all readers share.
type View = Vec<Bytes>;

/// Makes a view of the table.
type Render = dyn Fn(Vec<Arc<Lease>>, &Links) -> View + Send + Sync;

/// The views of the whole table.
pub(super) struct Views {
    aliases: TableList<View>,
    open_metrics: TableList<View>,
    text_metrics: TableList<View>,
    /// Held while a view for one viewer is made.
    own: Arc<Mutex<()>>,
}

impl Views {
    pub(super) fn new(registry: &Registry, links: &Links, scrapes: &LastScrapes) -> Self {
        let view = |render: Box<Render>| {
            let render = move |table: Contents, links: &Links, _: Option<&View>| render(table.leases, links);
            TableList::new(registry.clone(), links.clone(), Some(MAX_AGE), render)
        };
        let (names, scrapes) = (registry.clone(), scrapes.clone());
        Self {
            aliases: view(Box::new(move |leases, links| aliases_json(leases, &names, links, &scrapes))),
            open_metrics: view(Box::new(|leases, links| metrics_text(leases, links, ExpositionFormat::OpenMetrics))),
            text_metrics: view(Box::new(|leases, links| metrics_text(leases, links, ExpositionFormat::Text))),
            own: Arc::default(),
        }
    }
}

/// `GET /api/v1/aliases`: an array in the order of the aliases.
pub(super) async fn aliases(State(shared): State<Arc<Shared>>, Extension(viewer): Extension<Viewer>) -> Response {
    let (names, scrapes) = (shared.registry.clone(), shared.last_scrapes.clone());
    let own = move |leases, links: &Links| aliases_json(leases, &names, links, &scrapes);
    answer(&shared, &shared.views.aliases, viewer, own, "application/json").await
}

/// `GET /metrics/aliases`: how the holder of each alias is linked. 503 until the table is loaded, as `/sd`.
pub(super) async fn metrics(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    headers: HeaderMap,
) -> Response {
    let format = ExpositionFormat::asked_for(&headers);
    let view = match format {
        ExpositionFormat::OpenMetrics => &shared.views.open_metrics,
        ExpositionFormat::Text => &shared.views.text_metrics,
    };
    let own = move |leases, links: &Links| metrics_text(leases, links, format);
    answer(&shared, view, viewer, own, format.content_type()).await
}

/// The view of everything, or `own`, made of what the viewer sees.
async fn answer(
    shared: &Shared,
    view: &TableList<View>,
    viewer: Viewer,
    own: impl Fn(Vec<Arc<Lease>>, &Links) -> View + Clone + Send + Sync + 'static,
    content_type: &'static str,
) -> Response {
    if viewer.is_scoped() {
        return match shared.readers.admit(|| seen(shared, viewer.clone(), own.clone())).await {
            Ok((view, reading)) => {
                let len = view.iter().map(|chunk| chunk.len() as u64).sum();
                let chunks = (0..view.len()).map(move |n| view[n].clone());
                list_body::answer(chunks, len, content_type, reading)
            }
            Err(no_list) => no_list.into_response(),
        };
    }
    match shared.readers.admit(|| view.current()).await {
        Ok((rendered, reading)) => {
            let len = rendered.list.iter().map(|chunk| chunk.len() as u64).sum();
            list_body::answer(chunks(rendered), len, content_type, reading)
        }
        Err(no_list) => no_list.into_response(),
    }
}

/// Made for this viewer alone.
async fn seen(
    shared: &Shared,
    viewer: Viewer,
    own: impl Fn(Vec<Arc<Lease>>, &Links) -> View + Send + 'static,
) -> Result<Arc<View>, TableUnknown> {
    let making = Arc::clone(&shared.views.own).lock_owned().await;
    let mut leases = shared.registry.snapshot()?.contents.leases;
    let links = shared.network.links().clone();
    let made = task::spawn_blocking(move || {
        let _making = making;
        let mut sight = viewer.sight();
        leases.retain(|lease| sight.lease(lease));
        Arc::new(own(leases, &links))
    });
    made.await.map_err(|_| TableUnknown::Stopped)
}

fn chunks(view: Arc<Rendered<View>>) -> impl Iterator<Item = Bytes> {
    (0..view.list.len()).map(move |n| view.list[n].clone())
}

fn aliases_json(leases: Vec<Arc<Lease>>, registry: &Registry, links: &Links, scrapes: &LastScrapes) -> View {
    let now = SystemTime::now();
    let mut chunks = Vec::new();
    let mut chunk = vec![b'['];
    for (n, lease) in leases.iter().enumerate() {
        if n > 0 {
            chunk.push(b',');
        }
        serde_json::to_writer(&mut chunk, &AliasView::new(lease, registry, links, scrapes, now))
            .expect("a view is JSON, a Vec takes all bytes");
        if chunk.len() >= CHUNK {
            chunks.push(mem::take(&mut chunk).into());
        }
    }
    chunk.push(b']');
    chunks.push(chunk.into());
    chunks
}

fn metrics_text(leases: Vec<Arc<Lease>>, links: &Links, format: ExpositionFormat) -> View {
    let linked = leases.into_iter().map(|lease| (links.path(&lease.peer), lease)).collect();
    let mut text = Bytes::from(alias_metrics::alias_metrics(linked, format));
    let mut chunks = Vec::new();
    while text.len() > CHUNK {
        chunks.push(text.split_to(CHUNK));
    }
    chunks.push(text);
    chunks
}
