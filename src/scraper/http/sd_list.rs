//! The rendered http_sd list.
//!
//! Each alias is a fragment that is kept as long as nothing about it changes; the list is the fragments, shared by all
//! requests, and [`ListBody`] puts the address to scrape between them while it is sent. Rendering runs on a blocking
//! thread, once for all requests that wait for it.
//!
//! A request never gets a list that is older than a registration acknowledged before it: it waits for the registry's
//! generation of its arrival. Only a change of a link's path may appear up to [`LINKS_PAUSE`] late, so that a thousand
//! peers that reconnect at once do not cause a thousand renderings.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{Mutex, OwnedMutexGuard, watch},
    task,
};

use crate::{
    network::{LinkPath, Links},
    registry::{Lease, LeaseState, Listing, NotLoaded, Registry},
};

/// How long changes of links are gathered.
pub(super) const LINKS_PAUSE: Duration = Duration::from_millis(200);

/// Why there is no list. Prometheus must then keep the one that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SdUnknown {
    #[error("the table of aliases is not loaded yet")]
    NotLoaded(#[from] NotLoaded),
    /// The table may hold more than the store.
    #[error("the store of the table of aliases is failing")]
    StoreFailing,
    #[error("the store of the table of aliases was damaged: clients have not all had the time to register again")]
    Incomplete,
    /// The process ends.
    #[error("the list is not rendered any more")]
    Stopped,
}

/// The list, rendered anew when it must be.
pub(super) struct SdList {
    renderer: Arc<Renderer>,
    /// Locked while the list is rendered: those who ask meanwhile want the very list that is being made.
    latest: Arc<Mutex<Option<Arc<Rendered>>>>,
}

struct Renderer {
    registry: Registry,
    registry_changes: watch::Receiver<u64>,
    links: Links,
    link_changes: watch::Receiver<u64>,
}

/// The list as of two generations.
pub(super) struct Rendered {
    registry: u64,
    links: u64,
    at: Instant,
    pub(super) fragments: Vec<Fragment>,
}

/// A group of the list.
#[derive(Clone)]
pub(super) struct Fragment {
    pub(super) lease: Arc<Lease>,
    state: LeaseState,
    path: Option<LinkPath>,
    /// Everything after `{"targets":["<address>"`. Lists share what did not change.
    pub(super) json: Arc<[u8]>,
}

impl SdList {
    pub(super) fn new(registry: Registry, links: Links) -> Self {
        let (registry_changes, link_changes) = (registry.changes(), links.changes());
        let renderer = Renderer { registry, registry_changes, links, link_changes };
        Self { renderer: Arc::new(renderer), latest: Arc::default() }
    }

    /// The list, with everything that was acknowledged before this call.
    pub(super) async fn current(&self) -> Result<Arc<Rendered>, SdUnknown> {
        let asked = *self.renderer.registry_changes.borrow();
        self.renderer.check()?;
        let latest = Arc::clone(&self.latest).lock_owned().await;
        match &*latest {
            Some(rendered) if self.renderer.is_current(rendered, asked) => Ok(Arc::clone(rendered)),
            _ => self.render(latest).await,
        }
    }

    /// Renders even if the caller goes away: the next one wants the list too.
    async fn render(&self, mut latest: OwnedMutexGuard<Option<Arc<Rendered>>>) -> Result<Arc<Rendered>, SdUnknown> {
        let renderer = Arc::clone(&self.renderer);
        let rendering = task::spawn_blocking(move || {
            let rendered = Arc::new(renderer.render(latest.as_deref())?);
            *latest = Some(Arc::clone(&rendered));
            Ok(rendered)
        });
        rendering.await.map_err(|_| SdUnknown::Stopped)?
    }
}

impl Renderer {
    fn check(&self) -> Result<(), SdUnknown> {
        if self.registry.store_failing() {
            return Err(SdUnknown::StoreFailing);
        }
        if self.registry.is_loaded() && !self.registry.is_complete() {
            return Err(SdUnknown::Incomplete);
        }
        Ok(())
    }

    /// True if the list has what was `asked` for, and no change of links that is due.
    fn is_current(&self, rendered: &Rendered, asked: u64) -> bool {
        let links = *self.link_changes.borrow() == rendered.links || rendered.at.elapsed() < LINKS_PAUSE;
        asked <= rendered.registry && links
    }

    fn render(&self, older: Option<&Rendered>) -> Result<Rendered, NotLoaded> {
        // Read before the links are looked at, so that a change meanwhile is seen as one at the next request.
        let links = *self.link_changes.borrow();
        let snapshot = self.registry.snapshot()?;
        let now = SystemTime::now();
        let mut older = older.map_or(&[][..], |older| &older.fragments).iter().peekable();
        let fragments = snapshot.leases.into_iter().map(|lease| {
            // Both are in the order of the aliases.
            while older.next_if(|older| older.lease.alias < lease.alias).is_some() {}
            let before = older.next_if(|older| older.lease.alias == lease.alias);
            Fragment::render(lease, &self.links, now, before)
        });
        let fragments = fragments.collect();
        Ok(Rendered { registry: snapshot.generation, links, at: Instant::now(), fragments })
    }
}

impl Rendered {
    /// True if both are the same list, to the byte.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let mut pairs = self.fragments.iter().zip(&other.fragments);
        self.fragments.len() == other.fragments.len() && pairs.all(|(one, other)| Arc::ptr_eq(&one.json, &other.json))
    }
}

impl Fragment {
    fn render(lease: Arc<Lease>, links: &Links, now: SystemTime, before: Option<&Self>) -> Self {
        let (state, path) = (lease.state(now), links.path(&lease.peer));
        let json = match before {
            Some(before) if before.state == state && before.path == path && looks_the_same(&before.lease, &lease) => {
                Arc::clone(&before.json)
            }
            _ => Listing::new(&lease, state, path).json().into(),
        };
        Self { lease, state, path, json }
    }
}

/// A plain renewal makes a new lease that looks the same.
fn looks_the_same(a: &Arc<Lease>, b: &Arc<Lease>) -> bool {
    let same = || a.peer == b.peer && a.service == b.service && a.hostname == b.hostname && a.labels == b.labels;
    Arc::ptr_eq(a, b) || same()
}
