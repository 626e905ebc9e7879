//! The handshake between two honest ends, and what everybody else gets.

use proptest::prelude::*;

use super::*;
use crate::wire::{REGISTER_PROTOCOL, frame};

pub(in crate::wire) fn client() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

pub(in crate::wire) fn scraper() -> KeyPair {
    KeyPair::from_seed(&[2; 32])
}

pub(in crate::wire) fn secret() -> SharedSecret {
    SharedSecret::from_bytes([3; 32])
}

fn start() -> (Initiator, Vec<u8>) {
    Initiator::start(&client(), &scraper().public(), &secret(), REGISTER_PROTOCOL).expect("starts")
}

fn read(first: &[u8]) -> Result<Responder, HandshakeError> {
    Responder::read(&scraper(), &client().public(), REGISTER_PROTOCOL, first)
}

/// Both ends of a finished handshake.
pub(in crate::wire) fn sessions() -> (Session, Session) {
    let (initiator, first) = start();
    let (responder, response) = read(&first).expect("reads").respond(&secret()).expect("responds");
    (initiator.finish(&response).expect("finishes"), responder)
}

fn carry(from: &mut Session, to: &mut Session, message: &[u8]) -> Option<Vec<u8>> {
    let frames = from.seal(message).ok()?;
    let frame = frame::split(&frames, frame::MAX_FRAME_LEN).ok()??;
    to.open(frame.content).ok()?
}

#[test]
fn both_ends_of_a_handshake_understand_each_other() {
    let (initiator, first) = start();
    let responder = read(&first).expect("reads");
    assert_eq!(responder.secret_id(), secret().id());
    let (mut theirs, response) = responder.respond(&secret()).expect("responds");
    let mut ours = initiator.finish(&response).expect("finishes");
    assert_eq!(carry(&mut ours, &mut theirs, b"register").as_deref(), Some(&b"register"[..]));
    assert_eq!(carry(&mut theirs, &mut ours, b"registered").as_deref(), Some(&b"registered"[..]));
}

#[test]
fn handshake_bytes_are_unchanged_since_v1() {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let prologue = prologue(REGISTER_PROTOCOL, &client().public(), &scraper().public());
    assert_eq!(hex(&prologue), PROLOGUE.replace(char::is_whitespace, ""));

    let (private, ephemeral) = (client().x25519_private(), [4; 32]);
    let fixed = builder(&private, &prologue).expect("builds").fixed_ephemeral_key_for_testing_only(&ephemeral);
    let (initiator, first) = Initiator::start_from(fixed, &scraper().public(), &secret()).expect("starts");
    assert_eq!(hex(&first), FIRST.replace(char::is_whitespace, ""));

    let (private, ephemeral) = (scraper().x25519_private(), [5; 32]);
    let fixed = builder(&private, &prologue).expect("builds").fixed_ephemeral_key_for_testing_only(&ephemeral);
    let responder = Responder::read_from(fixed, &client().public(), &first).expect("reads");
    let (mut theirs, response) = responder.respond(&secret()).expect("responds");
    assert_eq!(hex(&response), RESPONSE.replace(char::is_whitespace, ""));

    let mut ours = initiator.finish(&response).expect("finishes");
    assert_eq!(hex(&ours.seal(b"ask").expect("seals")), ASK);
    assert_eq!(hex(&theirs.seal(b"reply").expect("seals")), REPLY);
}

const PROLOGUE: &str = "
    2f6e6172746865782f72656769737465722f318a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b4
    0f6f5c8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";
const FIRST: &str = "
    ac01b2209e86354fb853237b5de0f4fab13c7fcbf433a61c019369617fecf10b8f9aa6e743d0abf46159958fbe798790
    0405cff1b963a83991603ef7b79d9158e403ff5143887f1cbfb40a5322a26def24e3b79e6974bfb7da474dbadcb5e643
    00ca4b1a57f57ae6";
const RESPONSE: &str = "
    50a61409b1ddd0325e9b16b700e719e9772c07000b1bd7786e907c653d20495dd99e98a1371fc25552000114407c7d91";
const ASK: &str = "0014180007d542b5d9ba06b2dfebd072f403eb0f32b8";
const REPLY: &str = "0016279de9ed76fafa13d7dfb5253706771ca93efcd10236";

#[test]
fn lengths_of_the_messages_are_as_published() {
    let (_, first) = start();
    let (_, response) = read(&first).expect("reads").respond(&secret()).expect("responds");
    assert_eq!((first.len(), response.len()), (FIRST_MESSAGE_LEN, RESPONSE_LEN));
}

#[test]
fn a_responder_with_another_secret_is_found_out() {
    let (initiator, first) = start();
    let other = SharedSecret::from_bytes([9; 32]);
    let (_, response) = read(&first).expect("reads").respond(&other).expect("responds");
    assert!(matches!(initiator.finish(&response), Err(HandshakeError::NotProved { .. })));
}

#[test]
fn an_initiator_that_only_names_a_secret_gets_no_frame_opened() {
    // It knows the id of the secret, and follows the protocol with another one.
    let (private, other) = (client().x25519_private(), SharedSecret::from_bytes([9; 32]));
    let prologue = prologue(REGISTER_PROTOCOL, &client().public(), &scraper().public());
    let remote = scraper().public().x25519();
    let builder = builder(&private, &prologue).expect("builds");
    let builder = builder.remote_public_key(&remote).expect("sets").psk(2, other.expose()).expect("sets");
    let mut state = builder.build_initiator().expect("builds");
    let mut first = [0; FIRST_MESSAGE_LEN];
    state.write_message(&secret().id().0, &mut first).expect("writes");

    let responder = read(&first).expect("reads");
    assert_eq!(responder.secret_id(), secret().id());
    let (mut session, response) = responder.respond(&secret()).expect("responds");
    assert!(state.read_message(&response, &mut []).is_err());
    let (mut unrelated, _) = sessions();
    assert_eq!(carry(&mut unrelated, &mut session, b"register"), None);
}

#[test]
fn a_handshake_for_another_scraper_or_protocol_with_swapped_keys_or_sent_on_by_another_peer_is_unreadable() {
    let other = KeyPair::from_seed(&[8; 32]).public();
    let (ours, theirs, private) = (client().public(), scraper().public(), client().x25519_private());
    let swapped = prologue(REGISTER_PROTOCOL, &theirs, &ours);
    for (started, sender) in [
        (Initiator::start(&client(), &other, &secret(), REGISTER_PROTOCOL), ours),
        (Initiator::start(&client(), &theirs, &secret(), "/narthex/other/1"), ours),
        (Initiator::start_from(builder(&private, &swapped).expect("builds"), &theirs, &secret()), ours),
        (Ok(start()), other),
    ] {
        let (_, first) = started.expect("starts");
        let read = Responder::read(&scraper(), &sender, REGISTER_PROTOCOL, &first);
        assert!(matches!(read, Err(HandshakeError::Unreadable { .. })), "{read:?}");
    }
}

#[test]
fn a_static_key_that_is_not_the_links_is_an_identity_mismatch() {
    // The prologue names the peer of the link, the handshake is made with another key.
    let private = KeyPair::from_seed(&[8; 32]).x25519_private();
    let prologue = prologue(REGISTER_PROTOCOL, &client().public(), &scraper().public());
    let builder = builder(&private, &prologue).expect("builds");
    let (_, first) = Initiator::start_from(builder, &scraper().public(), &secret()).expect("starts");
    let error = read(&first).expect_err("refused");
    assert!(matches!(error, HandshakeError::IdentityMismatch { peer } if peer == client().public()));
    assert_eq!(error.refusal(), HandshakeRefusal::IdentityMismatch);
}

#[test]
fn a_replayed_first_message_gives_no_session() {
    let (initiator, first) = start();
    let (mut theirs, response) = read(&first).expect("reads").respond(&secret()).expect("responds");
    let mut ours = initiator.finish(&response).expect("finishes");
    let frames = ours.seal(b"register").expect("seals");
    let frame = frame::split(&frames, frame::MAX_FRAME_LEN).expect("frame").expect("whole").content;
    theirs.open(frame).expect("opens");

    // All that was recorded of the first session, played again: the responder's fresh ephemeral key spoils it.
    let (mut again, _) = read(&first).expect("reads").respond(&secret()).expect("responds");
    assert!(again.open(frame).is_err());
}

#[test]
fn every_cut_or_lengthened_first_message_is_unreadable() {
    let (_, mut first) = start();
    for len in 0..first.len() {
        assert!(matches!(read(&first[..len]), Err(HandshakeError::Unreadable { .. })), "{len} bytes");
    }
    first.push(0);
    assert!(matches!(read(&first), Err(HandshakeError::Unreadable { .. })));
    assert!(matches!(read(&[0; 70_000]), Err(HandshakeError::Unreadable { .. })));
}

#[test]
fn a_secret_id_of_another_length_is_unreadable() {
    let (private, remote) = (client().x25519_private(), scraper().public().x25519());
    let prologue = prologue(REGISTER_PROTOCOL, &client().public(), &scraper().public());
    for payload in [&[][..], &[1; 7], &[1; 9]] {
        let builder = builder(&private, &prologue).expect("builds");
        let mut state = builder.remote_public_key(&remote).and_then(Builder::build_initiator).expect("builds");
        let mut first = [0; 2 * FIRST_MESSAGE_LEN];
        let len = state.write_message(payload, &mut first).expect("writes");
        assert!(matches!(read(&first[..len]), Err(HandshakeError::Unreadable { .. })), "{} bytes", payload.len());
    }
}

#[test]
fn every_cut_or_lengthened_response_proves_nothing() {
    let (_, first) = start();
    let (_, response) = read(&first).expect("reads").respond(&secret()).expect("responds");
    let lengthened = [response.as_slice(), &[0]].concat();
    for bytes in (0..response.len()).map(|len| &response[..len]).chain([lengthened.as_slice(), &[0; 70_000]]) {
        let (initiator, _) = start();
        assert!(matches!(initiator.finish(bytes), Err(HandshakeError::NotProved { .. })), "{} bytes", bytes.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_flipped_bit_in_the_first_message_is_found(bit in 0..FIRST_MESSAGE_LEN * 8) {
        let (_, mut first) = start();
        first[bit / 8] ^= 1 << (bit % 8);
        // X25519 ignores the top bit of the ephemeral key (RFC 7748, section 5), the transcript hash does not.
        prop_assert!(read(&first).is_err());
    }

    #[test]
    fn a_flipped_bit_in_the_response_is_found(bit in 0..RESPONSE_LEN * 8) {
        let (initiator, first) = start();
        let (_, mut response) = read(&first).expect("reads").respond(&secret()).expect("responds");
        response[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(initiator.finish(&response).is_err());
    }
}
