//! The rendered http_sd list.
//!
//! Each alias is a fragment that is kept as long as nothing about it changes; the list is the fragments, shared by all
//! requests, and [`SdChunks`](super::sd_chunks::SdChunks) puts the address to scrape between them while it is sent.

use std::{sync::Arc, time::SystemTime};

use super::table_list::{Rendered, TableList, TableUnknown};
use crate::{
    network::{LinkPath, Links},
    registry::{Lease, LeaseState, Listing, Registry},
};

/// The list, rendered anew when it must be, while the table is known for certain.
pub(super) struct SdList {
    registry: Registry,
    list: TableList<Vec<Fragment>>,
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
        let list = TableList::new(registry.clone(), links, None, render);
        Self { registry, list }
    }

    /// The list, with everything that was acknowledged before this call.
    pub(super) async fn current(&self) -> Result<Arc<Rendered<Vec<Fragment>>>, TableUnknown> {
        if self.registry.store_failing() {
            return Err(TableUnknown::StoreFailing);
        }
        if self.registry.is_loaded() && !self.registry.is_complete() {
            return Err(TableUnknown::Incomplete);
        }
        self.list.current().await
    }
}

fn render(leases: Vec<Arc<Lease>>, links: &Links, older: Option<&Vec<Fragment>>) -> Vec<Fragment> {
    let now = SystemTime::now();
    let mut older = older.map_or(&[][..], Vec::as_slice).iter().peekable();
    let fragments = leases.into_iter().map(|lease| {
        // Both are in the order of the aliases.
        while older.next_if(|older| older.lease.alias < lease.alias).is_some() {}
        let before = older.next_if(|older| older.lease.alias == lease.alias);
        Fragment::render(lease, links, now, before)
    });
    fragments.collect()
}

/// True if both are the same list, to the byte.
pub(super) fn is_same(one: &[Fragment], other: &[Fragment]) -> bool {
    let mut pairs = one.iter().zip(other);
    one.len() == other.len() && pairs.all(|(one, other)| Arc::ptr_eq(&one.json, &other.json))
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
