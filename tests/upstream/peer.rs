//! Plain libp2p peers in memory, and a behaviour that opens and accepts raw streams.
//!
//! The test itself polls the peers; no task runs in the background. [`settle`] polls all of them until none has work left. What has
//! not happened by then happens only if a timer ends, so a test can assert that nothing comes without a clock.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, ready},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, Transport,
    core::{
        Endpoint, UpgradeInfo,
        muxing::StreamMuxerBox,
        transport::{Boxed, MemoryTransport, PortUse},
        upgrade::{InboundUpgrade, OutboundUpgrade, Version},
    },
    identity::Keypair,
    multiaddr::Protocol,
    noise, relay,
    swarm::{
        self, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, SubstreamProtocol, SwarmEvent, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        dial_opts::{DialOpts, PeerCondition},
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
    yamux,
};

use crate::list::mended;

/// How long [`until`] waits before it fails. A test that passes never waits that long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A swarm with a memory transport, and its events so far.
pub(crate) struct Peer<B: NetworkBehaviour> {
    swarm: Swarm<B>,
    pub(crate) events: Vec<SwarmEvent<B::ToSwarm>>,
    pub(crate) keypair: Keypair,
    pub(crate) id: PeerId,
    /// Where it listens.
    pub(crate) address: Multiaddr,
    woken: Arc<Woken>,
}

/// How a peer differs from libp2p's defaults.
#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) yamux: yamux::Config,
    pub(crate) lazy_streams: bool,
    /// Connections that no behaviour keeps alive are closed at once.
    pub(crate) close_idle: bool,
}

impl<B: NetworkBehaviour> Peer<B> {
    pub(crate) fn new(behaviour: impl FnOnce(&Keypair) -> B) -> Self {
        Self::with(Settings::default(), |keypair, _| behaviour(keypair))
    }

    /// The behaviour may use the client of a relay; circuits are part of the transport.
    pub(crate) fn with(settings: Settings, behaviour: impl FnOnce(&Keypair, relay::client::Behaviour) -> B) -> Self {
        static PORT: AtomicU64 = AtomicU64::new(1);
        let keypair = Keypair::generate_ed25519();
        let id = keypair.public().to_peer_id();
        let (circuits, client) = relay::client::new(id);
        let transport = transport(&keypair, settings.yamux, circuits);
        let mut config = swarm::Config::without_executor();
        config = config.with_idle_connection_timeout(match settings.close_idle {
            true => Duration::ZERO,
            false => Duration::from_secs(600),
        });
        if settings.lazy_streams {
            config = config.with_substream_upgrade_protocol_override(Version::V1Lazy);
        }
        let mut swarm = Swarm::new(transport, behaviour(&keypair, client), id, config);
        let address = memory(PORT.fetch_add(1, Ordering::Relaxed));
        swarm.listen_on(address.clone()).expect("a free port");
        let woken = Arc::new(Woken { thread: thread::current(), woken: AtomicBool::new(true) });
        Self { swarm, events: Vec::new(), keypair, id, address, woken }
    }

    /// For the test to act on; it is polled again after that.
    pub(crate) fn swarm(&mut self) -> &mut Swarm<B> {
        self.woken.woken.store(true, Ordering::Relaxed);
        &mut self.swarm
    }

    pub(crate) fn behaviour(&mut self) -> &mut B {
        self.swarm().behaviour_mut()
    }

    /// Dials a peer at an address, whether or not there is a connection to it.
    pub(crate) fn dial(&mut self, peer: PeerId, address: Multiaddr) {
        let options = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(vec![address]).build();
        self.swarm().dial(options).expect("nothing denies it");
    }
}

/// An address that nobody listens on.
pub(crate) fn nowhere() -> Multiaddr {
    memory(u64::MAX)
}

pub(crate) fn memory(port: u64) -> Multiaddr {
    Multiaddr::empty().with(Protocol::Memory(port))
}

fn transport(
    keypair: &Keypair,
    yamux: yamux::Config,
    circuits: relay::client::Transport,
) -> Boxed<(PeerId, StreamMuxerBox)> {
    let noise = noise::Config::new(keypair).expect("a Noise key");
    let transport = circuits.or_transport(MemoryTransport::default());
    transport.upgrade(Version::V1).authenticate(noise).multiplex(yamux).boxed()
}

struct Woken {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

/// Any [`Peer`].
pub(crate) trait Polled {
    /// True if it had something to do.
    fn run(&mut self) -> bool;
}

impl<B: NetworkBehaviour> Polled for Peer<B> {
    fn run(&mut self) -> bool {
        if !self.woken.woken.swap(false, Ordering::Relaxed) {
            return false;
        }
        let waker = Waker::from(Arc::clone(&self.woken));
        while let Poll::Ready(Some(event)) = self.swarm.poll_next_unpin(&mut Context::from_waker(&waker)) {
            self.events.push(event);
        }
        true
    }
}

/// Polls the peers until none of them has anything left to do.
pub(crate) fn settle(peers: &mut [&mut dyn Polled]) {
    while peers.iter_mut().filter_map(|peer| peer.run().then_some(())).count() > 0 {}
}

/// Connects one peer to another.
pub(crate) fn connect<A: NetworkBehaviour, B: NetworkBehaviour>(from: &mut Peer<A>, to: &mut Peer<B>) {
    from.dial(to.id, to.address.clone());
    settle(&mut [from, to]);
    assert!(from.swarm.is_connected(&to.id), "the peers connect");
}

/// Polls peers, and sleeps while they wait for a timer, until `done` finds what it looks for.
macro_rules! until {
    ([$($peer:ident),+], $done:expr) => {{
        let started = std::time::Instant::now();
        loop {
            $crate::peer::settle(&mut [$(&mut $peer),+]);
            if let Some(found) = $done {
                break found;
            }
            $crate::peer::sleep(started);
        }
    }};
}
pub(crate) use until;

/// Until a peer is woken; panics if that takes long.
pub(crate) fn sleep(started: Instant) {
    let left = PATIENCE.checked_sub(started.elapsed()).unwrap_or_else(|| panic!("{}", mended()));
    thread::park_timeout(left);
}

/// Opens and accepts streams of these protocols; the test reads and writes them.
pub(crate) struct Raw {
    protocols: Vec<StreamProtocol>,
    asked: VecDeque<(PeerId, StreamProtocol)>,
    got: VecDeque<RawStream>,
}

/// A stream that a [`Raw`] peer opened or accepted.
#[derive(Debug)]
pub(crate) struct RawStream {
    pub(crate) stream: Stream,
}

impl RawStream {
    /// Writes, with a length in front as libp2p's protocols have it.
    pub(crate) fn send(&mut self, message: &[u8]) {
        let bytes = [length(message.len()), message.to_vec()].concat();
        self.stream.write_all(&bytes).now_or_never().expect("room").expect("an open stream");
        self.stream.flush().now_or_never().expect("room").expect("an open stream");
    }

    /// What is there to be read now: none if nothing has come yet.
    pub(crate) fn read(&mut self) -> Option<io::Result<Vec<u8>>> {
        let mut buffer = vec![0; 1024];
        let read = self.stream.read(&mut buffer).now_or_never()?;
        Some(read.map(|length| {
            buffer.truncate(length);
            buffer
        }))
    }

    /// Whether the other side has ended it, properly or by a reset, before it wrote anything.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.read().is_some_and(|read| read.map_or(true, |bytes| bytes.is_empty()))
    }
}

impl Peer<Raw> {
    pub(crate) fn raw(protocols: &[StreamProtocol]) -> Self {
        Self::raw_with(Settings::default(), protocols)
    }

    pub(crate) fn raw_with(settings: Settings, protocols: &[StreamProtocol]) -> Self {
        let raw = Raw { protocols: protocols.to_vec(), asked: VecDeque::new(), got: VecDeque::new() };
        Self::with(settings, |_, _| raw)
    }

    /// Asks for a stream; [`Peer::streams`] has it later.
    pub(crate) fn open(&mut self, peer: PeerId, protocol: StreamProtocol) {
        self.behaviour().asked.push_back((peer, protocol));
    }

    /// Opens one stream to a connected peer.
    pub(crate) fn opened(&mut self, to: &mut impl PolledPeer, protocol: StreamProtocol) -> RawStream {
        self.open(to.peer_id(), protocol);
        settle(&mut [self, to]);
        self.streams().pop().expect("a stream")
    }

    /// The streams that have come since the last call.
    pub(crate) fn streams(&mut self) -> Vec<RawStream> {
        self.behaviour().got.drain(..).collect()
    }
}

/// Bytes as a field of a Protobuf message.
pub(crate) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![number << 3 | 2], length(bytes.len()), bytes.to_vec()].concat()
}

/// Below 16 384, as an unsigned varint.
fn length(length: usize) -> Vec<u8> {
    let byte = |length: usize| u8::try_from(length).expect("a short message");
    match length {
        0..0x80 => vec![byte(length)],
        _ => vec![byte(length & 0x7f) | 0x80, byte(length >> 7)],
    }
}

/// Any [`Peer`], with its name.
pub(crate) trait PolledPeer: Polled {
    fn peer_id(&self) -> PeerId;
}

impl<B: NetworkBehaviour> PolledPeer for Peer<B> {
    fn peer_id(&self) -> PeerId {
        self.id
    }
}

impl NetworkBehaviour for Raw {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler { protocols: self.protocols.clone(), asked: VecDeque::new(), got: VecDeque::new() })
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler { protocols: self.protocols.clone(), asked: VecDeque::new(), got: VecDeque::new() })
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, stream: THandlerOutEvent<Self>) {
        self.got.push_back(stream);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.asked.pop_front() {
            Some((peer_id, event)) => {
                Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::Any, event })
            }
            None => Poll::Pending,
        }
    }
}

pub(crate) struct Handler {
    protocols: Vec<StreamProtocol>,
    asked: VecDeque<StreamProtocol>,
    got: VecDeque<RawStream>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = StreamProtocol;
    type ToBehaviour = RawStream;
    type InboundProtocol = Wanted;
    type OutboundProtocol = Wanted;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Wanted> {
        SubstreamProtocol::new(Wanted(self.protocols.clone()), ())
    }

    fn on_behaviour_event(&mut self, protocol: StreamProtocol) {
        self.asked.push_back(protocol);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Wanted, (), RawStream>> {
        if let Some(stream) = self.got.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(stream));
        }
        match self.asked.pop_front() {
            Some(protocol) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Wanted(vec![protocol]), ()),
            }),
            None => Poll::Pending,
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Wanted, Wanted>) {
        let stream = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => protocol,
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => protocol,
            _ => return,
        };
        self.got.push_back(RawStream { stream });
    }
}

/// Negotiates any of these protocols.
pub(crate) struct Wanted(Vec<StreamProtocol>);

impl UpgradeInfo for Wanted {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Wanted {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

impl OutboundUpgrade<Stream> for Wanted {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}
