//! Dialling by public key.
//!
//! The given dial address (hint), those that others named and the last good one are tried first, TCP before QUIC before WebSocket; a moment later, or as soon as
//! they fail, the DHT is asked for the peer's signed announcement, and the addresses in it are tried. The first link
//! wins. Addresses announced by mDNS are tried at once, where mDNS is switched on.

use std::{
    collections::HashSet,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::{
    FutureExt, StreamExt, TryFutureExt,
    future::{self, BoxFuture, Either},
    stream::FuturesUnordered,
};
use libp2p::Multiaddr;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task,
    time::{self, Instant},
};

#[cfg(feature = "mdns")]
use crate::network::swarm::nearby::Nearby;
use crate::{
    identity::{DialAddress, HostPort, PeerAddr, PublicKey},
    network::{
        address::{self, Circuit},
        command::Command,
        config::NetworkRole,
        error::{Attempt, AttemptKind, ConnectError},
        failure::{Closed, DialFailure},
        host::HostChanges,
        links::{address_book::AddressBook, status::LinkTransport, table::Links},
        patience,
        reach::Reach,
        transport::{answered::Answered, proxy::Proxies, resolve},
    },
    wire::Announcement,
};

/// A transport that is cheaper, or better, gets this time before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(400);
/// The same for the transport that worked the last time: see [`Dialler::dial`].
const KNOWN_HEAD_START: Duration = Duration::from_secs(1);
/// Where the host has taken the TCP connection, the peer is busy, and a handshake over QUIC would make it busier. Shorter than
/// a handshake may take: a network may let TCP begin, and nothing more.
const ANSWERED_HEAD_START: Duration = Duration::from_secs(4);
/// Of so many dials that TCP has no room for, one goes on to the other transports: what closes TCP may be the network, too. With
/// the pauses between them, so many take 4 s.
const CROWDED: u32 = 5;
/// The same where TCP was the last way: 20 s.
const KNOWN_CROWDED: u32 = 8;
/// The DHT is asked later than known addresses are dialled: mostly they answer, and no node need be asked.
const LOOKUP_HEAD_START: Duration = Duration::from_millis(300);
/// A relay gets this time to be linked over TCP and QUIC before the circuit is dialled.
const RELAY_HEAD_START: Duration = Duration::from_secs(1);
/// A relay reports how it sees us within one round trip.
const IDENTIFY: Duration = Duration::from_secs(1);
/// A circuit takes the relay two round trips to a peer that may be far away.
const CIRCUIT: Duration = Duration::from_secs(10);
/// Listeners are up within milliseconds, unless the host is busy.
pub(crate) const LISTEN_WAIT: Duration = Duration::from_secs(2);
/// An announcement may name many relays, and nobody checks how many its owner names.
const MAX_RELAYS: usize = 4;
/// More than the nodes that hold one announcement.
const ANSWER_QUEUE: usize = 64;
/// A peer in the local network answers within milliseconds.
#[cfg(feature = "mdns")]
const NEARBY_WAIT: Duration = Duration::from_secs(2);

/// Finds peers and links them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dialler {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) links: Links,
    pub(crate) role: NetworkRole,
    pub(crate) bootstrap: Arc<[PeerAddr]>,
    pub(crate) addresses: Arc<AddressBook>,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) answered: Answered,
    /// Dials that TCP had no room for, since one had.
    pub(crate) crowded: Arc<AtomicU32>,
    pub(crate) reach: watch::Receiver<Reach>,
    pub(crate) host: Arc<watch::Sender<HostChanges>>,
    /// Until when dials wait for the listeners; none if there will be none.
    pub(crate) listeners_by: Option<Instant>,
    #[cfg(feature = "mdns")]
    pub(crate) nearby: Option<Arc<watch::Sender<Nearby>>>,
}

impl Dialler {
    pub(crate) async fn command(&self, command: Command) -> Result<(), Closed> {
        self.commands.send(command).await.map_err(|_| Closed)
    }

    pub(crate) async fn connect(&self, peer: &PeerAddr) -> Result<(), ConnectError> {
        let near = staggered(self.dial_known(peer), Duration::ZERO, self.dial_nearby(&peer.key)).map_err(Failure::from);
        let found = staggered(near, LOOKUP_HEAD_START, self.dial_found(&peer.key)).await;
        let address = found.map_err(|failures| explain(&peer.key, failures.into()))?;
        self.remember(peer.key, address);
        Ok(())
    }

    /// As [`connect`](Self::connect), to a peer that has any number of given dial addresses.
    #[cfg(feature = "scraper")]
    pub(crate) async fn connect_at(&self, peer: PublicKey, given: &[DialAddress]) -> Result<(), ConnectError> {
        let near = async {
            let hints = given.iter().map(|hint| PeerAddr { key: peer, hint: Some(hint.clone()) });
            let given = future::join_all(hints.map(|hint| async move { self.given(&hint).await })).await;
            let (addresses, unresolved): (Vec<_>, Vec<_>) = given.into_iter().unzip();
            let failed = |failure| Failure::Several(unresolved.into_iter().flatten().chain([failure]).collect());
            self.dial(peer, addresses.concat()).await.map_err(failed)
        };
        let found = staggered(near, LOOKUP_HEAD_START, self.dial_found(&peer)).await;
        let address = found.map_err(|failures| explain(&peer, failures.into()))?;
        self.remember(peer, address);
        Ok(())
    }

    /// Notes where a peer answered, for the next start.
    fn remember(&self, peer: PublicKey, address: Multiaddr) {
        let book = Arc::clone(&self.addresses);
        if address::is_dialable(&address) {
            drop(task::spawn_blocking(move || book.remember(peer, address))); // not waited for: it is a hint
        }
    }

    /// Dials a peer that is linked over QUIC at the same port over TCP, which then takes over.
    pub(crate) async fn connect_over_tcp(&self, peer: PublicKey) -> Result<(), ConnectError> {
        let there = self.links.address(&peer).as_ref().and_then(address::socket_addr);
        let addresses = there.map(address::tcp).into_iter().collect();
        let address = self.dial_at_once(peer, addresses).await.map_err(|failure| explain(&peer, failure))?;
        self.links.leave(&peer, LinkTransport::Quic);
        self.remember(peer, address);
        Ok(())
    }

    /// Dials a peer over QUIC, at the addresses that are known and at those of its connections over TCP.
    #[cfg(feature = "scraper")]
    pub(crate) async fn connect_over_quic(&self, peer: &PeerAddr, beside: Vec<Multiaddr>) -> Result<(), ConnectError> {
        let (known, unresolved) = self.known(peer).await;
        let beside = beside.iter().filter(|at| LinkTransport::of(at) == LinkTransport::Tcp);
        let beside = beside.filter_map(address::socket_addr).map(address::quic);
        let addresses: HashSet<_> =
            known.into_iter().filter(|at| LinkTransport::of(at) == LinkTransport::Quic).chain(beside).collect();
        let dialled = self.dial_at_once(peer.key, addresses.into_iter().collect()).await;
        dialled.map(drop).map_err(|failure| explain(&peer.key, failure.after(unresolved)))
    }

    /// Opens one more connection to a peer that is linked at this address.
    #[cfg(feature = "scraper")]
    pub(crate) async fn connect_again(&self, peer: PublicKey, at: Multiaddr) -> Result<(), ConnectError> {
        self.dial_at_once(peer, vec![at]).await.map(drop).map_err(|failure| explain(&peer, failure))
    }

    #[cfg(feature = "cli")]
    pub(crate) async fn connect_over(&self, peer: &PeerAddr, transport: LinkTransport) -> Result<(), ConnectError> {
        let (addresses, unresolved) = self.given(peer).await;
        let addresses = addresses.into_iter().filter(|address| LinkTransport::of(address) == transport).collect();
        let dialled = self.dial_at_once(peer.key, addresses).await;
        dialled.map(drop).map_err(|failure| explain(&peer.key, failure.after(unresolved)))
    }

    /// Dials a peer where it announces itself.
    pub(crate) async fn connect_announced(&self, announcement: Announcement) -> Result<(), ConnectError> {
        let key = announcement.key;
        let address = self.dial(key, addresses(announcement)).await.map_err(|failure| explain(&key, failure))?;
        self.remember(key, address);
        Ok(())
    }

    pub(crate) async fn link_node(&self, node: &PeerAddr) -> Result<(), ConnectError> {
        self.reach_node(node).await.map_err(|failure| explain(&node.key, failure))
    }

    #[cfg(feature = "scraper")]
    pub(crate) async fn lookup(&self, peer: &PublicKey) -> Result<mpsc::Receiver<Announcement>, ConnectError> {
        self.look_up(peer).await.map_err(|failure| explain(peer, failure))
    }

    pub(crate) fn is_proxied(&self, to: &HostPort) -> bool {
        self.proxies.before(to).is_some()
    }

    async fn look_up(&self, peer: &PublicKey) -> Result<mpsc::Receiver<Announcement>, Failure> {
        if self.bootstrap.is_empty() {
            return Err(Failure::Nothing);
        }
        // One linked bootstrap node is enough to ask the DHT.
        let attempts = self.bootstrap.iter().map(|node| Box::pin(self.reach_node(node)));
        future::select_ok(attempts).await?;
        let (found, answers) = mpsc::channel(ANSWER_QUEUE);
        self.command(Command::Lookup { peer: *peer, found }).await?;
        Ok(answers)
    }

    async fn reach_node(&self, node: &PeerAddr) -> Result<(), Failure> {
        if self.links.path(&node.key).is_none() {
            self.dial_node(node).await?;
        }
        if let Some(address) = self.links.address(&node.key) {
            self.command(Command::AddNode { peer: node.key, address }).await?;
        }
        Ok(())
    }

    /// Dials a peer where it announces itself by mDNS, now or within a moment.
    #[cfg(feature = "mdns")]
    async fn dial_nearby(&self, peer: &PublicKey) -> Result<Multiaddr, Failure> {
        let Some(nearby) = &self.nearby else { return Err(Failure::Nothing) };
        let mut nearby = nearby.subscribe();
        let addresses = match time::timeout(NEARBY_WAIT, nearby.wait_for(|nearby| nearby.contains_key(peer))).await {
            Ok(Ok(nearby)) => nearby.get(peer).cloned().unwrap_or_default(),
            _ => return Err(Attempt::without_address(AttemptKind::NotNearby, None).into()),
        };
        self.dial(*peer, addresses).await
    }

    #[cfg(not(feature = "mdns"))]
    async fn dial_nearby(&self, _: &PublicKey) -> Result<Multiaddr, Failure> {
        Err(Failure::Nothing)
    }

    async fn dial_known(&self, peer: &PeerAddr) -> Result<Multiaddr, Failure> {
        let (addresses, unresolved) = self.known(peer).await;
        self.dial(peer.key, addresses).await.map_err(|failure| failure.after(unresolved))
    }

    /// Links a node. A peer that may be reached through the node links it over both transports, so that the node sees the
    /// address of both: holes can then be punched in both.
    pub(crate) async fn dial_node(&self, node: &PeerAddr) -> Result<(), Failure> {
        if self.role == NetworkRole::Client {
            return self.dial_known(node).await.map(drop);
        }
        let (addresses, unresolved) = self.known(node).await;
        self.dial_both(node.key, addresses).await.map(drop).map_err(|failure| failure.after(unresolved))
    }

    /// Where a peer answered the last time, and its given dial address.
    async fn known(&self, peer: &PeerAddr) -> (Vec<Multiaddr>, Option<Failure>) {
        let (given, unresolved) = self.given(peer).await;
        let mut addresses: Vec<Multiaddr> = self.addresses.address(&peer.key).into_iter().chain(given).collect();
        let mut seen = HashSet::new();
        addresses.retain(|address| seen.insert(address.clone()));
        (addresses, unresolved)
    }

    /// Where a peer is by its hint, and by what others say.
    async fn given(&self, peer: &PeerAddr) -> (Vec<Multiaddr>, Option<Failure>) {
        let hints = self.addresses.hints(&peer.key);
        let all = future::join_all(peer.hint.iter().chain(&hints).map(|hint| self.resolved(hint))).await;
        let (mut addresses, mut failures) = (Vec::new(), Vec::new());
        for resolved in all {
            match resolved {
                Ok(resolved) => addresses.extend(resolved),
                Err(failure) => failures.push(failure),
            }
        }
        (addresses, (!failures.is_empty()).then_some(Failure::Several(failures)))
    }

    async fn resolved(&self, hint: &DialAddress) -> Result<Vec<Multiaddr>, Failure> {
        match hint {
            // Behind a proxy a name is the proxy's to resolve; nothing else may know it.
            DialAddress::HostPort(at) if at.ip().is_none() && self.is_proxied(at) => Ok(vec![address::named_tcp(at)]),
            hint => resolve::multiaddresses(hint).await.map_err(|error| unresolved(hint, error)),
        }
    }

    /// Tries the first node's answer, and each later announcement that another one holds: a node that has slept, or
    /// is malicious, has old ones.
    async fn dial_found(&self, peer: &PublicKey) -> Result<Multiaddr, Failure> {
        let mut answers = self.look_up(peer).await?;
        let (mut newest, mut dials, mut failures) = (0, FuturesUnordered::new(), Vec::new());
        loop {
            tokio::select! {
                Some(answer) = answers.recv() => if answer.sequence > newest {
                    newest = answer.sequence;
                    dials.push(self.dial(*peer, addresses(answer)));
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
    /// A peer with its whole fleet at its door is slow, and has no room for a while; another handshake makes it slower. So QUIC
    /// waits longer where TCP was the last way, or the host has taken the connection, and is mostly left out where TCP was closed.
    pub(crate) fn dial(&self, peer: PublicKey, addresses: Vec<Multiaddr>) -> BoxFuture<'_, Result<Multiaddr, Failure>> {
        // On the heap: several of these futures may be part of one attempt, and each holds all of its own.
        self.dial_in_order(peer, addresses).boxed()
    }

    async fn dial_in_order(&self, peer: PublicKey, addresses: Vec<Multiaddr>) -> Result<Multiaddr, Failure> {
        let known = self.addresses.address(&peer).as_ref().map(LinkTransport::of) == Some(LinkTransport::Tcp);
        let circuits: Vec<Circuit> = addresses.iter().filter_map(Circuit::parse).collect();
        let direct: Vec<_> = addresses.into_iter().filter(address::is_dialable).collect();
        let public = direct.iter().any(|address| !address::is_private(address));
        let direct_head_start = if public { HEAD_START } else { Duration::ZERO };
        let by_transport = address::by_transport(direct);
        let mut answered = self.answered.since_now();
        let tcp_addresses = by_transport[0].clone();
        let [tcp, quic, websocket] = by_transport.map(|addresses| self.dial_at_once(peer, addresses));
        let no_room = AtomicBool::new(false);
        let tcp = tcp
            .inspect_ok(|_| self.crowded.store(0, Ordering::Relaxed))
            .inspect_err(|failure| no_room.store(self.is_crowded(failure, known), Ordering::Relaxed));
        let head_start = async {
            let least = if known { KNOWN_HEAD_START } else { HEAD_START };
            patience::sleep(least).await;
            if answered.any(&tcp_addresses) {
                time::sleep(ANSWERED_HEAD_START - least).await;
            }
        };
        let last = staggered(websocket, direct_head_start, self.dial_circuits(peer, circuits));
        let others = staggered(quic, direct_head_start, last.map_err(Failure::from)).map_err(Failure::from);
        let others = async { if no_room.load(Ordering::Relaxed) { Err(Failure::Nothing) } else { others.await } };
        Ok(staggered_after(tcp, head_start, others).await?)
    }

    /// True if the peer's host has closed the connection, or refused it where it took one the last time: the peer is there and
    /// has no room, or is about to be there. Not true of one in [`CROWDED`], or in [`KNOWN_CROWDED`].
    fn is_crowded(&self, failure: &Failure, known: bool) -> bool {
        let Failure::Dial(DialFailure::Unreachable { attempts }) = failure else { return false };
        let closed = |attempt: &Attempt| match attempt.kind {
            AttemptKind::Cut | AttemptKind::NoRoom => true,
            AttemptKind::Refused => known,
            _ => false,
        };
        let crowded = if known { KNOWN_CROWDED } else { CROWDED };
        !attempts.is_empty()
            && attempts.iter().all(closed)
            && self.crowded.fetch_add(1, Ordering::Relaxed) % crowded != crowded - 1
    }

    /// QUIC, and TCP a moment later or as soon as QUIC is there; returns with the first, and the other one goes on. A
    /// relay hands circuits over the connection that came first, and TCP has room for few. WebSocket if neither works.
    async fn dial_both(&self, peer: PublicKey, addresses: Vec<Multiaddr>) -> Result<Multiaddr, Failure> {
        let [tcp, quic, websocket] =
            address::by_transport(addresses).map(|addresses| self.dial_at_once(peer, addresses));
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
                Some((_, addresses)) => addresses.push(at),
                None => relays.push((relay, vec![at])),
            }
        }
        let mut attempts: FuturesUnordered<_> = relays
            .into_iter()
            .take(MAX_RELAYS)
            .zip(0..)
            .map(|((relay, addresses), turn)| async move {
                time::sleep(HEAD_START * turn).await;
                self.dial_through(peer, relay, addresses).await
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

    /// Links the relay over both transports before the circuit goes through it: the relay reports how it sees us in each,
    /// and the hole punch that follows has to know both.
    async fn dial_through(
        &self,
        peer: PublicKey,
        relay: PublicKey,
        addresses: Vec<Multiaddr>,
    ) -> Result<Multiaddr, Failure> {
        let at = addresses.first().cloned().ok_or(Failure::Nothing)?;
        let circuit = Circuit { relay, at: at.clone() }.address();
        let [tcp, quic, websocket] = address::by_transport(addresses);
        let linked = self.links.transports(&relay);
        let missing = |transport, addresses| if linked.contains(&transport) { Vec::new() } else { addresses };
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
        // The addresses that the punch will use are taken when the circuit is made.
        let _ = time::timeout(IDENTIFY, self.links.identified(&relay)).await;
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
        self.command(Command::Dial { peer, addresses, reply }).await?;
        answer.await.map_err(|_| Failure::Closed)?.map_err(Failure::Dial)
    }

    /// Waits, soon after the start, for listeners of the kinds that are dialled: what is dialled before them comes from
    /// another port, and no hole is punched.
    async fn listeners(&self, dialled: &[Multiaddr]) {
        let Some(by) = self.listeners_by else { return };
        let kind = |address: &Multiaddr| (address::is_tcp(address), address::ip(address).map(|ip| ip.is_ipv4()));
        let listens = |listening: &[Multiaddr], to: &Multiaddr| {
            listening.iter().any(|own| address::is_dialable(own) && kind(own) == kind(to))
        };
        let mut reach = self.reach.clone();
        // Names are never dialled from a listener's port.
        let numbered = dialled.iter().filter(|to| address::ip(to).is_some());
        let all = reach.wait_for(|reach| numbered.clone().all(|to| listens(&reach.listeners, to)));
        let _ = time::timeout_at(by, all).await;
    }
}

#[derive(Debug)]
pub(crate) enum Failure {
    Nothing,
    Dial(DialFailure),
    Several(Vec<Failure>),
    /// The attempt failed before an address was dialled, or by a time limit of ours.
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

impl From<Closed> for Failure {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl From<Attempt> for Failure {
    fn from(attempt: Attempt) -> Self {
        Self::Other(Box::new(attempt))
    }
}

/// Those that libp2p can read.
fn addresses(announcement: Announcement) -> Vec<Multiaddr> {
    announcement.addresses.into_iter().filter_map(|bytes| Multiaddr::try_from(bytes).ok()).collect()
}

fn unresolved(hint: &DialAddress, error: io::Error) -> Failure {
    let failed = Attempt::without_address(AttemptKind::Unresolved, Some(Arc::new(error)));
    Attempt { address: Some(hint.clone()), ..failed }.into()
}

fn no_circuit(relay: &Multiaddr) -> Attempt {
    let source = io::Error::new(io::ErrorKind::TimedOut, format!("no circuit in {CIRCUIT:?}"));
    Attempt {
        address: address::dial_address(relay),
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
    staggered_after(first, time::sleep(head_start), second).await
}

/// As [`staggered`], with a head start that shows as it goes.
async fn staggered_after<T>(
    first: impl Future<Output = Result<T, Failure>>,
    head_start: impl Future<Output = ()>,
    second: impl Future<Output = Result<T, Failure>>,
) -> Result<T, [Failure; 2]> {
    let (mut first, second, head_start) = (pin!(first), pin!(second), pin!(head_start));
    if let Either::Left((early, _)) = future::select(&mut first, head_start).await {
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
