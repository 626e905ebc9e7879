//! Handshake messages: a first message, an answer to it, and a second message, all from a stranger.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use narthex::{
    identity::{KeyPair, SharedSecret},
    wire::{HandshakeAnswer, Initiator, REGISTER_PROTOCOL, Responder},
};

static CLIENT: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::from_seed(&[1; 32]));
static SCRAPER: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::from_seed(&[2; 32]));

fuzz_target!(|bytes: &[u8]| {
    let first = Responder::read(&SCRAPER, &CLIENT.public(), REGISTER_PROTOCOL, bytes);
    assert!(first.is_err(), "nobody without the client's key makes a first message");

    if let Ok(answer) = HandshakeAnswer::parse(bytes) {
        let encoded = answer.encode();
        assert_eq!(HandshakeAnswer::parse(&encoded).expect("parses again"), answer);
        if let HandshakeAnswer::Noise(response) = answer {
            let secret = SharedSecret::from_bytes([3; 32]);
            let started = Initiator::start(&CLIENT, &SCRAPER.public(), &secret, REGISTER_PROTOCOL);
            let (initiator, _) = started.expect("starts");
            assert!(initiator.finish(response).is_err(), "nobody without the scraper's key makes a response");
        }
    }
});
