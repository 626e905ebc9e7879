//! Frames and the session in them. The input steers an honest sender and somebody who changes bytes on the way: what is
//! received is what was sent, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use narthex::{
    identity::{KeyPair, SharedSecret},
    wire::{
        Initiator, REGISTER_PROTOCOL, Responder, Session,
        frame::{self, MAX_FRAME_LEN},
    },
};

fuzz_target!(|input: (Vec<Vec<u8>>, Option<(usize, u8)>, Vec<u8>)| {
    let (messages, change, tail) = input;
    let (mut sender, mut receiver) = sessions();
    let mut stream = vec![];
    for message in &messages {
        stream.extend(sender.seal(message).expect("within the limit"));
    }
    let changed = match change {
        Some((at, mask)) if mask != 0 && !stream.is_empty() => {
            let at = at % stream.len();
            stream[at] ^= mask;
            true
        }
        _ => false,
    };
    stream.extend(tail);

    let received = receive(&mut receiver, &stream);
    assert!(messages.starts_with(&received), "received something that was not sent");
    assert!(changed || received == messages, "lost something that was sent");
});

fn receive(session: &mut Session, mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut received = vec![];
    while let Ok(Some(split)) = frame::split(stream, MAX_FRAME_LEN) {
        match session.open(split.content) {
            Ok(message) => received.extend(message),
            Err(_) => break,
        }
        stream = split.rest;
    }
    received
}

fn sessions() -> (Session, Session) {
    let (client, scraper) = (KeyPair::from_seed(&[1; 32]), KeyPair::from_seed(&[2; 32]));
    let secret = SharedSecret::from_bytes([3; 32]);
    let started = Initiator::start(&client, &scraper.public(), &secret, REGISTER_PROTOCOL);
    let (initiator, first) = started.expect("starts");
    let responder = Responder::read(&scraper, &client.public(), REGISTER_PROTOCOL, &first).expect("reads");
    let (theirs, response) = responder.respond(&secret).expect("responds");
    (initiator.finish(&response).expect("finishes"), theirs)
}
