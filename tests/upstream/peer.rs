//! Plain libp2p peers in memory.
//!
//! The test itself polls the peers; no task runs in the background. [`settle`] polls all of them until none has work left. What has
//! not happened by then happens only if a timer ends, so a test can assert that nothing comes without a clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, MemoryTransport},
        upgrade::Version,
    },
    identity::Keypair,
    multiaddr::Protocol,
    noise, relay,
    swarm::{
        self, NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
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
    fn peer_id(&self) -> PeerId;

    /// True if it had something to do.
    fn run(&mut self) -> bool;
}

impl<B: NetworkBehaviour> Polled for Peer<B> {
    fn peer_id(&self) -> PeerId {
        self.id
    }

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
