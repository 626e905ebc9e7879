//! Announcements and their record keys. Half of the runs sign the input, to get past the signature to the layout.

#![no_main]

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ed25519_dalek::{Signer, SigningKey};
use libfuzzer_sys::fuzz_target;
use narthex::{
    identity::KeyPair,
    wire::{Announcement, parse_record_key, record_key},
};

const SEED: [u8; 32] = [7; 32];

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::from_seed(&SEED));

fuzz_target!(|input: (bool, &[u8])| {
    let (sign, bytes) = input;
    if let Some(key) = parse_record_key(bytes) {
        assert_eq!(record_key(&key), bytes);
    }
    let signed = if sign { signed(bytes) } else { bytes.to_vec() };
    if let Ok(announcement) = Announcement::verify(&signed, &KEY.public(), now()) {
        let again =
            Announcement::sign(&KEY, &announcement.addresses, announcement.sequence, announcement.expires_at_unix_s);
        assert_eq!(again.expect("what was verified can be signed"), signed, "there is one encoding only");
    }
});

/// The input as the body behind version and key, with the right signature.
fn signed(tail: &[u8]) -> Vec<u8> {
    let body = [&[1], KEY.public().as_bytes().as_slice(), tail].concat();
    let signature = SigningKey::from_bytes(&SEED).sign(&[b"narthex announce v1".as_slice(), &body].concat());
    [body.as_slice(), &signature.to_bytes()].concat()
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}
