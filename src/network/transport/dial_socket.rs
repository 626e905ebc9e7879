//! TCP sockets that are dialled with.
//!
//! libp2p's dialler has no knob for the size of segments, and it can be set only before a connection is made.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use libp2p::{
    Multiaddr,
    core::transport::{ListenerId, TransportEvent},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, lookup_host};

use crate::network::address;

/// Bytes of a segment, so that it passes wherever QUIC does: QUIC's datagrams of 1200 bytes (RFC 9000, section 14) and their
/// headers are as long as this and TCP's. The dialler says this to the other end, too, so it holds in both directions, and
/// no link hangs on a line that drops longer packets without a word (RFC 2923, section 2.1).
const SEGMENT: u32 = 1188;

/// Connects from the port that we listen on, if one is given, as a hole punch must.
pub(crate) async fn connect(to: SocketAddr, from: Option<u16>) -> io::Result<TcpStream> {
    if let Some(port) = from {
        match bound(to, port)?.connect(to).await {
            // That port has a connection to there.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            connected => return connected,
        }
    }
    socket(to)?.connect(to).await
}

/// Connects to the first address of the name that answers.
pub(crate) async fn connect_to_name(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = None;
    for at in lookup_host((host, port)).await? {
        match connect(at, None).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
}

fn bound(to: SocketAddr, port: u16) -> io::Result<TcpSocket> {
    let socket = socket(to)?;
    socket.set_reuseport(true)?;
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    socket.bind(SocketAddr::new(any, port))?;
    Ok(socket)
}

fn socket(to: SocketAddr) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if to.is_ipv6() {
        socket.set_only_v6(true)?; // so that a listener may have the port in the other family
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_reuse_address(true)?;
    // Nothing drops packets there, and long ones are cheaper.
    if !to.ip().is_loopback() {
        socket.set_tcp_mss(SEGMENT)?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// Where we listen, and so what can be dialled from.
#[derive(Default)]
pub(crate) struct Listening(Vec<(ListenerId, Multiaddr)>);

impl Listening {
    /// Takes down what the listeners report.
    pub(crate) fn note<U, E>(&mut self, event: &TransportEvent<U, E>) {
        match event {
            TransportEvent::NewAddress { listener_id, listen_addr } => self.0.push((*listener_id, listen_addr.clone())),
            TransportEvent::AddressExpired { listener_id, listen_addr } => {
                self.0.retain(|(id, address)| (id, address) != (listener_id, listen_addr));
            }
            TransportEvent::ListenerClosed { listener_id, .. } => self.0.retain(|(id, _)| id != listener_id),
            _ => {}
        }
    }

    /// The port to dial an address from: that of a listener which could be reached from there.
    pub(crate) fn port_towards(&self, to: &SocketAddr) -> Option<u16> {
        let listeners = self.0.iter().filter_map(|(_, address)| address::socket_addr(address));
        let reachable =
            |at: &SocketAddr| at.is_ipv4() == to.is_ipv4() && at.ip().is_loopback() == to.ip().is_loopback();
        listeners.filter(reachable).map(|at| at.port()).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_reused_by_family_and_loopback_while_there_is_a_listener() {
        let mut listening = Listening::default();
        let (one, other) = (ListenerId::next(), ListenerId::next());
        let event = |listener_id, text: &str| TransportEvent::<(), ()>::NewAddress {
            listener_id,
            listen_addr: text.parse().expect("a multiaddr"),
        };
        listening.note(&event(one, "/ip4/127.0.0.1/tcp/1"));
        listening.note(&event(one, "/ip4/192.0.2.1/tcp/2"));
        listening.note(&event(other, "/ip6/2001:db8::1/tcp/3"));
        let port = |listening: &Listening, to: &str| listening.port_towards(&to.parse().expect("an address"));
        for (to, expected) in
            [("127.0.0.1:9", Some(1)), ("198.51.100.1:9", Some(2)), ("[2001:db8::2]:9", Some(3)), ("[::1]:9", None)]
        {
            assert_eq!(port(&listening, to), expected, "{to}");
        }
        let expired = "/ip4/192.0.2.1/tcp/2".parse().expect("a multiaddr");
        listening.note(&TransportEvent::<(), ()>::AddressExpired { listener_id: one, listen_addr: expired });
        assert_eq!(port(&listening, "198.51.100.1:9"), None);
        listening.note(&TransportEvent::<(), ()>::ListenerClosed { listener_id: other, reason: Ok(()) });
        assert_eq!(port(&listening, "[2001:db8::2]:9"), None);
    }

    #[tokio::test]
    async fn a_port_that_has_a_connection_to_there_already_does_not_stop_another() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let to = listener.local_addr().expect("an address");
        let first = connect(to, None).await.expect("connects");
        let port = first.local_addr().expect("an address").port();
        drop(connect(to, Some(port)).await.expect("connects from another port"));
    }
}
