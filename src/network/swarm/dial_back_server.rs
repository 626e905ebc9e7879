//! Dials peers back that ask whether they can be reached (AutoNAT v2): each at its own IP address only, and not often.
//!
//! libp2p's behaviour dials whatever address anybody names, private ones of our network too, as often as asked: a port
//! scanner for strangers. Here a dial is denied before it begins, and its asker is told that it failed.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use libp2p::swarm::NetworkBehaviour;
use libp2p::{
    Multiaddr, PeerId,
    autonat::v2::server::{self, Event},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        derive_prelude::Either,
    },
};
use tokio::time::Instant;

use crate::{
    network::{
        address,
        config::DialBackLimits,
        swarm::{
            node_stats::NodeStats,
            wrapped::{NewConnection, Wrap},
        },
    },
    telemetry::{Limit, Refusals},
};

/// Dial-backs of one peer at the same time: one over TCP and one over QUIC.
pub(crate) const MOST_AT_ONCE: usize = 2;
/// How often the rates of peers that no longer ask are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

type Inner = server::Behaviour;
type Action = ToSwarm<Event, THandlerInEvent<Inner>>;

pub(crate) struct Behaviour {
    inner: Inner,
    limits: DialBackLimits,
    /// Where peers are connected from. A connection through a relay has no entry.
    remotes: HashMap<ConnectionId, IpAddr>,
    /// Dial-backs that are asked for or under way, by the connection that each may become.
    asked: HashMap<ConnectionId, Asked>,
    /// Refused dial-backs whose askers have not been answered yet.
    refused: HashMap<PeerId, usize>,
    rate: DefaultDirectRateLimiter,
    rates: DefaultKeyedRateLimiter<PeerId>,
    forgotten_at: Instant,
    stats: NodeStats,
    refusals: Arc<Refusals>,
    actions: VecDeque<Action>,
}

struct Asked {
    peer: PeerId,
    /// Where the peer is connected from; none if a relay is between.
    from: Option<IpAddr>,
    dialled: bool,
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the address is not the asker's own")]
    NotItsOwn,
    #[error("the address is private")]
    Private,
    #[error("the peer is being dialled back already")]
    AtOnce,
    #[error("the peer asks too often")]
    Rate,
    #[error("all peers together ask too often")]
    RateOfAll,
}

impl Behaviour {
    pub(crate) fn new(limits: DialBackLimits, stats: NodeStats, refusals: Arc<Refusals>) -> Self {
        Self {
            inner: Inner::default(),
            limits,
            remotes: HashMap::new(),
            asked: HashMap::new(),
            refused: HashMap::new(),
            rate: RateLimiter::direct(Quota::per_minute(limits.per_minute)),
            rates: RateLimiter::keyed(Quota::per_minute(limits.per_minute_of_peer)),
            forgotten_at: Instant::now(),
            stats,
            refusals,
            actions: VecDeque::new(),
        }
    }

    /// Takes what libp2p's behaviour wants done; `source` is the peer that caused it, and its connection.
    fn take_actions(&mut self, source: Option<(PeerId, ConnectionId)>) {
        // The behaviour has no waker: the swarm polls us after each event.
        while let Poll::Ready(action) = self.inner.poll(&mut Context::from_waker(Waker::noop())) {
            match (&action, source) {
                (ToSwarm::Dial { opts }, Some((peer, from))) => {
                    let asked = Asked { peer, from: self.remotes.get(&from).copied(), dialled: false };
                    self.asked.insert(opts.connection_id(), asked);
                }
                (ToSwarm::GenerateEvent(event), _) => {
                    if let Some(refused) = self.refused.get_mut(&event.client) {
                        *refused -= 1;
                        if *refused == 0 {
                            self.refused.remove(&event.client);
                        }
                        continue; // counted when refused
                    }
                }
                _ => {}
            }
            self.actions.push_back(action);
        }
    }

    fn admit(&mut self, asked: &Asked, addresses: &[Multiaddr]) -> Result<(), Refused> {
        for address in addresses {
            let address = address::without_peer(address);
            let ip = address::ip(&address).filter(|_| address::is_plain(&address));
            if ip.is_none() || ip.map(|ip| ip.to_canonical()) != asked.from.map(|ip| ip.to_canonical()) {
                return Err(Refused::NotItsOwn);
            }
            if address::is_private(&address) && !self.limits.private {
                return Err(Refused::Private);
            }
        }
        let under_way = self.asked.values().filter(|other| other.dialled && other.peer == asked.peer).count();
        if under_way >= MOST_AT_ONCE {
            return Err(Refused::AtOnce);
        }
        if self.forgotten_at.elapsed() > FORGET_EVERY {
            self.forgotten_at = Instant::now();
            self.rates.retain_recent();
        }
        if self.rates.check_key(&asked.peer).is_err() {
            self.refusals.count(Limit::DialBacksPerPeer, asked.peer);
            return Err(Refused::Rate);
        }
        if self.rate.check().is_err() {
            self.refusals.count(Limit::DialBacks, asked.peer);
            return Err(Refused::RateOfAll);
        }
        Ok(())
    }
}

impl Wrap for Behaviour {
    type Handler = THandler<Inner>;
    type Event = Event;

    fn on_pending_outbound(&mut self, id: ConnectionId, addresses: &[Multiaddr]) -> Result<(), ConnectionDenied> {
        let Some(mut asked) = self.asked.remove(&id) else { return Ok(()) };
        let admitted = self.admit(&asked, addresses);
        if let Err(why) = &admitted {
            tracing::debug!(peer = %asked.peer, ?addresses, %why, "refused to dial a peer back");
            *self.refused.entry(asked.peer).or_default() += 1;
            self.stats.update(|counts| counts.dial_backs_refused += 1);
        } else {
            asked.dialled = true;
            self.asked.insert(id, asked);
        }
        admitted.map_err(ConnectionDenied::new)
    }

    fn handler(&mut self, connection: NewConnection<'_>) -> Result<Self::Handler, ConnectionDenied> {
        connection.handler_of(&mut self.inner)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(new) if !new.endpoint.is_relayed() => {
                if let Some(ip) = address::ip(new.endpoint.get_remote_address()) {
                    self.remotes.insert(new.connection_id, ip);
                }
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.remotes.remove(&closed.connection_id);
                self.asked.remove(&closed.connection_id);
                if closed.remaining_established == 0 {
                    self.refused.remove(&closed.peer_id);
                }
            }
            FromSwarm::DialFailure(failure) => drop(self.asked.remove(&failure.connection_id)),
            _ => {}
        }
        self.inner.on_swarm_event(event);
        self.take_actions(None);
    }

    fn on_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Inner>) {
        if let Either::Left(_) = &event {
            self.asked.remove(&id); // the dial-back has ended
        }
        self.inner.on_connection_handler_event(peer, id, event);
        self.take_actions(Some((peer, id)));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<Action> {
        self.actions.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
