//! A handshake whose bytes are the same each time, so that a fuzz target gets past it with a recorded one.

use super::{HandshakeError, Initiator, Responder, builder, prologue};
use crate::{
    identity::{KeyPair, SharedSecret},
    wire::REGISTER_PROTOCOL,
};

pub(crate) fn client() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

pub(crate) fn scraper() -> KeyPair {
    KeyPair::from_seed(&[2; 32])
}

pub(crate) fn secret() -> SharedSecret {
    SharedSecret::from_bytes([3; 32])
}

pub(crate) fn initiator() -> (Initiator, Vec<u8>) {
    let (private, ephemeral) = (client().x25519_private(), [4; 32]);
    let prologue = prologue(REGISTER_PROTOCOL, &client().public(), &scraper().public());
    let builder = builder(&private, &prologue).expect("builds").fixed_ephemeral_key_for_testing_only(&ephemeral);
    Initiator::start_from(builder, &scraper().public(), &secret()).expect("starts")
}

pub(crate) fn responder(first: &[u8]) -> Result<Responder, HandshakeError> {
    let (private, ephemeral) = (scraper().x25519_private(), [5; 32]);
    let prologue = prologue(REGISTER_PROTOCOL, &client().public(), &scraper().public());
    let builder = builder(&private, &prologue).expect("builds").fixed_ephemeral_key_for_testing_only(&ephemeral);
    Responder::read_from(builder, &client().public(), first)
}
