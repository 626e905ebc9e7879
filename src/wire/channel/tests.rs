//! Both ends of a channel over an in-memory stream, and one end against bytes of our own.

use tokio::{
    io::{DuplexStream, duplex},
    join, try_join,
};

use super::*;
use crate::wire::{
    Claim, REGISTER_PROTOCOL, Register, RegisterReply, RegisterRequest,
    codec::MAX_MESSAGE_LEN,
    noise::tests::{client, scraper, secret},
};

async fn connect_with(stream: DuplexStream, secret: &SharedSecret) -> Result<Channel<DuplexStream>, ChannelError> {
    connect(stream, &client(), &scraper().public(), secret, REGISTER_PROTOCOL).await
}

async fn accept_from(stream: DuplexStream) -> Result<Pending<DuplexStream>, ChannelError> {
    accept(stream, &scraper(), &client().public(), REGISTER_PROTOCOL).await
}

/// The client's end and the scraper's, over a pipe that holds `pipe` bytes at a time.
async fn channels(pipe: usize) -> (Channel<DuplexStream>, Channel<DuplexStream>) {
    let (ours, theirs) = duplex(pipe);
    let confirm = async { accept_from(theirs).await?.confirm(&secret()).await };
    let secret = secret();
    try_join!(connect_with(ours, &secret), confirm).expect("both ends agree")
}

/// A message of several frames.
fn long_request() -> RegisterRequest {
    let claim = Claim {
        alias: "a".repeat(100),
        service: "s".repeat(100),
        labels: vec![("l".into(), "v".repeat(800))],
        unlisted: false,
    };
    RegisterRequest::Register(Register { hostname: "host".into(), claims: vec![claim; 200] })
}

#[tokio::test]
async fn requests_and_replies_pass_through_a_pipe_of_any_width() {
    for pipe in [1, 7, 64, 1 << 20] {
        let (mut ours, mut theirs) = channels(pipe).await;
        let request = long_request();
        let passed = try_join!(ours.send(&request), theirs.receive::<RegisterRequest>());
        assert!(passed.expect("passes").1 == request);
        let reply = RegisterReply::SlowDown { retry_after_ms: 5 };
        let passed = try_join!(theirs.send(&reply), ours.receive::<RegisterReply>());
        assert_eq!(passed.expect("passes").1, reply);
    }
}

#[tokio::test]
async fn messages_sent_together_are_received_one_by_one() {
    let (mut ours, mut theirs) = channels(1 << 20).await;
    ours.send(&RegisterRequest::Release).await.expect("sends");
    ours.send(&long_request()).await.expect("sends");
    ours.close().await.expect("closes");
    assert_eq!(theirs.receive::<RegisterRequest>().await.expect("receives"), RegisterRequest::Release);
    assert!(theirs.receive::<RegisterRequest>().await.expect("receives") == long_request());
    assert!(matches!(theirs.receive::<RegisterRequest>().await, Err(ChannelError::Closed)));
}

#[tokio::test]
async fn the_scraper_learns_which_secret_is_to_be_proved() {
    let (ours, theirs) = duplex(1024);
    let secret = secret();
    let look = async { accept_from(theirs).await.expect("accepts").secret_id() };
    let (cut, id) = join!(connect_with(ours, &secret), look);
    assert_eq!(id, secret.id());
    assert!(matches!(cut, Err(ChannelError::Closed)), "the pending side was dropped: {cut:?}");
}

#[tokio::test]
async fn a_refusal_reaches_the_client_with_its_reason() {
    use HandshakeRefusal::{Busy, IdentityMismatch, Malformed, Unavailable, UnknownSecret};
    for refusal in [UnknownSecret, IdentityMismatch, Busy, Malformed, Unavailable] {
        let (ours, theirs) = duplex(1024);
        let secret = secret();
        let refuse = async { accept_from(theirs).await?.refuse(refusal).await };
        let (refused, sent) = join!(connect_with(ours, &secret), refuse);
        sent.expect("sends");
        assert!(matches!(refused, Err(ChannelError::Refused(got)) if got == refusal), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_scraper_without_the_secret_is_found_out() {
    let (ours, theirs) = duplex(1024);
    let (secret, other) = (secret(), SharedSecret::from_bytes([9; 32]));
    let confirm = async { accept_from(theirs).await?.confirm(&other).await };
    let (ours, theirs) = join!(connect_with(ours, &secret), confirm);
    assert!(matches!(ours, Err(ChannelError::Handshake(HandshakeError::NotProved { .. }))));
    assert!(matches!(theirs.expect("confirms").receive::<RegisterRequest>().await, Err(ChannelError::Closed)));
}

#[tokio::test]
async fn a_client_that_dialled_with_another_key_receives_that_reason() {
    let (ours, theirs) = duplex(1024);
    let (secret, local, thief) = (secret(), scraper(), KeyPair::from_seed(&[8; 32]).public());
    let accept = accept(theirs, &local, &thief, REGISTER_PROTOCOL);
    let (refused, pending) = join!(connect_with(ours, &secret), accept);
    assert!(matches!(refused, Err(ChannelError::Refused(HandshakeRefusal::Malformed))));
    assert!(matches!(pending, Err(ChannelError::Handshake(HandshakeError::Unreadable { .. }))));
}

/// What a scraper answers to `bytes`, and what it makes of them.
async fn answer_to(bytes: &[u8]) -> (Vec<u8>, ChannelError) {
    let (mut ours, theirs) = duplex(1 << 20);
    ours.write_all(bytes).await.expect("writes");
    ours.shutdown().await.expect("shuts down");
    let error = accept_from(theirs).await.expect_err("refused");
    let mut answer = vec![];
    ours.read_to_end(&mut answer).await.expect("reads");
    (answer, error)
}

#[tokio::test]
async fn a_first_message_that_is_none_is_answered_malformed() {
    let malformed = [0, 2, 1, 4];
    let garbage = [&[0, 104][..], &[7; 104]].concat();
    let (answer, error) = answer_to(&garbage).await;
    assert!(matches!(error, ChannelError::Handshake(HandshakeError::Unreadable { .. })));
    assert_eq!(answer, malformed);
    for (bytes, expected) in [
        (&[0, 0][..], FrameError::Empty),
        (&[255, 255], FrameError::TooLong { len: 65_535, limit: FIRST_MESSAGE_LEN }),
        (b"GET / HTTP/1.1\r\n\r\n", FrameError::TooLong { len: 0x4745, limit: FIRST_MESSAGE_LEN }),
    ] {
        let (answer, error) = answer_to(bytes).await;
        assert!(matches!(error, ChannelError::Frame(got) if got == expected), "{error:?}");
        assert_eq!(answer, malformed);
    }
}

#[tokio::test]
async fn a_static_key_that_is_not_the_links_is_answered_identity_mismatch() {
    // By hand, as `connect` would put the key that it uses into the prologue.
    let local = KeyPair::from_seed(&[8; 32]);
    let prologue = [REGISTER_PROTOCOL.as_bytes(), client().public().as_bytes(), scraper().public().as_bytes()].concat();
    let mut state = snow::Builder::new("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s".parse().expect("known"))
        .local_private_key(local.x25519_private().as_slice())
        .and_then(|builder| builder.prologue(&prologue))
        .and_then(|builder| builder.remote_public_key(&scraper().public().x25519())?.build_initiator())
        .expect("builds");
    let mut first = [0; FIRST_MESSAGE_LEN];
    state.write_message(&secret().id().0, &mut first).expect("writes");
    let mut bytes = vec![];
    frame::append(&first, &mut bytes).expect("fits");

    let (answer, error) = answer_to(&bytes).await;
    assert!(matches!(error, ChannelError::Handshake(HandshakeError::IdentityMismatch { .. })));
    assert_eq!(answer, [0, 2, 1, 2]);
}

#[tokio::test]
async fn a_stream_that_ends_early_differs_from_one_that_never_began() {
    let (answer, error) = answer_to(&[]).await;
    assert!(matches!(error, ChannelError::Closed) && answer.is_empty());
    let (answer, error) = answer_to(&[0, 104, 1, 2]).await;
    assert!(matches!(error, ChannelError::Cut) && answer.is_empty());
}

#[tokio::test]
async fn an_answer_of_another_form_is_an_error() {
    for (bytes, is_expected) in [
        (&[0, 2, 2, 0][..], (|e| matches!(e, ChannelError::Handshake(HandshakeError::Answer))) as fn(&_) -> bool),
        (&[0, 2, 0, 7], |e| matches!(e, ChannelError::Handshake(HandshakeError::NotProved { .. }))),
        (&[0, 50], |e| matches!(e, ChannelError::Frame(FrameError::TooLong { len: 50, limit: 49 }))),
        (&[], |e| matches!(e, ChannelError::Closed)),
    ] {
        let (ours, mut theirs) = duplex(1024);
        theirs.write_all(bytes).await.expect("writes");
        theirs.shutdown().await.expect("shuts down");
        let error = connect_with(ours, &secret()).await.expect_err("fails");
        assert!(is_expected(&error), "{bytes:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_stream_cut_within_a_message_differs_from_a_closed_one() {
    let sealed_len = {
        let (mut ours, _) = channels(1 << 20).await;
        ours.session.seal(&codec::encode(&long_request()).expect("encodes")).expect("seals").len()
    };
    // Within the header, within a frame, between two frames of the message, one byte before the end.
    for len in [1, 100, 2 + MAX_FRAME_LEN, sealed_len - 1] {
        let (mut ours, mut theirs) = channels(1 << 20).await;
        let sealed = ours.session.seal(&codec::encode(&long_request()).expect("encodes")).expect("seals");
        ours.frames.stream.write_all(&sealed[..len]).await.expect("writes");
        ours.close().await.expect("closes");
        assert!(matches!(theirs.receive::<RegisterRequest>().await, Err(ChannelError::Cut)), "{len} bytes");
    }
}

#[tokio::test]
async fn receiving_goes_on_where_it_was_cancelled() {
    let (mut ours, mut theirs) = channels(1 << 20).await;
    let sealed = ours.session.seal(&codec::encode(&long_request()).expect("encodes")).expect("seals");
    for part in sealed.chunks(50_000) {
        // Takes what is there, finds that it is not enough, and is dropped.
        tokio::select! {
            biased;
            received = theirs.receive::<RegisterRequest>() => panic!("too early: {received:?}"),
            () = std::future::ready(()) => {}
        }
        ours.frames.stream.write_all(part).await.expect("writes");
    }
    assert!(theirs.receive::<RegisterRequest>().await.expect("receives") == long_request());
}

#[tokio::test]
async fn a_message_too_long_is_not_sent_and_the_channel_goes_on() {
    let (mut ours, mut theirs) = channels(1024).await;
    let register = Register { hostname: "x".repeat(MAX_MESSAGE_LEN), claims: vec![] };
    let refused = ours.send(&RegisterRequest::Register(register)).await;
    assert!(matches!(refused, Err(ChannelError::Codec(CodecError::TooLong { .. }))));
    ours.send(&RegisterRequest::Release).await.expect("sends");
    assert_eq!(theirs.receive::<RegisterRequest>().await.expect("receives"), RegisterRequest::Release);
}

#[tokio::test]
async fn a_sealed_message_of_another_version_is_refused() {
    let (mut ours, mut theirs) = channels(1024).await;
    let sealed = ours.session.seal(&[2, 1]).expect("seals");
    ours.frames.stream.write_all(&sealed).await.expect("writes");
    let refused = theirs.receive::<RegisterRequest>().await;
    assert!(matches!(refused, Err(ChannelError::Codec(CodecError::Version { got: 2 }))));
}
