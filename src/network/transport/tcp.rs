//! TCP as libp2p wants it, with names, and through the proxy of the environment where there is one.
//!
//! Below both the plain TCP links and the WebSocket ones. Names get here as they were given: a proxy resolves them
//! itself, and TLS has to check them.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt, TryFutureExt,
    future::{BoxFuture, Ready},
    ready,
};
use libp2p::{
    Multiaddr,
    core::{
        Endpoint,
        transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
    },
    tcp::{self, tokio::TcpStream},
};
use socket2::{SockRef, TcpKeepalive};

use crate::{
    identity::HostPort,
    network::{
        address::{self, Direct},
        transport::{
            answered::Answered,
            dial_socket::{self, Listening},
            proxy::{self, Proxies},
            refusal::{Gate, NoRoom, Refusable},
        },
    },
    telemetry::Limit,
};

/// A silent connection is probed by the operating system, so that routers that forget it after 30 s do not, and so that
/// a dead one shows within 35 s: for a fraction of what a ping costs, which passes every layer at both ends.
const PROBED_AFTER: Duration = Duration::from_secs(20);
const PROBED_AGAIN_AFTER: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;

/// Connections that one poll refuses: the swarm has other work.
const REFUSED_AT_ONCE: usize = 64;

/// The operating system's error, or the proxy's. With a type of its own the error stays in the chain of sources: libp2p's
/// wrappers skip the outermost one that they get.
#[derive(Debug, thiserror::Error)]
#[error("TCP")]
pub(crate) struct TcpError(#[from] io::Error);

pub(crate) struct Transport {
    listeners: tcp::tokio::Transport,
    listening: Listening,
    proxies: Arc<Proxies>,
    answered: Answered,
    gate: Gate,
    below_websocket: bool,
}

impl Transport {
    /// Connections that come in and that `gate` refuses are closed with the reason.
    pub(crate) fn new(proxies: Arc<Proxies>, answered: Answered, gate: Gate) -> Self {
        let listeners = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
        Self { listeners, listening: Listening::default(), proxies, answered, gate, below_websocket: false }
    }

    pub(crate) fn below_websocket(self) -> Self {
        Self { below_websocket: true, ..self }
    }

    /// True if the address may be dialled. A stranger can name an address to us, and must neither have names looked up nor
    /// URLs asked.
    fn may_dial(&self, to: &HostPort, options: DialOpts) -> bool {
        let plain = !self.below_websocket && to.ip().is_some();
        let somewhere = to.port != 0 && !to.ip().is_some_and(|ip| ip.is_unspecified());
        somewhere && (plain || !is_named_by_a_stranger(options))
    }
}

impl libp2p::Transport for Transport {
    type Output = Refusable<TcpStream>;
    type Error = TcpError;
    type ListenerUpgrade = Accepted;
    type Dial = BoxFuture<'static, Result<Self::Output, TcpError>>;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<TcpError>> {
        self.listeners.listen_on(id, addr).map_err(|error| error.map(TcpError))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.listeners.remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<TcpError>> {
        let Some(Direct::Tcp(to)) = address::direct(&address::without_peer(&addr)) else {
            return Err(TransportError::MultiaddrNotSupported(addr));
        };
        if !self.may_dial(&to, options) {
            return Err(TransportError::MultiaddrNotSupported(addr));
        }
        // A hole is punched from our own port.
        let proxy = self.proxies.before(&to).filter(|_| options.role == Endpoint::Dialer);
        if let Some(proxy) = proxy {
            let tunnel = async move { proxy::connect(proxy, &to).await.map(TcpStream).map_err(io::Error::other) };
            return Ok(async { opened(tunnel.await?) }.boxed());
        }
        let Some(ip) = to.ip() else {
            let named = async move { dial_socket::connect_to_name(&to.host, to.port).await.map(TcpStream) };
            return Ok(async { opened(named.await?) }.boxed());
        };
        let at = SocketAddr::new(ip, to.port);
        let from = self.listening.port_towards(&at).filter(|_| options.port_use == PortUse::Reuse);
        let answered = self.answered.clone();
        let dialled = dial_socket::connect(at, from).inspect_ok(move |_| answered.note(&addr));
        Ok(async { opened(TcpStream(dialled.await?)) }.boxed())
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, TcpError>> {
        for _ in 0..REFUSED_AT_ONCE {
            let event = ready!(Pin::new(&mut self.listeners).poll(cx));
            self.listening.note(&event);
            let (refused, no_place) = match &event {
                TransportEvent::Incoming { send_back_addr, .. } => {
                    (self.gate.refuses(send_back_addr), NoRoom::half_open(send_back_addr))
                }
                _ => (None, NoRoom(Limit::HalfOpen)),
            };
            let Some(no_room) = refused else {
                let accepted = |stream: Ready<_>| Accepted { stream: Some(stream.into_inner()), no_place };
                return Poll::Ready(event.map_upgrade(accepted).map_err(TcpError));
            };
            if let Some((stream, _)) = event.into_incoming() {
                let _ = stream.into_inner().inspect(|stream| no_room.close(stream));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A connection that another opened. One that is dropped before its handshake begins, for want of a place, is told so.
pub(crate) struct Accepted {
    stream: Option<io::Result<TcpStream>>,
    no_place: NoRoom,
}

impl Future for Accepted {
    type Output = Result<Refusable<TcpStream>, TcpError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(stream) = self.stream.take() else { return Poll::Pending };
        Poll::Ready(stream.map_err(TcpError).and_then(kept_alive).map(Refusable::accepted))
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        if let Some(Ok(stream)) = &self.stream {
            self.no_place.close(stream);
        }
    }
}

/// True for a hole punch, a straight dial to a relayed peer, and a dial-back (AutoNAT): the peer itself names the address.
/// Nothing else plays the listener, or dials from another port than ours.
fn is_named_by_a_stranger(DialOpts { role, port_use }: DialOpts) -> bool {
    role == Endpoint::Listener || port_use == PortUse::New
}

fn opened(stream: TcpStream) -> Result<Refusable<TcpStream>, TcpError> {
    kept_alive(stream).map(Refusable::opened)
}

fn kept_alive(stream: TcpStream) -> Result<TcpStream, TcpError> {
    let probes = TcpKeepalive::new().with_time(PROBED_AFTER).with_interval(PROBED_AGAIN_AFTER).with_retries(PROBES);
    SockRef::from(&stream.0).set_tcp_keepalive(&probes)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use libp2p::Transport as _;

    use super::*;

    #[tokio::test]
    async fn both_ends_of_a_connection_are_kept_alive() {
        let transport = || Transport::new(Arc::new(Proxies::from_env()), Answered::new(), Gate::open());
        let mut server = transport();
        let any = "/ip4/127.0.0.1/tcp/0".parse().expect("a multiaddr");
        server.listen_on(ListenerId::next(), any).expect("listens");
        let mut events = Box::pin(stream::poll_fn(|cx| Pin::new(&mut server).poll(cx).map(Some)));
        let at = events.next().await.and_then(TransportEvent::into_new_address).expect("listens");
        let direct = DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse };
        let Some(Direct::Tcp(HostPort { port, .. })) = address::direct(&at) else { panic!("{at}") };
        let named = format!("/dns/localhost/tcp/{port}").parse().expect("a multiaddr");
        for to in [at, named] {
            let dialled = transport().dial(to.clone(), direct).expect("dials").await.expect("connects");
            let (upgrade, _) = events.next().await.and_then(TransportEvent::into_incoming).expect("accepts");
            for (end, stream) in [("dialled", dialled), ("accepted", upgrade.await.expect("accepts"))] {
                let socket = SockRef::from(&stream.get_ref().0);
                assert!(socket.keepalive().expect("an option"), "{end}, {to}");
                assert_eq!(socket.tcp_keepalive_time().expect("an option"), PROBED_AFTER, "{end}, {to}");
            }
        }
    }

    #[tokio::test]
    async fn a_stranger_can_name_plain_addresses_only() {
        let dials = |role, port_use, websocket: bool, to: &str| {
            let transport = Transport::new(Arc::new(Proxies::from_env()), Answered::new(), Gate::open());
            let mut transport = if websocket { transport.below_websocket() } else { transport };
            transport.dial(to.parse().expect("a multiaddr"), DialOpts { role, port_use }).is_ok()
        };
        for (websocket, to) in
            [(false, "/ip4/127.0.0.1/tcp/1"), (false, "/dns/localhost/tcp/1"), (true, "/ip4/127.0.0.1/tcp/1")]
        {
            assert!(dials(Endpoint::Dialer, PortUse::Reuse, websocket, to), "{to}");
            let plain = !websocket && to.starts_with("/ip4");
            assert_eq!(dials(Endpoint::Listener, PortUse::Reuse, websocket, to), plain, "a punch: {to}");
            assert_eq!(dials(Endpoint::Dialer, PortUse::New, websocket, to), plain, "a dial-back: {to}");
        }
    }
}
