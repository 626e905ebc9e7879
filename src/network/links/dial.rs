//! Dialling by public key.
//!
//! The hint and the last good address are tried first, TCP before QUIC before WebSocket; a moment later, or as soon as
//! they fail, the DHT is asked for the peer's signed announcement, and the addresses in it are tried. The first link
//! wins. What is heard by mDNS is tried at once, where that is asked for.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use futures::{
    FutureExt, StreamExt, TryFutureExt,
    future::{self, BoxFuture, Either},
    stream::FuturesUnordered,
};
use libp2p::Multiaddr;
use tokio::{sync::oneshot, task, time};

use crate::{
    identity::{DialAddress, HostPort, PeerAddr, PublicKey},
    network::{
        config::NetworkRole,
        error::{Attempt, AttemptKind, ConnectError},
        failure::DialFailure,
        handle::Network,
        links::status::LinkTransport,
        peer_id::{self, Circuit},
        swarm::driver::Command,
    },
};

impl Network {
    /// Returns once there is a link to the peer, dialling it if there is none.
    ///
    /// # Errors
    /// [`ConnectError`] says what was tried.
    pub(crate) async fn connect(&self, peer: &PeerAddr) -> Result<(), ConnectError> {
        if self.links().path(&peer.key).is_some() {
            return Ok(());
        }
        self.connect_anew(peer).await
    }

    /// Dials a peer, linked or not: for a better link than the one there is.
    ///
    /// # Errors
    /// [`ConnectError`] says what was tried.
    pub(crate) async fn connect_anew(&self, peer: &PeerAddr) -> Result<(), ConnectError> {
        let near = staggered(self.dial_known(peer), Duration::ZERO, self.dial_nearby(&peer.key)).map_err(Failure::from);
        let found = staggered(near, LOOKUP_HEAD_START, self.dial_found(&peer.key)).await;
        let address = found.map_err(|failures| explain(&peer.key, failures.into()))?;
        let (book, key) = (Arc::clone(&self.addresses), peer.key);
        // Not waited for: it is a hint for the next start.
        if peer_id::is_dialable(&address) {
            drop(task::spawn_blocking(move || book.remember(key, address)));
        }
        Ok(())
    }

    #[cfg(not(feature = "mdns"))]
    async fn dial_nearby(&self, _: &PublicKey) -> Result<Multiaddr, Failure> {
        Err(Failure::Nothing)
    }

    async fn dial_known(&self, peer: &PeerAddr) -> Result<Multiaddr, Failure> {
        let (addresses, unresolved) = self.known(peer).await;
        self.dial(peer.key, addresses).await.map_err(|failure| failure.after(unresolved))
    }

    /// Links a node. Those who may be reached through it are linked over both transports, so that it sees the address
    /// of both: holes can then be punched in both.
    pub(crate) async fn dial_node(&self, node: &PeerAddr) -> Result<(), Failure> {
        if self.role == NetworkRole::Client {
            return self.dial_known(node).await.map(drop);
        }
        let (addresses, unresolved) = self.known(node).await;
        self.dial_both(node.key, addresses).await.map(drop).map_err(|failure| failure.after(unresolved))
    }

    /// Links a peer at the place that we were told, over one transport.
    ///
    /// # Errors
    /// [`ConnectError`] says what was tried.
    pub(crate) async fn connect_over(&self, peer: &PeerAddr, transport: LinkTransport) -> Result<(), ConnectError> {
        let (addresses, unresolved) = self.told(peer).await;
        let addresses = addresses.into_iter().filter(|address| LinkTransport::of(address) == transport).collect();
        let dialled = self.dial_at_once(peer.key, addresses).await;
        dialled.map(drop).map_err(|failure| explain(&peer.key, failure.after(unresolved)))
    }

    /// Where a peer was the last time, and where we were told that it is.
    async fn known(&self, peer: &PeerAddr) -> (Vec<Multiaddr>, Option<Failure>) {
        let (told, unresolved) = self.told(peer).await;
        let mut addresses: Vec<Multiaddr> = self.addresses.address(&peer.key).into_iter().chain(told).collect();
        addresses.dedup();
        (addresses, unresolved)
    }

    /// Where we were told that a peer is.
    async fn told(&self, peer: &PeerAddr) -> (Vec<Multiaddr>, Option<Failure>) {
        let Some(hint) = &peer.hint else { return (Vec::new(), None) };
        match self.hinted(hint).await {
            Ok(places) => (places, None),
            Err(error) => (Vec::new(), Some(unresolved(hint, error))),
        }
    }

    /// Whether TCP to a place goes through a proxy.
    pub(crate) fn is_proxied(&self, place: &HostPort) -> bool {
        self.proxies.before(place).is_some()
    }

    /// Behind a proxy a name is the proxy's to resolve; nothing else may know it.
    async fn hinted(&self, hint: &DialAddress) -> io::Result<Vec<Multiaddr>> {
        match hint {
            DialAddress::HostPort(at) if at.ip().is_none() && self.is_proxied(at) => Ok(vec![peer_id::named_tcp(at)]),
            hint => addresses(hint).await,
        }
    }

    /// Tries what the first node says, and each later announcement that another one holds: a node that has slept, or
    /// lies, has old ones.
    async fn dial_found(&self, peer: &PublicKey) -> Result<Multiaddr, Failure> {
        if self.bootstrap.is_empty() {
            return Err(Failure::Nothing);
        }
        let mut answers = self.lookup(peer).await?;
        let (mut newest, mut dials, mut failures) = (0, FuturesUnordered::new(), Vec::new());
        loop {
            tokio::select! {
                Some(answer) = answers.recv() => if answer.sequence > newest {
                    newest = answer.sequence;
                    let addresses = answer.addresses.into_iter().filter_map(|bytes| Multiaddr::try_from(bytes).ok());
                    dials.push(self.dial(*peer, addresses.collect()));
                },
                Some(dialled) = dials.next() => match dialled {
                    Ok(address) => return Ok(address),
                    Err(failure) => failures.push(failure),
                },
                else => break,
            }
        }
        if newest == 0 {
            return Err(Attempt::without_address(AttemptKind::NotAnnounced, None).into());
        }
        Err(Failure::Several(failures))
    }

    /// TCP first, QUIC a moment later or as soon as TCP has failed: TCP costs half, QUIC gets through where it is
    /// blocked. Then WebSocket, for where only HTTP gets out. Relays come last, unless nothing else can work from outside
    /// the peer's own network.
    ///
    /// A peer that was reached over TCP the last time is waited for a while longer: with its whole fleet at its door it is
    /// slow, and another handshake makes it slower.
    pub(crate) fn dial(&self, peer: PublicKey, addresses: Vec<Multiaddr>) -> BoxFuture<'_, Result<Multiaddr, Failure>> {
        let last = self.addresses.address(&peer).as_ref().map(LinkTransport::of);
        let tcp_head_start = if last == Some(LinkTransport::Tcp) { KNOWN_HEAD_START } else { HEAD_START };
        let circuits: Vec<Circuit> = addresses.iter().filter_map(Circuit::parse).collect();
        let direct: Vec<_> = addresses.into_iter().filter(peer_id::is_dialable).collect();
        let public = direct.iter().any(|address| !peer_id::is_private(address));
        let direct_head_start = if public { HEAD_START } else { Duration::ZERO };
        let [tcp, quic, websocket] = peer_id::by_transport(direct).map(|places| self.dial_at_once(peer, places));
        let last = staggered(websocket, direct_head_start, self.dial_circuits(peer, circuits));
        let others = staggered(quic, direct_head_start, last.map_err(Failure::from));
        // On the heap: several of these may be part of one attempt, and each holds all of its own.
        staggered(tcp, tcp_head_start, others.map_err(Failure::from)).map_err(Failure::from).boxed()
    }

    /// QUIC, and TCP a moment later or as soon as QUIC is there; returns with the first, and the other one goes on. A
    /// relay hands circuits over the connection that came first, and TCP has room for few. WebSocket if neither works.
    async fn dial_both(&self, peer: PublicKey, addresses: Vec<Multiaddr>) -> Result<Multiaddr, Failure> {
        let [tcp, quic, websocket] = peer_id::by_transport(addresses).map(|places| self.dial_at_once(peer, places));
        let both = async {
            let mut quic = pin!(quic);
            match time::timeout(HEAD_START, &mut quic).await {
                Ok(Ok(address)) => {
                    let _ = time::timeout(HEAD_START, tcp).await;
                    Ok(address)
                }
                Ok(Err(failed)) => tcp.await.map_err(|other| Failure::Several(vec![failed, other])),
                Err(_) => Ok(staggered(tcp, Duration::ZERO, quic).await?),
            }
        };
        Ok(staggered(both, HEAD_START * 3, websocket).await?)
    }

    /// Through one relay after the other, each a moment later.
    pub(crate) async fn dial_circuits(&self, peer: PublicKey, circuits: Vec<Circuit>) -> Result<Multiaddr, Failure> {
        let mut relays: Vec<(PublicKey, Vec<Multiaddr>)> = Vec::new();
        for Circuit { relay, at } in circuits {
            match relays.iter_mut().find(|(known, _)| *known == relay) {
                Some((_, places)) => places.push(at),
                None => relays.push((relay, vec![at])),
            }
        }
        let mut attempts: FuturesUnordered<_> = relays
            .into_iter()
            .take(MAX_RELAYS)
            .zip(0..)
            .map(|((relay, places), turn)| async move {
                time::sleep(HEAD_START * turn).await;
                self.dial_through(peer, relay, places).await
            })
            .collect();
        let mut failures = Vec::new();
        while let Some(dialled) = attempts.next().await {
            match dialled {
                Ok(address) => return Ok(address),
                Err(failure) => failures.push(failure),
            }
        }
        Err(if failures.is_empty() { Failure::Nothing } else { Failure::Several(failures) })
    }

    /// Links the relay over both transports before the circuit goes through it: it tells us how we are seen in each,
    /// which the hole punch that follows has to know.
    async fn dial_through(
        &self,
        peer: PublicKey,
        relay: PublicKey,
        places: Vec<Multiaddr>,
    ) -> Result<Multiaddr, Failure> {
        let at = places.first().cloned().ok_or(Failure::Nothing)?;
        let circuit = Circuit { relay, at: at.clone() }.address();
        let [tcp, quic, websocket] = peer_id::by_transport(places);
        let linked = self.links().transports(&relay);
        let missing = |transport, places| if linked.contains(&transport) { Vec::new() } else { places };
        let both = future::join(
            self.dial_at_once(relay, missing(LinkTransport::Tcp, tcp)),
            self.dial_at_once(relay, missing(LinkTransport::Quic, quic)),
        );
        // No hole is punched over WebSocket; it is for where nothing else gets to the relay.
        let websocket = if linked.is_empty() { websocket } else { Vec::new() };
        let any = async {
            if let (Err(_), Err(_)) = both.await {
                let _ = self.dial_at_once(relay, websocket).await;
            }
        };
        let _ = time::timeout(RELAY_HEAD_START, any).await;
        // The circuit's end takes along for the punch what it knows when it is made.
        let _ = time::timeout(IDENTIFY, self.links().identified(&relay)).await;
        time::timeout(CIRCUIT, self.dial_at_once(peer, vec![circuit]))
            .await
            .unwrap_or_else(|_| Err(no_circuit(&at).into()))
    }

    async fn dial_at_once(&self, peer: PublicKey, addresses: Vec<Multiaddr>) -> Result<Multiaddr, Failure> {
        if addresses.is_empty() {
            return Err(Failure::Nothing);
        }
        self.listeners(&addresses).await;
        let (reply, answer) = oneshot::channel();
        self.command(Command::Dial { peer, addresses, reply }).await.map_err(|_| Failure::Closed)?;
        answer.await.map_err(|_| Failure::Closed)?.map_err(Failure::Dial)
    }

    /// Waits, soon after the start, for listeners of the kinds that are dialled: what is dialled before them comes from
    /// another port, and no hole is punched.
    async fn listeners(&self, dialled: &[Multiaddr]) {
        let Some(by) = self.listeners_by else { return };
        let kind = |address: &Multiaddr| (peer_id::is_tcp(address), peer_id::ip(address).map(|ip| ip.is_ipv4()));
        let listens = |listening: &[Multiaddr], to: &Multiaddr| {
            listening.iter().any(|own| peer_id::is_dialable(own) && kind(own) == kind(to))
        };
        let mut reach = self.reach.clone();
        // Names are never dialled from a listener's port.
        let numbered = dialled.iter().filter(|to| peer_id::ip(to).is_some());
        let all = reach.wait_for(|reach| numbered.clone().all(|to| listens(&reach.listeners, to)));
        let _ = time::timeout_at(by, all).await;
    }
}

/// The addresses that a place stands for. Of a WebSocket's the name is looked up when it is dialled.
pub(crate) async fn addresses(place: &DialAddress) -> io::Result<Vec<Multiaddr>> {
    match place {
        DialAddress::HostPort(at) => {
            Ok(resolve(at).await?.into_iter().flat_map(|at| [peer_id::tcp(at), peer_id::quic(at)]).collect())
        }
        DialAddress::WebSocket(url) => Ok(vec![peer_id::websocket(url)]),
    }
}

/// A name may mean several addresses; a few are tried.
pub(crate) async fn resolve(place: &HostPort) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((place.host.as_str(), place.port)).await?;
    Ok(found.take(MAX_RESOLVED).collect())
}

#[derive(Debug)]
pub(crate) enum Failure {
    /// There was nothing to try.
    Nothing,
    Dial(DialFailure),
    Several(Vec<Failure>),
    /// It failed before a peer was dialled, or without libp2p's word for it.
    Other(Box<Attempt>),
    Closed,
}

impl Failure {
    fn after(self, other: Option<Self>) -> Self {
        match other {
            Some(other) => Self::Several(vec![other, self]),
            None => self,
        }
    }
}

impl From<Attempt> for Failure {
    fn from(attempt: Attempt) -> Self {
        Self::Other(Box::new(attempt))
    }
}

fn unresolved(hint: &DialAddress, error: io::Error) -> Failure {
    let failed = Attempt::without_address(AttemptKind::Unresolved, Some(Arc::new(error)));
    Attempt { address: Some(hint.clone()), ..failed }.into()
}

fn no_circuit(relay: &Multiaddr) -> Attempt {
    let source = io::Error::new(io::ErrorKind::TimedOut, format!("no circuit in {CIRCUIT:?}"));
    Attempt {
        address: peer_id::shown_place(relay),
        transport: Some(LinkTransport::of(relay)),
        relayed: true,
        kind: AttemptKind::TimedOut,
        source: Some(Arc::new(source)),
    }
}

/// The first of two that succeeds; both failures if neither does. The second starts after the head start, or as soon
/// as the first has failed.
async fn staggered<T>(
    first: impl Future<Output = Result<T, Failure>>,
    head_start: Duration,
    second: impl Future<Output = Result<T, Failure>>,
) -> Result<T, [Failure; 2]> {
    let (mut first, second) = (pin!(first), pin!(second));
    if let Ok(early) = time::timeout(head_start, &mut first).await {
        return match early {
            Ok(done) => Ok(done),
            Err(failed) => second.await.map_err(|other| [failed, other]),
        };
    }
    match future::select(first, second).await {
        Either::Left((Ok(done), _)) | Either::Right((Ok(done), _)) => Ok(done),
        Either::Left((Err(failed), rest)) => rest.await.map_err(|other| [failed, other]),
        Either::Right((Err(failed), rest)) => rest.await.map_err(|other| [other, failed]),
    }
}

impl From<[Failure; 2]> for Failure {
    fn from(failures: [Failure; 2]) -> Self {
        Self::Several(failures.into())
    }
}

pub(crate) fn explain(peer: &PublicKey, failure: Failure) -> ConnectError {
    let mut all = Vec::new();
    let mut pending = vec![failure];
    while let Some(failure) = pending.pop() {
        match failure {
            Failure::Nothing => {}
            Failure::Closed => return ConnectError::Closed,
            Failure::Several(several) => pending.extend(several.into_iter().rev()),
            Failure::Other(attempt) => all.push(*attempt),
            Failure::Dial(DialFailure::WrongKey { address, found }) => {
                return ConnectError::WrongKey { peer: *peer, address, found };
            }
            Failure::Dial(DialFailure::Unreachable { attempts }) => all.extend(attempts),
        }
    }
    if all.is_empty() {
        return ConnectError::NoAddress { peer: *peer };
    }
    ConnectError::Unreachable { peer: *peer, attempts: all }
}

/// What is cheaper, or better, gets so much time before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(400);
const KNOWN_HEAD_START: Duration = Duration::from_secs(1);
const RELAY_HEAD_START: Duration = Duration::from_secs(1);
const IDENTIFY: Duration = Duration::from_secs(1);
const CIRCUIT: Duration = Duration::from_secs(10);
pub(crate) const LISTEN_WAIT: Duration = Duration::from_secs(2);
/// An announcement may name many relays, at its owner's word.
const MAX_RELAYS: usize = 4;
const LOOKUP_HEAD_START: Duration = Duration::from_millis(300);
const MAX_RESOLVED: usize = 8;
