//! Circuit relay v2, the server's side.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    relay::{self, HOP_PROTOCOL_NAME as HOP, STOP_PROTOCOL_NAME as STOP, StatusCode},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, SwarmEvent, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
    yamux,
};

use crate::{
    list::mended,
    peer::{Peer, Settings, connect, settle, until},
    raw::{NOTHING, Raw, RawStream, field},
};

/// `HopMessage` of type `RESERVE`.
const RESERVE: &[u8] = &[0x08, 0x00];
/// `StopMessage` of type `STATUS`, with the status `OK`.
const ACCEPT: &[u8] = &[0x08, 0x01, 0x20, 0x64];

/// `HopMessage` of type `CONNECT`, to that peer.
fn connect_to(peer: PeerId) -> Vec<u8> {
    [vec![0x08, 0x01], field(2, &field(1, &peer.to_bytes()))].concat()
}

/// Limits that no test meets by accident.
fn config() -> relay::Config {
    relay::Config {
        max_circuits_per_peer: 64,
        reservation_rate_limiters: Vec::new(),
        circuit_src_rate_limiters: Vec::new(),
        ..relay::Config::default()
    }
}

fn behaviour(local: PeerId, config: relay::Config) -> relay::Behaviour {
    let mut relay = relay::Behaviour::new(local, config);
    relay.set_status(Some(relay::Status::Enable));
    relay
}

fn relay_with(settings: Settings, config: relay::Config) -> Peer<relay::Behaviour> {
    Peer::with(settings, |keypair, _| behaviour(keypair.public().to_peer_id(), config))
}

/// A relay, and two peers that are connected to it: one is to be reached, the other asks for circuits.
fn relayed(config: relay::Config) -> (Peer<relay::Behaviour>, Peer<Raw>, Peer<Raw>) {
    let mut relay = relay_with(Settings::default(), config);
    let (mut target, mut source) = (Peer::raw(STOP), Peer::raw(NOTHING));
    connect(&mut target, &mut relay);
    connect(&mut source, &mut relay);
    reserve(&mut target, &mut relay);
    (relay, target, source)
}

/// Asks for a reservation on a stream of its own.
fn reserve(target: &mut Peer<Raw>, relay: &mut Peer<impl NetworkBehaviour>) -> RawStream {
    let mut hop = target.opened(relay, HOP);
    hop.send(RESERVE);
    settle(&mut [target, relay]);
    hop
}

/// Asks for a circuit to the target, which sees a stream of the relay.
fn ask(source: &mut Peer<Raw>, relay: &mut Peer<relay::Behaviour>, target: &mut Peer<Raw>) -> RawStream {
    let mut hop = source.opened(relay, HOP);
    hop.send(&connect_to(target.id));
    settle(&mut [source, relay, target]);
    hop
}

/// A circuit that is being built.
fn building(
    source: &mut Peer<Raw>,
    relay: &mut Peer<relay::Behaviour>,
    target: &mut Peer<Raw>,
) -> (RawStream, RawStream) {
    let near = ask(source, relay, target);
    (near, target.streams().pop().expect("the relay's stream"))
}

/// Has a circuit built; gives both its ends.
fn circuit(
    source: &mut Peer<Raw>,
    relay: &mut Peer<relay::Behaviour>,
    target: &mut Peer<Raw>,
) -> (RawStream, RawStream) {
    let (near, mut far) = building(source, relay, target);
    assert!(far.read().is_some_and(|read| read.is_ok_and(|bytes| !bytes.is_empty())), "the relay's message");
    far.send(ACCEPT);
    settle(&mut [source, relay, target]);
    assert_eq!(count(relay, |event| matches!(event, relay::Event::CircuitReqAccepted { .. })), 1);
    (near, far)
}

fn events(relay: &Peer<relay::Behaviour>) -> impl Iterator<Item = &relay::Event> {
    relay.events.iter().filter_map(|event| match event {
        SwarmEvent::Behaviour(event) => Some(event),
        _ => None,
    })
}

fn count(relay: &Peer<relay::Behaviour>, wanted: impl Fn(&relay::Event) -> bool) -> usize {
    events(relay).filter(|event| wanted(event)).count()
}

#[test]
fn the_eleventh_circuit_being_built_to_a_peer_is_lost() {
    let (mut relay, mut target, mut source) = relayed(relay::Config { max_circuits: 11, ..config() });
    let mut asked: Vec<_> = (0..11).map(|_| ask(&mut source, &mut relay, &mut target)).collect();
    let mut offered = target.streams();
    let opened = offered.len();
    offered.retain_mut(|stream| !stream.has_ended());
    assert_eq!((opened, offered.len()), (11, 10), "{}", mended());

    offered.iter_mut().for_each(|stream| stream.send(ACCEPT));
    settle(&mut [&mut source, &mut relay, &mut target]);
    let unanswered = asked.iter_mut().filter_map(|hop| hop.read().is_none().then_some(())).count();
    assert_eq!(unanswered, 1, "{}", mended());

    // All the others end; the lost one still counts.
    drop((asked, offered));
    settle(&mut [&mut source, &mut relay, &mut target]);
    assert_eq!(count(&relay, |event| matches!(event, relay::Event::CircuitClosed { .. })), 10);
    let again: Vec<_> = (0..11).map(|_| ask(&mut source, &mut relay, &mut target)).collect();
    let full = count(&relay, |event| {
        matches!(event, relay::Event::CircuitReqDenied { status: StatusCode::ResourceLimitExceeded, .. })
    });
    assert_eq!(full, 1, "{}", mended());
    drop(again);
}

#[test]
fn a_circuit_too_many_for_yamux_closes_the_connection_with_all_the_others() {
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(4);
    let mut relay = relay_with(Settings { yamux, ..Settings::default() }, config());
    let (mut target, mut source, mut other) = (Peer::raw(STOP), Peer::raw(NOTHING), Peer::raw(NOTHING));
    for peer in [&mut target, &mut source, &mut other] {
        connect(peer, &mut relay);
    }
    drop(reserve(&mut target, &mut relay));
    settle(&mut [&mut target, &mut relay]);
    let circuits: Vec<_> = (0..2)
        .flat_map(|_| [building(&mut source, &mut relay, &mut target), building(&mut other, &mut relay, &mut target)])
        .collect();
    assert!(relay.swarm().is_connected(&target.id), "four circuits fit");
    let fifth = ask(&mut source, &mut relay, &mut target);
    assert!(!relay.swarm().is_connected(&target.id), "{}", mended());
    drop((circuits, fifth));
}

#[test]
fn a_reservation_that_runs_out_during_its_renewal_is_a_panic() {
    // A machine may be too busy for the short one.
    let renewed = [500, 5000].into_iter().find_map(|lasts| renew_late(Duration::from_millis(lasts)));
    let panicked = renewed.expect("a renewal in time").err().unwrap_or_else(|| panic!("{}", mended()));
    let why = panicked.downcast_ref::<&str>().copied().or(panicked.downcast_ref().map(String::as_str));
    assert!(why.is_some_and(|why| why.contains("valid connection")), "{}: {why:?}", mended());
}

/// Renews a reservation whose relay answers late. None if it ran out before it was renewed.
fn renew_late(lasts: Duration) -> Option<thread::Result<()>> {
    let config = relay::Config { reservation_duration: lasts, ..config() };
    let mut relay = Peer::new(|keypair| Slow {
        relay: behaviour(keypair.public().to_peer_id(), config),
        answers: 0,
        timed_out: false,
        held: None,
    });
    let mut target = Peer::raw(STOP);
    connect(&mut target, &mut relay);
    let _hops = [reserve(&mut target, &mut relay), reserve(&mut target, &mut relay)];
    if relay.behaviour().timed_out {
        return None;
    }
    let renewed = |relay: &Peer<Slow>| {
        let accepted = |event: &&SwarmEvent<relay::Event>| {
            matches!(event, SwarmEvent::Behaviour(relay::Event::ReservationReqAccepted { .. }))
        };
        relay.events.iter().filter(accepted).count() == 2
    };
    Some(catch_unwind(AssertUnwindSafe(|| until!([target, relay], renewed(&relay).then_some(())))))
}

/// A relay whose answer to a renewal reaches the connection only after the reservation has run out, as may happen on a busy
/// machine.
struct Slow {
    relay: relay::Behaviour,
    answers: usize,
    timed_out: bool,
    held: Option<ToSwarm<relay::Event, THandlerInEvent<relay::Behaviour>>>,
}

impl NetworkBehaviour for Slow {
    type ConnectionHandler = THandler<relay::Behaviour>;
    type ToSwarm = relay::Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.relay.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.relay.handle_established_outbound_connection(id, peer, remote, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.relay.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.relay.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if self.timed_out
            && let Some(answer) = self.held.take()
        {
            return Poll::Ready(answer);
        }
        let Poll::Ready(action) = self.relay.poll(cx) else { return Poll::Pending };
        match &action {
            ToSwarm::NotifyHandler { .. } => {
                self.answers += 1;
                if self.answers == 2 {
                    self.held = Some(action);
                    return Poll::Pending;
                }
            }
            ToSwarm::GenerateEvent(relay::Event::ReservationTimedOut { .. }) => self.timed_out = true,
            _ => {}
        }
        Poll::Ready(action)
    }
}

#[test]
fn a_closed_connection_reports_the_end_of_a_reservation_that_it_never_had() {
    let mut relay = relay_with(Settings::default(), config());
    let mut peer = Peer::raw(NOTHING);
    connect(&mut peer, &mut relay);
    let id = relay.id;
    peer.swarm().disconnect_peer_id(id).expect("connected");
    settle(&mut [&mut peer, &mut relay]);
    let closed = count(&relay, |event| matches!(event, relay::Event::ReservationClosed { .. }));
    assert_eq!(closed, 1, "{}", mended());
}

#[test]
fn a_circuit_whose_far_end_is_lost_ends_twice() {
    let (mut relay, mut target, mut source) = relayed(config());
    let circuit = circuit(&mut source, &mut relay, &mut target);
    drop(target);
    settle(&mut [&mut source, &mut relay]);
    drop(circuit);
    settle(&mut [&mut source, &mut relay]);
    let closed = count(&relay, |event| matches!(event, relay::Event::CircuitClosed { .. }));
    assert_eq!(closed, 2, "{}", mended());
}

#[test]
fn a_relay_that_is_full_refuses_a_renewal() {
    let mut relay = relay_with(Settings::default(), relay::Config { max_reservations: 1, ..config() });
    let mut target = Peer::raw(STOP);
    connect(&mut target, &mut relay);
    let hops = [reserve(&mut target, &mut relay), reserve(&mut target, &mut relay)];
    assert_eq!(count(&relay, |event| matches!(event, relay::Event::ReservationReqAccepted { .. })), 1, "{}", mended());
    let denied = count(&relay, |event| matches!(event, relay::Event::ReservationReqDenied { .. }));
    assert_eq!(denied, 1, "{}", mended());
    drop(hops);
}

#[test]
fn limits_per_peer_admit_one_too_many() {
    let limits = relay::Config { max_reservations_per_peer: 0, max_circuits_per_peer: 0, ..config() };
    let (mut relay, mut target, mut source) = relayed(limits);
    assert_eq!(count(&relay, |event| matches!(event, relay::Event::ReservationReqAccepted { .. })), 1, "{}", mended());
    let hop = ask(&mut source, &mut relay, &mut target);
    assert_eq!(target.streams().len(), 1, "{}", mended());
    drop(hop);
}

#[test]
fn a_limit_per_address_counts_each_ipv6_address() {
    let mut config = config().reservation_rate_per_ip(1.try_into().expect("not zero"), Duration::from_secs(60));
    let limiter = config.reservation_rate_limiters.last_mut().expect("the one");
    let now = Instant::now();
    let mut passes = |address: &str| limiter.try_next(PeerId::random(), &address.parse().expect("an address"), now);
    assert!(passes("/ip6/2001:db8::1/tcp/1") && !passes("/ip6/2001:db8::1/tcp/2"), "one of each address");
    assert!(passes("/ip6/2001:db8::2/tcp/1"), "{}", mended());
}

#[test]
fn a_circuit_at_its_byte_limit_ends_with_an_error_of_no_kind() {
    let (mut relay, mut target, mut source) = relayed(relay::Config { max_circuit_bytes: 1, ..config() });
    let (mut near, far) = circuit(&mut source, &mut relay, &mut target);
    near.send(b"more than that");
    settle(&mut [&mut source, &mut relay, &mut target]);
    let error = events(&relay).find_map(|event| match event {
        relay::Event::CircuitClosed { error, .. } => error.as_ref(),
        _ => None,
    });
    let error = error.expect("the circuit has ended with an error");
    assert_eq!(error.kind(), std::io::ErrorKind::Other, "{}", mended());
    // The words that relay_server.rs looks for.
    assert!(error.to_string().contains("Max circuit bytes"), "{error}");
    drop(far);
}
