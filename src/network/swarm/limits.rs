//! Established connections of each source address, which `libp2p-connection-limits` does not count.
//!
//! A connection of an address that has too many is refused before any handshake work, or when its handshake ends. Private and
//! loopback addresses may have more: there, one address is often a whole office behind a router of ours, and a small limit
//! cuts off the fleet it should protect.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
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
        config::NetworkLimits,
        error::innermost,
        swarm::wrapped::{NewConnection, Wrap},
        transport::inbound::InboundCounters,
    },
    telemetry::{Limit, Refusals},
};

/// Strangers could fill the log.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Denies inbound connections beyond a number per source address (IPv6: per /64).
pub(crate) struct Inbound {
    limits: NetworkLimits,
    /// Where each established inbound connection comes from.
    established: HashMap<ConnectionId, IpAddr>,
    of_address: HashMap<IpAddr, usize>,
    counters: Arc<InboundCounters>,
    refusals: Arc<Refusals>,
    warned_at: Option<Instant>,
}

#[derive(Debug, thiserror::Error)]
#[error("{ip} has {most} connections already, as many as an address may have")]
struct TooMany {
    ip: IpAddr,
    most: usize,
    limit: Limit,
}

impl Inbound {
    pub(crate) fn new(limits: NetworkLimits, counters: Arc<InboundCounters>, refusals: Arc<Refusals>) -> Self {
        Self { limits, established: HashMap::new(), of_address: HashMap::new(), counters, refusals, warned_at: None }
    }

    /// The network that a connection comes from, if that may have one more; none for a relayed one, which has no address.
    fn check(&self, remote: &Multiaddr) -> Result<Option<IpAddr>, TooMany> {
        let Some(ip) = address::network(remote) else { return Ok(None) };
        let (limit, most) = match address::is_private(remote) {
            true => (Limit::ConnectionsPerPrivateIp, self.limits.connections_per_private_address),
            false => (Limit::ConnectionsPerIp, self.limits.connections_per_address),
        };
        let count = self.of_address.get(&ip).copied().unwrap_or_default();
        if count < most { Ok(Some(ip)) } else { Err(TooMany { ip, most, limit }) }
    }

    fn establish(&mut self, id: ConnectionId, remote: &Multiaddr) -> Result<(), TooMany> {
        if let Some(ip) = self.check(remote)? {
            *self.of_address.entry(ip).or_default() += 1;
            self.established.insert(id, ip);
        }
        Ok(())
    }

    fn forget(&mut self, id: ConnectionId) {
        let Some(ip) = self.established.remove(&id) else { return };
        if let Some(count) = self.of_address.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(&ip);
            }
        }
    }

    fn note_refusal(&mut self, from: &Multiaddr, cause: &ConnectionDenied) {
        if let Some(TooMany { ip, limit, .. }) = cause.downcast_ref() {
            self.counters.refused_address.fetch_add(1, Relaxed);
            return self.refusals.count(*limit, ip);
        }
        let Some(counter) = self.counter(cause) else { return };
        counter.fetch_add(1, Relaxed);
        if self.warned_at.is_none_or(|at| at.elapsed() > WARN_EVERY) {
            self.warned_at = Some(Instant::now());
            let why = innermost(cause);
            tracing::warn!(from = %address::display(from), why, "a limit refuses work; the next such line in a minute");
        }
    }

    /// The counter for a refusal by another behaviour; none for a refusal that has nothing to do with load.
    fn counter(&self, cause: &ConnectionDenied) -> Option<&AtomicU64> {
        if cause.downcast_ref::<connection_limits::Exceeded>().is_some() {
            return Some(&self.counters.refused_connections);
        }
        #[cfg(any(feature = "scraper", feature = "node"))]
        if cause.downcast_ref::<MemoryUsageLimitExceeded>().is_some() {
            return Some(&self.counters.refused_memory);
        }
        None
    }
}

impl Wrap for Inbound {
    type Handler = dummy::ConnectionHandler;
    type Event = Infallible;

    fn on_pending_inbound(&mut self, _: ConnectionId, remote: &Multiaddr) -> Result<(), ConnectionDenied> {
        self.check(remote).map(drop).map_err(ConnectionDenied::new)
    }

    fn handler(&mut self, connection: NewConnection<'_>) -> Result<Self::Handler, ConnectionDenied> {
        if let Some(remote) = connection.comes_from() {
            self.establish(connection.id, remote).map_err(ConnectionDenied::new)?;
        }
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(closed) => self.forget(closed.connection_id),
            FromSwarm::ListenFailure(failure) => {
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

    fn limits(public: usize, private: usize) -> Inbound {
        let limits = NetworkLimits {
            connections_per_address: public,
            connections_per_private_address: private,
            ..NetworkLimits::default()
        };
        Inbound::new(limits, Arc::default(), Arc::new(Refusals::new()))
    }

    #[test]
    fn the_connection_past_the_limit_is_refused_until_one_ends() {
        for (remote, other, limit) in [
            ("/ip4/203.0.113.7/tcp/1", "/ip4/203.0.113.8/tcp/1", Limit::ConnectionsPerIp),
            ("/ip4/10.1.2.3/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/1", Limit::ConnectionsPerPrivateIp),
        ] {
            let mut limits = if limit == Limit::ConnectionsPerIp { limits(2, 9) } else { limits(9, 2) };
            let remote = addr(remote);
            let ids = [1, 2, 3].map(ConnectionId::new_unchecked);
            assert!(limits.establish(ids[0], &remote).is_ok() && limits.establish(ids[1], &remote).is_ok());
            let refused = limits.on_pending_inbound(ids[2], &remote).expect_err("refused");
            limits.note_refusal(&remote, &refused);
            assert_eq!((limits.counters.read().refused_address, limits.refusals.counted(limit)), (1, 1));
            assert!(limits.establish(ids[2], &remote).is_err());
            assert!(limits.establish(ids[2], &addr(other)).is_ok());
            limits.forget(ids[0]);
            assert!(limits.establish(ids[0], &remote).is_ok());
        }
    }

    #[test]
    fn addresses_of_one_v6_network_are_counted_together() {
        let mut limits = limits(1, 9);
        assert!(limits.establish(ConnectionId::new_unchecked(1), &addr("/ip6/2001:db8::1/tcp/1")).is_ok());
        assert!(limits.establish(ConnectionId::new_unchecked(2), &addr("/ip6/2001:db8::2/tcp/1")).is_err());
    }
}
