//! The group: the scrapers that share one table, each a *member*.
//!
//! - [`Member`]: a scraper of the group, and where it can be dialled. Who they are comes from outside, as [`Members`].
//! - [`Group`]: the other members, with a link kept to each (`keep`), and what they are asked (`ask`).
//! - [`GroupPuller`] (`forward`): pulls from holders that are linked to another member, through that member.
//! - `presence`: whether holders are linked to any member, for the alias policy.
//! - [`serve`] (`answer`): answers what the others ask, from our own links alone: nothing is forwarded twice.
//!
//! All of this goes from peer to peer: links, forwards and presence work while nobody tells who the members are. A scraper
//! that was told of none keeps no link, and asks nobody.

mod answer;
mod ask;
mod forward;
mod keep;
mod member;
mod presence;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{metrics::ScraperMetrics, shares::Shares};
use crate::{
    http::{Pool, PoolLimits},
    identity::PublicKey,
    network::{Admitted, LinkId, Network},
};

pub(super) use answer::{AnswerLimits, serve};
pub(super) use forward::GroupPuller;
pub use member::{Member, Members};
pub(super) use presence::Presences;

/// Members beyond it are left out, so that no list of them can make a scraper dial the world.
const MAX_MEMBERS: usize = 64;
/// Forwards to one member at once; further ones wait. The member has as many for us on the same connection, which ends if
/// there are more than 96 streams on it.
const MAX_FORWARDS: usize = 40;
/// Questions for presence to one member at once; further ones wait.
const MAX_QUESTIONS: usize = 4;
/// Idle streams to one member.
const POOL: PoolLimits = PoolLimits { max_idle: MAX_FORWARDS, idle_for: Duration::from_secs(90) };

/// The other members of the group. Cheap to clone.
#[derive(Clone)]
pub(super) struct Group(Arc<Inner>);

struct Inner {
    own: PublicKey,
    network: Network,
    others: ArcSwap<Vec<Other>>,
    /// Who is answered: the keys of the others.
    admitted: Admitted,
    streams: Pool<PublicKey, LinkId>,
    /// The forwards of each member at once, shared out among the holders that they are for.
    forwards: Arc<Shares<PublicKey, PublicKey>>,
    questions: Arc<Shares<PublicKey, ()>>,
    given_up: TaskTracker,
    /// The member that last had a link to a holder.
    answered_last: Mutex<HashMap<PublicKey, PublicKey>>,
    started: Instant,
    takeover_grace: Duration,
    metrics: Arc<ScraperMetrics>,
}

/// Another member.
#[derive(Clone, Copy)]
struct Other {
    key: PublicKey,
    /// Since when we know of it.
    since: Instant,
}

impl Group {
    /// Without a member, until [`keep`](Self::keep) runs. `takeover_grace` is the alias policy's.
    pub(super) fn new(
        own: PublicKey,
        network: Network,
        admitted: Admitted,
        takeover_grace: Duration,
        metrics: Arc<ScraperMetrics>,
    ) -> Self {
        let links = network.links().clone();
        Self(Arc::new(Inner {
            own,
            network,
            others: ArcSwap::default(),
            admitted,
            streams: Pool::new(POOL, move |member, link| links.best(member) == Some(*link)),
            forwards: Shares::new(usize::MAX, MAX_FORWARDS),
            questions: Shares::new(usize::MAX, MAX_QUESTIONS),
            given_up: TaskTracker::new(),
            answered_last: Mutex::default(),
            started: Instant::now(),
            takeover_grace,
            metrics,
        }))
    }

    /// True if no other member is known.
    pub(super) fn is_alone(&self) -> bool {
        self.0.others.load().is_empty()
    }

    /// The keys of the other members.
    pub(super) fn keys(&self) -> HashSet<PublicKey> {
        self.0.others.load().iter().map(|other| other.key).collect()
    }

    fn is_linked(&self, member: &PublicKey) -> bool {
        self.0.network.links().path(member).is_some()
    }
}
