//! TCP: ports.

use std::{future::poll_fn, pin::Pin, task::Poll};

use libp2p::{
    Multiaddr, Transport,
    core::transport::{ListenerId, TransportEvent},
    multiaddr::Protocol,
    tcp,
};

use crate::list::mended;

#[tokio::test]
async fn two_listeners_share_a_port() {
    let mut first = tcp::tokio::Transport::default();
    let at = listening(&mut first, "/ip4/127.0.0.1/tcp/0".parse().expect("an address")).await;
    let mut second = tcp::tokio::Transport::default();
    let shared = listening(&mut second, at.clone()).await;
    assert_eq!(shared, at, "{}", mended());
    let port = at.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None });
    let plain = std::net::TcpListener::bind(("127.0.0.1", port.expect("a port")));
    assert!(plain.is_err(), "the kernel refuses the port to a plain socket");
}

async fn listening(transport: &mut tcp::tokio::Transport, at: Multiaddr) -> Multiaddr {
    transport.listen_on(ListenerId::next(), at).unwrap_or_else(|_| panic!("{}", mended()));
    poll_fn(|cx| match Pin::new(&mut *transport).poll(cx) {
        Poll::Ready(TransportEvent::NewAddress { listen_addr, .. }) => Poll::Ready(listen_addr),
        Poll::Ready(other) => panic!("not an address: {other:?}"),
        Poll::Pending => Poll::Pending,
    })
    .await
}
