//! Connections on their way in, and those of each source address, which `libp2p-connection-limits` does not count.
//!
//! Connections are refused before any handshake work, and counted; the log warns now and then. Private and loopback sources have no limit
//! per address: there, one address is often a whole office behind a router of ours, and a limit cuts off the fleet it should
//! protect.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

#[cfg(any(feature = "scraper", feature = "node"))]
use libp2p::memory_connection_limits::MemoryUsageLimitExceeded;
use libp2p::{
    Multiaddr, connection_limits,
    swarm::{ConnectionDenied, ConnectionId, FromSwarm, ListenError, dummy},
};
use tokio::time::Instant;

use crate::{
    network::{
        address,
        error::innermost,
        swarm::wrapped::{NewConnection, Wrap},
    },
    telemetry::{Limit, Refusals},
};

/// Strangers could fill the log.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Connections that others open, since the start.
#[cfg(any(feature = "scraper", feature = "node"))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InboundCounts {
    pub(crate) handshakes: usize,
    pub(crate) handshakes_peak: usize,
    /// Refused because too many were in their handshake.
    pub(crate) refused_handshakes: u64,
    /// Refused because their address has too many already.
    pub(crate) refused_address: u64,
    /// Refused because there are too many, or too many of that peer.
    pub(crate) refused_connections: u64,
    pub(crate) refused_memory: u64,
}

#[derive(Default)]
pub(crate) struct InboundCounters {
    handshakes: AtomicUsize,
    handshakes_peak: AtomicUsize,
    refused_handshakes: AtomicU64,
    refused_address: AtomicU64,
    refused_connections: AtomicU64,
    #[cfg(any(feature = "scraper", feature = "node"))]
    refused_memory: AtomicU64,
}

impl InboundCounters {
    #[cfg(any(feature = "scraper", feature = "node"))]
    pub(crate) fn read(&self) -> InboundCounts {
        InboundCounts {
            handshakes: self.handshakes.load(Relaxed),
            handshakes_peak: self.handshakes_peak.load(Relaxed),
            refused_handshakes: self.refused_handshakes.load(Relaxed),
            refused_address: self.refused_address.load(Relaxed),
            refused_connections: self.refused_connections.load(Relaxed),
            refused_memory: self.refused_memory.load(Relaxed),
        }
    }

    fn set_handshakes(&self, count: usize) {
        self.handshakes.store(count, Relaxed);
        self.handshakes_peak.fetch_max(count, Relaxed);
    }

    /// The counter for a refusal by any behaviour; none for a refusal that has nothing to do with load.
    fn of(&self, cause: &ConnectionDenied) -> Option<&AtomicU64> {
        match cause.downcast_ref::<TooMany>() {
            Some(TooMany::Handshakes { .. }) => Some(&self.refused_handshakes),
            Some(TooMany::OfAddress { .. }) => Some(&self.refused_address),
            None if cause.downcast_ref::<connection_limits::Exceeded>().is_some() => Some(&self.refused_connections),
            #[cfg(any(feature = "scraper", feature = "node"))]
            None if cause.downcast_ref::<MemoryUsageLimitExceeded>().is_some() => Some(&self.refused_memory),
            None => None,
        }
    }
}

/// Denies inbound connections beyond a number in their handshake, and beyond a number per source address (IPv6: per /64).
pub(crate) struct Inbound {
    most_handshakes: usize,
    most_of_address: usize,
    /// Inbound connections, from before their handshake until they are closed.
    admitted: HashMap<ConnectionId, Admitted>,
    handshakes: usize,
    of_address: HashMap<IpAddr, usize>,
    counters: Arc<InboundCounters>,
    refusals: Arc<Refusals>,
    warned_at: Option<Instant>,
}

struct Admitted {
    in_handshake: bool,
    /// The network that the connection comes from; none for private ones, which are not counted.
    from: Option<IpAddr>,
}

#[derive(Debug, thiserror::Error)]
enum TooMany {
    #[error("{limit} connections are in their handshake")]
    Handshakes { limit: usize },
    #[error("{ip} has {limit} connections already, as many as an address may have")]
    OfAddress { ip: IpAddr, limit: usize },
}

impl Inbound {
    pub(crate) fn new(
        most_handshakes: usize,
        most_of_address: usize,
        counters: Arc<InboundCounters>,
        refusals: Arc<Refusals>,
    ) -> Self {
        Self {
            most_handshakes,
            most_of_address,
            admitted: HashMap::new(),
            handshakes: 0,
            of_address: HashMap::new(),
            counters,
            refusals,
            warned_at: None,
        }
    }

    fn admit(&mut self, id: ConnectionId, remote: &Multiaddr) -> Result<(), TooMany> {
        if self.handshakes >= self.most_handshakes {
            return Err(TooMany::Handshakes { limit: self.most_handshakes });
        }
        let from = network(remote).filter(|_| !address::is_private(remote));
        if let Some(ip) = from {
            let count = self.of_address.entry(ip).or_default();
            if *count >= self.most_of_address {
                return Err(TooMany::OfAddress { ip, limit: self.most_of_address });
            }
            *count += 1;
        }
        self.admitted.insert(id, Admitted { in_handshake: true, from });
        self.handshakes += 1;
        self.counters.set_handshakes(self.handshakes);
        Ok(())
    }

    fn handshake_ended(&mut self, id: ConnectionId) {
        if let Some(admitted) = self.admitted.get_mut(&id).filter(|admitted| admitted.in_handshake) {
            admitted.in_handshake = false;
            self.handshakes -= 1;
            self.counters.set_handshakes(self.handshakes);
        }
    }

    fn forget(&mut self, id: ConnectionId) {
        let Some(ip) = self.admitted.remove(&id).and_then(|admitted| admitted.from) else { return };
        if let Some(count) = self.of_address.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(&ip);
            }
        }
    }

    fn note_refusal(&mut self, from: &Multiaddr, cause: &ConnectionDenied) {
        let Some(counter) = self.counters.of(cause) else { return };
        counter.fetch_add(1, Relaxed);
        if let Some(TooMany::OfAddress { ip, .. }) = cause.downcast_ref::<TooMany>() {
            return self.refusals.count(Limit::ConnectionsPerIp, ip);
        }
        if self.warned_at.is_none_or(|at| at.elapsed() > WARN_EVERY) {
            self.warned_at = Some(Instant::now());
            let why = innermost(cause);
            tracing::warn!(from = %address::display(from), why, "connections are refused; the next such line in a minute");
        }
    }
}

/// The network that a peer comes from: the owner of an IPv6 address usually has its whole /64.
pub(crate) fn network(remote: &Multiaddr) -> Option<IpAddr> {
    Some(match address::ip(remote)? {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    })
}

impl Wrap for Inbound {
    type Handler = dummy::ConnectionHandler;
    type Event = Infallible;

    fn on_pending_inbound(&mut self, id: ConnectionId, remote: &Multiaddr) -> Result<(), ConnectionDenied> {
        self.admit(id, remote).map_err(ConnectionDenied::new)
    }

    fn handler(&mut self, connection: NewConnection<'_>) -> Result<Self::Handler, ConnectionDenied> {
        self.handshake_ended(connection.id);
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(closed) => self.forget(closed.connection_id),
            FromSwarm::ListenFailure(failure) => {
                self.handshake_ended(failure.connection_id);
                self.forget(failure.connection_id);
                if let ListenError::Denied { cause } = failure.error {
                    self.note_refusal(failure.send_back_addr, cause);
                }
            }
            _ => {}
        }
    }
}

#[cfg(all(test, any(feature = "scraper", feature = "node")))]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().expect("multiaddr")
    }

    fn limits(most_handshakes: usize, most_of_address: usize) -> Inbound {
        Inbound::new(most_handshakes, most_of_address, Arc::default(), Arc::new(Refusals::new()))
    }

    fn refusal(result: Result<(), TooMany>) -> ConnectionDenied {
        ConnectionDenied::new(result.expect_err("refused"))
    }

    #[test]
    fn the_connection_past_the_limit_is_refused_until_one_ends() {
        let mut limits = limits(9, 2);
        let remote = addr("/ip4/203.0.113.7/tcp/1");
        let ids = [1, 2, 3].map(ConnectionId::new_unchecked);
        assert!(limits.admit(ids[0], &remote).is_ok() && limits.admit(ids[1], &remote).is_ok());
        let refused = refusal(limits.admit(ids[2], &remote));
        limits.note_refusal(&remote, &refused);
        assert_eq!(limits.counters.read().refused_address, 1);
        assert!(limits.admit(ids[2], &addr("/ip4/203.0.113.8/tcp/1")).is_ok());
        limits.forget(ids[0]);
        assert!(limits.admit(ids[0], &remote).is_ok());
    }

    #[test]
    fn the_handshake_past_the_limit_is_refused_until_one_ends() {
        let mut limits = limits(2, 9);
        let remote = addr("/ip4/127.0.0.1/tcp/1");
        let ids = [1, 2, 3].map(ConnectionId::new_unchecked);
        assert!(limits.admit(ids[0], &remote).is_ok() && limits.admit(ids[1], &remote).is_ok());
        let refused = refusal(limits.admit(ids[2], &remote));
        limits.note_refusal(&remote, &refused);
        limits.handshake_ended(ids[0]);
        assert!(limits.admit(ids[2], &remote).is_ok());
        limits.handshake_ended(ids[1]);
        let counts = limits.counters.read();
        assert_eq!((counts.handshakes, counts.handshakes_peak, counts.refused_handshakes), (1, 2, 1));
    }

    #[test]
    fn addresses_of_one_v6_network_are_counted_together() {
        let mut limits = limits(9, 1);
        assert!(limits.admit(ConnectionId::new_unchecked(1), &addr("/ip6/2001:db8::1/tcp/1")).is_ok());
        assert!(limits.admit(ConnectionId::new_unchecked(2), &addr("/ip6/2001:db8::2/tcp/1")).is_err());
    }

    #[test]
    fn private_and_loopback_sources_are_not_counted() {
        let mut limits = limits(9, 0);
        for remote in ["/ip4/127.0.0.1/tcp/1", "/ip4/10.1.2.3/udp/1/quic-v1", "/ip6/::1/tcp/1", "/ip6/fd00::1/tcp/1"] {
            assert!(limits.admit(ConnectionId::new_unchecked(1), &addr(remote)).is_ok(), "{remote}");
        }
        assert!(limits.of_address.is_empty());
    }
}
