//! Half-open connections: those that others open and that have not proved their key yet.
//!
//! Nobody is known before the handshake has ended, so places are shared out by where a connection comes from; who gets one, who
//! waits for one and who gives one up is [`pool`]'s. Addresses from which a secret was proved lately have places of their own.
//!
//! A connection gives its place up when its handshake ends, or when the future that holds its [`Place`] is aborted.

mod pool;

use std::{
    future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::AbortHandle;
use libp2p::Multiaddr;
use tokio::sync::oneshot;

use crate::{
    network::{
        address,
        config::NetworkLimits,
        links::proved::ProvedNetworks,
        patience,
        transport::{
            half_open::pool::{Entry, Full, Lost, Pool, Source},
            inbound::InboundCounters,
        },
    },
    telemetry::{Limit, Refusals},
};

/// Connections that may wait for each place: with a second for each, nobody waits longer than a handshake may take.
const WAITING: usize = 3;

/// How long a connection keeps its place though others wait: an honest handshake has mostly ended by then.
const OLD: Duration = Duration::from_secs(1);

/// How a connection came. Each way has places of its own: a sender of QUIC's first packet may have forged its address, and
/// peers behind a relay have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Stream,
    Quic,
    Relay,
}

/// The places of half-open connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct HalfOpen(Arc<Shared>);

struct Shared {
    pools: Mutex<[Pool; 3]>,
    limits: NetworkLimits,
    proved: Arc<ProvedNetworks>,
    counters: Arc<InboundCounters>,
    refusals: Arc<Refusals>,
}

/// The place of one half-open connection, or its place in the line; free again when this is dropped.
pub(crate) struct Place {
    half_open: HalfOpen,
    way: Way,
    source: Source,
    /// Of its source.
    limit: Limit,
    id: u64,
    turn: Option<oneshot::Receiver<()>>,
}

impl HalfOpen {
    pub(crate) fn new(
        limits: NetworkLimits,
        proved: Arc<ProvedNetworks>,
        counters: Arc<InboundCounters>,
        refusals: Arc<Refusals>,
    ) -> Self {
        let pool = |part: usize, waiting: usize| Pool::new((limits.half_open / part).max(1), waiting);
        // QUIC's handshake goes on whether it is polled or not: nobody could wait.
        let pools = Mutex::new([pool(2, WAITING), pool(4, 0), pool(4, WAITING)]);
        Self(Arc::new(Shared { pools, limits, proved, counters, refusals }))
    }

    /// Takes a place, or one in the line, for a connection from this address, which `abort` ends; none if there is no room.
    pub(crate) fn admit(&self, remote: &Multiaddr, abort: AbortHandle) -> Option<Place> {
        let shared = &self.0;
        let (way, source) = (Way::of(remote), address::network(remote));
        let proved = source.is_some_and(|network| shared.proved.contains(&network));
        let (limit, most) = match source {
            Some(_) if proved || address::is_private(remote) => {
                (Limit::HalfOpenPerPrivateIp, shared.limits.half_open_per_private_address)
            }
            Some(_) => (Limit::HalfOpenPerIp, shared.limits.half_open_per_address),
            None => (Limit::HalfOpen, usize::MAX),
        };
        let mut pools = self.pools();
        let (id, entry, lost) = pools[way as usize].admit(source, proved, most, abort);
        if let Some(Lost { evicted, full }) = lost {
            shared.lost(evicted, full, limit, source);
        }
        let turn = match entry {
            Entry::Placed => None,
            Entry::Waits(turn) => Some(turn),
            Entry::Refused => return None,
        };
        shared.counters.set_handshakes(pools.iter().map(Pool::taken).sum());
        Some(Place { half_open: self.clone(), way, source, limit, id, turn })
    }

    fn pools(&self) -> MutexGuard<'_, [Pool; 3]> {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Counts a connection that made room, or found none, at the limit of its source or of all.
    fn lost(&self, evicted: bool, full: Full, of_source: Limit, source: Source) {
        self.counters.no_room(evicted);
        let limit = if full == Full::Source { of_source } else { Limit::HalfOpen };
        let what = source.map_or_else(|| "a relayed peer".to_owned(), |network| network.to_string());
        self.refusals.count(limit, format_args!("half-open connection from {what}"));
    }
}

impl Place {
    /// Returns when it is this connection's turn to begin.
    pub(crate) async fn turn(&mut self) {
        if let Some(turn) = self.turn.take() {
            let _ = turn.await; // an error only for a connection that is aborted
        }
    }

    /// Returns when the place has gone to one that waited for it: a second after the begin at the soonest, later where the
    /// process is behind with its work. Its holder is to end then.
    pub(crate) async fn taken_over(&self) {
        patience::sleep(OLD).await;
        let taken = self.half_open.pools()[self.way as usize].grow_old(self.source, self.id);
        match taken {
            Some(full) => self.half_open.0.lost(true, full, self.limit, self.source),
            None => future::pending().await,
        }
    }

    /// The handshake has ended well.
    pub(crate) fn proved(self) {
        self.half_open.pools()[self.way as usize].proved(self.source);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut pools = self.half_open.pools();
        pools[self.way as usize].leave(self.source, self.id);
        self.half_open.0.counters.set_handshakes(pools.iter().map(Pool::taken).sum());
    }
}

impl Way {
    fn of(remote: &Multiaddr) -> Self {
        match address::ip(remote) {
            None => Self::Relay,
            Some(_) if address::is_tcp(remote) => Self::Stream,
            Some(_) => Self::Quic,
        }
    }
}

#[cfg(all(test, feature = "scraper"))]
mod tests;
