//! A libp2p peer that is nobody's scraper and asks for metrics all the same.
//!
//! Spoken by hand, stream by stream, so that the test does not depend on the code that it tests.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{
    Transport,
    core::{
        muxing::{StreamMuxerBox, StreamMuxerExt},
        transport::{Boxed, ListenerId, TransportEvent},
        upgrade::{OutboundConnectionUpgrade, Version},
    },
    identity::{Keypair, PeerId},
    noise, tcp, yamux,
};
use narthex::identity::{KeyPair, PeerAddr};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::SOON;

/// The protocols of a TCP link.
const NOISE: &str = "/noise";
const YAMUX: &str = "/yamux/1.0.0";
/// A peer that takes nothing for this long has its buffers full.
const STUCK: Duration = Duration::from_secs(2);

/// Waits on `port` for a peer to connect, asks it for `alias` by the pull protocol as a scraper would, and gives every
/// byte that came back before the peer ended the stream.
pub(crate) async fn pull_from_whoever_connects(key: &KeyPair, port: u16, alias: &str) -> Vec<u8> {
    let request = format!("GET /{alias} HTTP/1.1\r\nHost: {alias}\r\n\r\n");
    ask_whoever_connects(key, port, &[request]).await.remove(0)
}

/// Waits on `port` for a peer to connect, sends it each request on a pull stream of its own, byte for byte, and gives
/// what came back on each before the peer ended it.
pub(crate) async fn ask_whoever_connects(key: &KeyPair, port: u16, requests: &[String]) -> Vec<Vec<u8>> {
    let mut transport = transport(key);
    let address = format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("an address");
    transport.listen_on(ListenerId::next(), address).expect("the port is free");
    let mut muxer = loop {
        let event = poll_fn(|cx| Pin::new(&mut transport).poll(cx)).await;
        if let TransportEvent::Incoming { upgrade, .. } = event {
            break upgrade.await.expect("the peer connects").1;
        }
    };
    let mut answers = Vec::new();
    for request in requests {
        answers.push(ask(&mut muxer, request).await);
    }
    answers
}

/// Connects to the peer at its hint, on this host, and opens `count` streams of each protocol, one after the other, that
/// end where its first message should begin. Gives how many the peer agreed to.
pub(crate) async fn open_empty_streams(peer: &PeerAddr, protocols: &[&str], count: usize) -> usize {
    let mut link = Link::dial(peer, &KeyPair::generate()).await.expect("the peer takes connections");
    let muxer = &mut link.0;
    let mut agreed = 0;
    for protocol in protocols {
        let (name, opening) = (format!("{protocol}\n"), negotiation(protocol));
        for _ in 0..count {
            let exchange = exchange(muxer, &opening, true);
            let came_back = timeout(SOON, exchange).await.expect("a stream ends");
            agreed += usize::from(came_back.ends_with(name.as_bytes()));
        }
    }
    agreed
}

/// A link to a peer that takes connections.
pub(crate) struct Link(StreamMuxerBox);

impl Link {
    /// Links by TCP to the peer at its hint, an address of this host. The peer sees the link come from the same address.
    pub(crate) async fn dial(peer: &PeerAddr, key: &KeyPair) -> io::Result<Self> {
        let mut link = secured(peer, key).await?;
        select(&mut link, YAMUX).await?;
        let muxer = yamux::Config::default().upgrade_outbound(link, YAMUX).await.map_err(io::Error::other)?;
        Ok(Self(StreamMuxerBox::new(muxer)))
    }

    /// Opens a stream of the protocol, sends the bytes, reports that, and waits until the peer ends the stream. An error
    /// is the end of the link.
    pub(crate) async fn wait_on_stream(
        &mut self,
        protocol: &str,
        bytes: &[u8],
        opened: impl FnOnce(),
    ) -> io::Result<()> {
        let mut stream = poll_fn(|cx| {
            keep_going(&mut self.0, cx);
            self.0.poll_outbound_unpin(cx)
        })
        .await?;
        let mut wait = Box::pin(async {
            stream.write_all(&[&negotiation(protocol), bytes].concat()).await?;
            stream.flush().await?;
            opened();
            stream.read_to_end(&mut Vec::new()).await
        });
        poll_fn(|cx| {
            keep_going(&mut self.0, cx);
            wait.as_mut().poll(cx)
        })
        .await?;
        Ok(())
    }
}

/// Links to the peer, and makes it answer without reading the answers; returns once the peer has closed the connection.
pub(crate) async fn read_nothing(peer: &PeerAddr, key: &KeyPair, stuck: impl FnOnce()) -> io::Result<Infallible> {
    let mut link = secured(peer, key).await?;
    select(&mut link, YAMUX).await?;
    // Version 0, a ping, to be answered, of the session: what yamux answers first of all.
    let pings = [0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0].repeat(1000);
    while let Ok(sent) = timeout(STUCK, link.write_all(&pings)).await {
        sent?;
    }
    stuck();
    loop {
        link.write_all(&pings).await?;
    }
}

/// Connects to the peer at its hint from the same address, and proves the key.
async fn secured(peer: &PeerAddr, key: &KeyPair) -> io::Result<noise::Output<Compat<TcpStream>>> {
    let at = peer.hint.as_ref().expect("an address").host_port();
    let at = SocketAddr::new(at.ip().expect("an IP address"), at.port);
    let socket = TcpSocket::new_v4()?;
    socket.bind((at.ip(), 0).into())?;
    let mut socket = socket.connect(at).await?.compat();
    select(&mut socket, NOISE).await?;
    let noise = noise::Config::new(&keypair(key)).expect("a key");
    Ok(noise.upgrade_outbound(socket, NOISE).await.map_err(io::Error::other)?.1)
}

async fn select(io: &mut (impl AsyncRead + AsyncWrite + Unpin), protocol: &str) -> io::Result<()> {
    let proposal = negotiation(protocol);
    io.write_all(&proposal).await?;
    io.flush().await?;
    io.read_exact(&mut vec![0; proposal.len()]).await
}

fn keypair(key: &KeyPair) -> Keypair {
    Keypair::ed25519_from_bytes(*key.seed()).expect("a seed of 32 bytes")
}

fn transport(key: &KeyPair) -> Boxed<(PeerId, StreamMuxerBox)> {
    tcp::tokio::Transport::new(tcp::Config::default())
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&keypair(key)).expect("a key"))
        .multiplex(yamux::Config::default())
        .boxed()
}

/// What proposes a protocol on a new stream (multistream-select 1.0).
fn negotiation(protocol: &str) -> Vec<u8> {
    let messages = ["/multistream/1.0.0", protocol];
    messages.iter().flat_map(|message| [&[message.len() as u8 + 1], message.as_bytes(), b"\n"].concat()).collect()
}

async fn ask(muxer: &mut StreamMuxerBox, request: &str) -> Vec<u8> {
    exchange(muxer, &[&negotiation("/narthex/pull/1"), request.as_bytes()].concat(), false).await
}

/// Sends the bytes on a stream of their own and gives what comes back before the peer ends it. If `end`, the peer learns
/// that nothing follows, and no more than the same number of bytes is waited for.
async fn exchange(muxer: &mut StreamMuxerBox, bytes: &[u8], end: bool) -> Vec<u8> {
    let most = if end { bytes.len() as u64 } else { u64::MAX };
    let mut stream = poll_fn(|cx| {
        keep_going(muxer, cx);
        muxer.poll_outbound_unpin(cx)
    })
    .await
    .expect("the peer takes streams");

    let mut came_back = Vec::new();
    let mut ask = Box::pin(async {
        // Errors are the peer's refusal.
        let sent = stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok();
        if sent && (!end || stream.close().await.is_ok()) {
            let _ = stream.take(most).read_to_end(&mut came_back).await;
        }
    });
    poll_fn(|cx| {
        keep_going(muxer, cx);
        ask.as_mut().poll(cx)
    })
    .await;
    drop(ask);
    came_back
}

/// Drives the connection; what the peer asks on streams of its own is refused.
fn keep_going(muxer: &mut StreamMuxerBox, cx: &mut Context<'_>) {
    while let Poll::Ready(Ok(stream)) = muxer.poll_inbound_unpin(cx) {
        drop(stream);
    }
    let _ = muxer.poll_unpin(cx);
}
