//! A list made of the whole table of aliases.
//!
//! Rendering runs on a blocking thread, once for all requests that wait for the list.
//!
//! A request never gets a list that is older than a registration acknowledged before it: it waits for the registry's
//! generation of its arrival. Only a change of a link's path may appear up to [`LINKS_PAUSE`] late, so that a thousand
//! peers that reconnect at once do not cause a thousand renderings.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, OwnedMutexGuard, watch},
    task, time,
};

use crate::{
    network::Links,
    registry::{Contents, NotLoaded, Registry},
};

/// How long changes of links are gathered.
pub(super) const LINKS_PAUSE: Duration = Duration::from_millis(200);

/// Why there is no list. Prometheus must then keep the one that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TableUnknown {
    #[error("the table of aliases is not loaded yet")]
    NotLoaded(#[from] NotLoaded),
    /// The table may hold more than the store.
    #[error("the store of the table of aliases is failing")]
    StoreFailing,
    #[error("the store of the table of aliases was damaged: clients have not all had the time to register again")]
    Incomplete,
    /// The table is a copy, and too old.
    #[error("the shared store of the table of aliases cannot be reached, and has not been for too long")]
    Stale,
    /// The process ends.
    #[error("the list is not rendered any more")]
    Stopped,
}

/// Makes a list of the table. Gets the list before, of which it may keep what has not changed.
type Render<L> = dyn Fn(Contents, &Links, Option<&L>) -> L + Send + Sync;

/// A list, rendered anew when it must be.
pub(super) struct TableList<L> {
    renderer: Arc<Renderer<L>>,
    /// Locked while the list is rendered: those who ask meanwhile want the very list that is being made.
    latest: Arc<Mutex<Option<Arc<Rendered<L>>>>>,
}

struct Renderer<L> {
    registry: Registry,
    registry_changes: watch::Receiver<u64>,
    links: Links,
    link_changes: watch::Receiver<u64>,
    max_age: Option<Duration>,
    render: Box<Render<L>>,
}

/// The list as of two generations.
pub(super) struct Rendered<L> {
    registry: u64,
    links: u64,
    at: Instant,
    pub(super) list: L,
}

impl<L: Send + Sync + 'static> TableList<L> {
    /// A list that changes with the table and the links, and that is kept. With a `max_age` the list changes with the time,
    /// too: it is handed out for so long, and then forgotten.
    pub(super) fn new(
        registry: Registry,
        links: Links,
        max_age: Option<Duration>,
        render: impl Fn(Contents, &Links, Option<&L>) -> L + Send + Sync + 'static,
    ) -> Self {
        let (registry_changes, link_changes) = (registry.changes(), links.changes());
        let render = Box::new(render);
        let renderer = Renderer { registry, registry_changes, links, link_changes, max_age, render };
        Self { renderer: Arc::new(renderer), latest: Arc::default() }
    }

    /// The list, with everything that was acknowledged before this call.
    pub(super) async fn current(&self) -> Result<Arc<Rendered<L>>, TableUnknown> {
        let asked = *self.renderer.registry_changes.borrow();
        let latest = Arc::clone(&self.latest).lock_owned().await;
        match &*latest {
            Some(rendered) if self.renderer.is_current(rendered, asked) => Ok(Arc::clone(rendered)),
            _ => self.render(latest).await,
        }
    }

    /// Renders even if the caller goes away: the next one wants the list too.
    async fn render(
        &self,
        mut latest: OwnedMutexGuard<Option<Arc<Rendered<L>>>>,
    ) -> Result<Arc<Rendered<L>>, TableUnknown> {
        let renderer = Arc::clone(&self.renderer);
        let rendering = task::spawn_blocking(move || {
            let rendered = Arc::new(renderer.render(latest.as_deref())?);
            *latest = Some(Arc::clone(&rendered));
            Ok(rendered)
        });
        let rendered = rendering.await.map_err(|_| TableUnknown::Stopped)?;
        if let Some(max_age) = self.renderer.max_age {
            let latest = Arc::clone(&self.latest);
            tokio::spawn(async move {
                time::sleep(max_age).await;
                latest.lock().await.take_if(|rendered| rendered.at.elapsed() >= max_age);
            });
        }
        rendered
    }
}

impl<L> Renderer<L> {
    /// True if the list has what was `asked` for, and no change of links that is due.
    fn is_current(&self, rendered: &Rendered<L>, asked: u64) -> bool {
        let age = rendered.at.elapsed();
        let links = *self.link_changes.borrow() == rendered.links || age < LINKS_PAUSE;
        asked <= rendered.registry && links && self.max_age.is_none_or(|most| age < most)
    }

    fn render(&self, older: Option<&Rendered<L>>) -> Result<Rendered<L>, NotLoaded> {
        // Read before the links are looked at, so that a change meanwhile is seen as one at the next request.
        let links = *self.link_changes.borrow();
        let snapshot = self.registry.snapshot()?;
        let list = (self.render)(snapshot.contents, &self.links, older.map(|older| &older.list));
        Ok(Rendered { registry: snapshot.generation, links, at: Instant::now(), list })
    }
}
