//! Who may have a register exchange: few at once, so that nobody keeps the others out.
//!
//! A peer is known if it holds an alias. Known peers and strangers have places of their own. A peer waits until its first
//! message is whole, and takes a place only then; peers that are silent, or many at one source, cost only each other a
//! place. A newcomer that waits displaces one that has waited, as a peer that means well is done within two round trips.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{
    config::RegistrationLimits,
    metrics::ScraperMetrics,
    places::{Asked, Full, Occupant, Places, decrease},
};
use crate::{
    identity::PublicKey,
    network::{LinkId, Links, Source},
    registry::Registry,
    telemetry::{Limit, Refusals},
};

/// Waiting streams for each place that a source may have.
const WAITING_PER_PLACE: usize = 2;
/// From a stream's opening to the last byte of a stranger's first message, which both come in one flight.
const FIRST_MESSAGE: Duration = Duration::from_secs(1);

/// All exchanges, and their limits.
pub(super) struct Turns {
    links: Links,
    registry: Registry,
    limits: RegistrationLimits,
    metrics: Arc<ScraperMetrics>,
    refusals: Arc<Refusals>,
    state: Mutex<State>,
}

struct State {
    next: u64,
    /// Of strangers, and of known peers.
    classes: [Class; 2],
    /// Turns of each peer.
    of_peer: HashMap<PublicKey, usize>,
}

struct Class {
    /// Streams whose first message is not whole.
    waiting: Places<Source, PublicKey>,
    placed: Places<Source, PublicKey>,
}

impl Turns {
    pub(super) fn new(
        links: Links,
        registry: Registry,
        limits: RegistrationLimits,
        metrics: Arc<ScraperMetrics>,
        refusals: Arc<Refusals>,
    ) -> Self {
        let class = || Class { waiting: Places::new(limits.waiting), placed: Places::new(limits.in_all) };
        let state = State { next: 0, classes: [class(), class()], of_peer: HashMap::new() };
        Self { links, registry, limits, metrics, refusals, state: Mutex::new(state) }
    }

    /// A turn for a stream that a peer has opened; none if the peer has as many as it may have.
    pub(super) fn begin(self: &Arc<Self>, peer: PublicKey, link: LinkId) -> Option<Turn> {
        let (source, known) = (self.links.source(link)?, self.registry.is_holder(&peer));
        let most_of_peer = if known { self.limits.per_peer } else { 1 };
        let Some(id) = self.state().number(peer, most_of_peer) else {
            if known {
                self.refusals.count(Limit::RegistrationsPerPeer, peer);
            }
            return None;
        };
        let occupant = Occupant { group: source, member: peer, evicted: CancellationToken::new() };
        let turn = Turn { turns: Arc::clone(self), id, link, known, occupant, placed: false };
        let most = turn.most_of_source().saturating_mul(WAITING_PER_PLACE);
        let waits = self.state().class(known).waiting.insist(turn.id, turn.occupant.clone(), most);
        if let Some(full) = waits {
            turn.count(full, Limit::WaitingRegistrations);
        }
        Some(turn)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The number of a new turn of the peer; none if the peer has as many as it may have.
    fn number(&mut self, peer: PublicKey, most: usize) -> Option<u64> {
        let count = self.of_peer.get(&peer).copied().unwrap_or_default();
        if count >= most {
            return None;
        }
        self.of_peer.insert(peer, count + 1);
        self.next += 1;
        Some(self.next)
    }

    fn class(&mut self, known: bool) -> &mut Class {
        &mut self.classes[usize::from(known)]
    }
}

/// One of the few exchanges that a peer may have under way.
pub(super) struct Turn {
    turns: Arc<Turns>,
    id: u64,
    link: LinkId,
    known: bool,
    occupant: Occupant<Source, PublicKey>,
    placed: bool,
}

impl Turn {
    /// Cancelled when the turn goes to another peer.
    pub(super) fn evicted(&self) -> CancellationToken {
        self.occupant.evicted.clone()
    }

    /// Waits until the first message was read. None if a stranger was too slow.
    pub(super) async fn wait_for<T>(&self, first: impl Future<Output = T>) -> Option<T> {
        match self.known {
            true => Some(first.await),
            false => time::timeout(FIRST_MESSAGE, first).await.ok(),
        }
    }

    /// Takes a place; false if there is none. A peer that wants one is not taken for one that proves nothing.
    pub(super) fn take_place(&mut self) -> bool {
        self.turns.links.registering(self.link);
        let placed = {
            let mut state = self.turns.state();
            let class = state.class(self.known);
            class.waiting.leave(self.id);
            class.placed.ask(self.id, self.occupant.clone(), self.most_of_source())
        };
        if let Asked::Displaced(full) | Asked::Refused(full) = placed {
            self.count(full, Limit::Registrations);
        }
        self.placed = !matches!(placed, Asked::Refused(_));
        if self.placed {
            self.turns.metrics.registration_began();
        }
        self.placed
    }

    fn most_of_source(&self) -> usize {
        let limits = &self.turns.limits;
        match self.limit_of_source() {
            Limit::SharedStrangers => limits.strangers_per_shared_address,
            Limit::Strangers => limits.strangers_per_address,
            _ => limits.per_address,
        }
    }

    fn limit_of_source(&self) -> Limit {
        match (self.known, self.occupant.group.is_shared()) {
            (true, _) => Limit::RegistrationsPerIp,
            (false, true) => Limit::SharedStrangers,
            (false, false) => Limit::Strangers,
        }
    }

    fn count(&self, full: Full, in_all: Limit) {
        let limit = match full {
            Full::Group => self.limit_of_source(),
            Full::All => in_all,
        };
        self.turns.refusals.count(limit, self.occupant.group);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        let class = state.class(self.known);
        class.waiting.leave(self.id);
        class.placed.leave(self.id);
        if self.placed {
            self.turns.metrics.registration_ended();
        }
        decrease(&mut state.of_peer, self.occupant.member);
    }
}
