//! The rendered http_sd list.
//!
//! Each alias is a fragment that is kept as long as nothing about it changes; the list is the fragments, shared by all
//! requests, and [`SdChunks`](super::sd_chunks::SdChunks) puts the address to scrape between them while it is sent. Beacons
//! follow: their fragments name the addresses themselves.

use std::{sync::Arc, time::SystemTime};

use super::table_list::{Rendered, TableList, TableUnknown};
use crate::{
    access::SecretName,
    network::{LinkPath, Links},
    registry::{Beacon, Contents, Lease, LeaseState, ListedGroup, Listing, NotLoaded, Registry},
};

/// The list, rendered anew when it must be, while the table is known for certain.
pub(super) struct SdList {
    registry: Registry,
    list: TableList<Vec<Fragment>>,
}

/// A group of the list.
#[derive(Clone)]
pub(super) struct Fragment {
    pub(super) of: Listed,
    /// Of an alias everything after `{"targets":["<address>"`. Lists share what did not change.
    pub(super) json: Arc<[u8]>,
}

/// What a fragment is made of.
#[derive(Clone)]
pub(super) enum Listed {
    /// With the name of the secret that the lease was registered with.
    Alias {
        lease: Arc<Lease>,
        state: LeaseState,
        path: Option<LinkPath>,
        secret: Option<SecretName>,
    },
    Beacon {
        beacon: Arc<Beacon>,
        group: ListedGroup,
    },
}

impl SdList {
    pub(super) fn new(registry: Registry, links: Links) -> Self {
        let names = registry.clone();
        let render = move |table: Contents, links: &Links, older: Option<&Vec<Fragment>>| {
            render(table, links, |lease| names.secret_name(lease), older)
        };
        let list = TableList::new(registry.clone(), links, None, render);
        Self { registry, list }
    }

    /// The list, with everything that was acknowledged before this call.
    pub(super) async fn current(&self) -> Result<Arc<Rendered<Vec<Fragment>>>, TableUnknown> {
        // Else it could be loaded, and found damaged, between the questions and the list.
        if !self.registry.is_loaded() {
            return Err(NotLoaded.into());
        }
        if self.registry.is_stale() {
            return Err(TableUnknown::Stale);
        }
        // A shared table is that of the other scrapers, too.
        if self.registry.store_failing() && !self.registry.is_shared() {
            return Err(TableUnknown::StoreFailing);
        }
        if !self.registry.is_complete() {
            return Err(TableUnknown::Incomplete);
        }
        self.list.current().await
    }
}

fn render(
    table: Contents,
    links: &Links,
    name_of: impl Fn(&Lease) -> Option<SecretName>,
    older: Option<&Vec<Fragment>>,
) -> Vec<Fragment> {
    let now = SystemTime::now();
    let mut older = older.map_or(&[][..], Vec::as_slice).iter().filter_map(Before::of).peekable();
    let listed = table.leases.into_iter().filter(|lease| lease.listed);
    let aliases = listed.map(|lease| {
        // Both are in the order of the aliases.
        while older.next_if(|older| older.lease.alias < lease.alias).is_some() {}
        let before = older.next_if(|older| older.lease.alias == lease.alias);
        let secret = name_of(&lease);
        Fragment::render(lease, links, secret, now, before)
    });
    let mut fragments: Vec<_> = aliases.collect();
    for beacon in &table.beacons {
        fragments.extend(beacon.groups.iter().flatten().map(|group| Fragment {
            of: Listed::Beacon { beacon: Arc::clone(beacon), group: group.clone() },
            json: Arc::clone(&group.json),
        }));
    }
    fragments
}

/// The fragment of an alias in the list before.
struct Before<'a> {
    lease: &'a Arc<Lease>,
    state: LeaseState,
    path: Option<LinkPath>,
    secret: Option<&'a SecretName>,
    json: &'a Arc<[u8]>,
}

impl<'a> Before<'a> {
    fn of(fragment: &'a Fragment) -> Option<Self> {
        match &fragment.of {
            Listed::Alias { lease, state, path, secret } => {
                Some(Self { lease, state: *state, path: *path, secret: secret.as_ref(), json: &fragment.json })
            }
            Listed::Beacon { .. } => None,
        }
    }
}

/// True if both are the same list, to the byte.
pub(super) fn is_same(one: &[Fragment], other: &[Fragment]) -> bool {
    let mut pairs = one.iter().zip(other);
    one.len() == other.len() && pairs.all(|(one, other)| Arc::ptr_eq(&one.json, &other.json))
}

impl Fragment {
    /// True if it holds a token.
    pub(super) fn is_secret(&self) -> bool {
        matches!(&self.of, Listed::Beacon { group, .. } if group.is_secret())
    }

    fn render(
        lease: Arc<Lease>,
        links: &Links,
        secret: Option<SecretName>,
        now: SystemTime,
        before: Option<Before<'_>>,
    ) -> Self {
        let (state, path) = (lease.state(now), links.path(&lease.peer));
        let json = match before {
            Some(before)
                if (before.state, before.path, before.secret) == (state, path, secret.as_ref())
                    && looks_the_same(before.lease, &lease) =>
            {
                Arc::clone(before.json)
            }
            _ => Listing::new(&lease, state, path, secret.as_ref()).json().into(),
        };
        Self { of: Listed::Alias { lease, state, path, secret }, json }
    }
}

/// A plain renewal makes a new lease that looks the same.
fn looks_the_same(a: &Arc<Lease>, b: &Arc<Lease>) -> bool {
    let same = || a.peer == b.peer && a.service == b.service && a.hostname == b.hostname && a.labels == b.labels;
    Arc::ptr_eq(a, b) || same()
}
