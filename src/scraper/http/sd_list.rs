//! The rendered http_sd list.
//!
//! Rendered on change, not per request: each alias is a fragment that is kept as long as nothing about it changes, and
//! the whole list is kept per host that Prometheus asked for, so that a request costs a clone of [`Bytes`].
//!
//! A request never gets a list that is older than a registration acknowledged before it: the registry's generation is
//! compared each time. Only a change of a link's path may appear up to [`LINKS_PAUSE`] late, so that a thousand peers
//! that reconnect at once do not cause a thousand renderings.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap, Serializer};
use tokio::sync::watch;

use crate::{
    network::{LinkPath, Links},
    registry::{Lease, LeaseState, NotLoaded, Registry},
};

/// Prefix of the labels that only relabelling sees.
const META: &str = "__meta_narthex_";
/// How long changes of links are gathered.
pub(super) const LINKS_PAUSE: Duration = Duration::from_millis(200);
/// Hosts whose whole list is kept. One is usual, two or three happen; a stranger may ask for any number.
const MAX_HOSTS: usize = 4;

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
}

/// The list, rendered anew when it must be.
pub(super) struct SdList {
    registry: Registry,
    registry_changes: watch::Receiver<u64>,
    links: Links,
    link_changes: watch::Receiver<u64>,
    rendered: Mutex<Option<Rendered>>,
}

/// The list as of two generations.
struct Rendered {
    registry: u64,
    links: u64,
    at: Instant,
    fragments: Vec<Fragment>,
    /// The latest hosts asked for, newest first.
    whole: VecDeque<(String, Bytes)>,
}

impl SdList {
    pub(super) fn new(registry: Registry, links: Links) -> Self {
        let (registry_changes, link_changes) = (registry.changes(), links.changes());
        Self { registry, registry_changes, links, link_changes, rendered: Mutex::default() }
    }

    /// Everything, with `host` as the address to scrape.
    pub(super) fn whole(&self, host: &str) -> Result<Bytes, SdUnknown> {
        self.with_current(|rendered| rendered.whole(host))
    }

    /// The groups of the leases that `wanted` picks.
    pub(super) fn matching(&self, host: &str, wanted: impl Fn(&Lease) -> bool) -> Result<Bytes, SdUnknown> {
        self.with_current(|rendered| joined(host, rendered.fragments.iter().filter(|fragment| wanted(&fragment.lease))))
    }

    /// The lock is held while rendering: others that ask meanwhile want the very list that is being made.
    fn with_current<T>(&self, then: impl FnOnce(&mut Rendered) -> T) -> Result<T, SdUnknown> {
        if self.registry.store_failing() {
            return Err(SdUnknown::StoreFailing);
        }
        if self.registry.is_loaded() && !self.registry.is_complete() {
            return Err(SdUnknown::Incomplete);
        }
        let mut rendered = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
        let current = match rendered.take() {
            Some(rendered) if self.is_current(&rendered) => rendered,
            older => self.render(older)?,
        };
        Ok(then(rendered.insert(current)))
    }

    fn is_current(&self, rendered: &Rendered) -> bool {
        let registry = *self.registry_changes.borrow() <= rendered.registry;
        registry && (*self.link_changes.borrow() == rendered.links || rendered.at.elapsed() < LINKS_PAUSE)
    }

    fn render(&self, older: Option<Rendered>) -> Result<Rendered, NotLoaded> {
        // Read before the links are looked at, so that a change meanwhile is seen as one at the next request.
        let links = *self.link_changes.borrow();
        let snapshot = self.registry.snapshot()?;
        let now = SystemTime::now();
        let mut older = older.map(|older| older.fragments).unwrap_or_default().into_iter().peekable();
        let fragments = snapshot.leases.into_iter().map(|lease| {
            // Both are in the order of the aliases.
            while older.next_if(|older| older.lease.alias < lease.alias).is_some() {}
            let before = older.next_if(|older| older.lease.alias == lease.alias);
            Fragment::render(lease, &self.links, now, before)
        });
        let fragments = fragments.collect();
        Ok(Rendered { registry: snapshot.generation, links, at: Instant::now(), fragments, whole: VecDeque::new() })
    }
}

impl Rendered {
    fn whole(&mut self, host: &str) -> Bytes {
        if let Some((_, list)) = self.whole.iter().find(|(known, _)| known == host) {
            return list.clone();
        }
        let list = joined(host, &self.fragments);
        self.whole.truncate(MAX_HOSTS - 1);
        self.whole.push_front((host.to_owned(), list.clone()));
        list
    }
}

/// A group of the list but for the address: everything after `{"targets":["<address>"`.
struct Fragment {
    lease: Arc<Lease>,
    state: LeaseState,
    path: Option<LinkPath>,
    json: Box<[u8]>,
}

impl Fragment {
    fn render(lease: Arc<Lease>, links: &Links, now: SystemTime, before: Option<Self>) -> Self {
        let (state, path) = (lease.state(now), links.path(&lease.peer));
        let json = match before {
            Some(before) if before.state == state && before.path == path && looks_the_same(&before.lease, &lease) => {
                before.json
            }
            _ => {
                let mut json = br#"],"labels":"#.to_vec();
                let labels = GroupLabels { lease: &lease, state, path };
                serde_json::to_writer(&mut json, &labels).expect("strings are written to memory");
                json.push(b'}');
                json.into()
            }
        };
        Self { lease, state, path, json }
    }
}

/// A plain renewal makes a new lease that looks the same.
fn looks_the_same(a: &Arc<Lease>, b: &Arc<Lease>) -> bool {
    let same = || a.peer == b.peer && a.service == b.service && a.hostname == b.hostname && a.labels == b.labels;
    Arc::ptr_eq(a, b) || same()
}

fn joined<'a>(host: &str, fragments: impl IntoIterator<Item = &'a Fragment> + Clone) -> Bytes {
    let begin = format!(r#"{{"targets":[{}"#, serde_json::Value::from(host));
    let len: usize = fragments.clone().into_iter().map(|fragment| begin.len() + fragment.json.len() + 1).sum();
    let mut list = Vec::with_capacity(len + 2);
    list.push(b'[');
    for (n, fragment) in fragments.into_iter().enumerate() {
        if n > 0 {
            list.push(b',');
        }
        list.extend_from_slice(begin.as_bytes());
        list.extend_from_slice(&fragment.json);
    }
    list.push(b']');
    list.into()
}

/// The labels of a group. Prometheus refuses a whole list for one bad label name: all of these are either ours or
/// [`Labels`](crate::wire::Labels), which are checked and cannot be one of ours.
struct GroupLabels<'a> {
    lease: &'a Lease,
    state: LeaseState,
    path: Option<LinkPath>,
}

impl Serialize for GroupLabels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Lease { alias, peer, service, hostname, labels, .. } = self.lease;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("__metrics_path__", &format_args!("/scrape/{alias}/metrics"))?;
        map.serialize_entry("instance", alias)?;
        for (name, value) in [("service", service), ("hostname", hostname)] {
            if !value.is_empty() {
                map.serialize_entry(name, value)?;
                map.serialize_entry(&format_args!("{META}{name}"), value)?;
            }
        }
        for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
            map.serialize_entry(name, value)?;
            map.serialize_entry(&format_args!("{META}label_{name}"), value)?;
        }
        map.serialize_entry(&format_args!("{META}alias"), alias)?;
        map.serialize_entry(&format_args!("{META}public_key"), peer)?;
        map.serialize_entry(&format_args!("{META}path"), path_label(self.path))?;
        map.serialize_entry(&format_args!("{META}state"), self.state.as_str())?;
        map.end()
    }
}

/// `direct`, `relayed` or `none`.
pub(super) fn path_label(path: Option<LinkPath>) -> &'static str {
    path.map_or("none", LinkPath::as_str)
}
