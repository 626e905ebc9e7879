//! A libp2p peer that is nobody's scraper and asks for metrics all the same.
//!
//! Spoken by hand, stream by stream, so that the test does not depend on the code that it tests.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{
    Transport,
    core::{
        muxing::{StreamMuxerBox, StreamMuxerExt},
        transport::{ListenerId, TransportEvent},
        upgrade::Version,
    },
    identity::Keypair,
    noise, tcp, yamux,
};
use narthex::identity::KeyPair;

/// Waits on `port` for a peer to connect, asks it for `alias` by the pull protocol as a scraper would, and gives every
/// byte that came back before the peer ended the stream.
pub(crate) async fn pull_from_whoever_connects(key: &KeyPair, port: u16, alias: &str) -> Vec<u8> {
    let request = format!("GET /{alias} HTTP/1.1\r\nHost: {alias}\r\n\r\n");
    ask_whoever_connects(key, port, &[request]).await.remove(0)
}

/// Waits on `port` for a peer to connect, sends it each request on a pull stream of its own, byte for byte, and gives
/// what came back on each before the peer ended it.
pub(crate) async fn ask_whoever_connects(key: &KeyPair, port: u16, requests: &[String]) -> Vec<Vec<u8>> {
    let keypair = Keypair::ed25519_from_bytes(*key.seed()).expect("a seed of 32 bytes");
    let mut transport = tcp::tokio::Transport::new(tcp::Config::default())
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&keypair).expect("a key"))
        .multiplex(yamux::Config::default())
        .boxed();
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

async fn ask(muxer: &mut StreamMuxerBox, request: &str) -> Vec<u8> {
    let mut stream = poll_fn(|cx| {
        keep_going(muxer, cx);
        muxer.poll_outbound_unpin(cx)
    })
    .await
    .expect("the peer takes streams");

    let mut came_back = Vec::new();
    let mut ask = Box::pin(async {
        let mut bytes = Vec::new();
        for message in ["/multistream/1.0.0\n", "/narthex/pull/1\n"] {
            bytes.push(message.len() as u8);
            bytes.extend_from_slice(message.as_bytes());
        }
        bytes.extend_from_slice(request.as_bytes());
        // Errors are the peer's refusal.
        if stream.write_all(&bytes).await.is_ok() && stream.flush().await.is_ok() {
            let _ = stream.read_to_end(&mut came_back).await;
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
