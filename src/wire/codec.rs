//! Messages as bytes: one version byte, then bincode.
//!
//! The length is checked before anything is decoded. Lengths declared inside a message are checked against a budget
//! before memory is allocated. No type of bincode leaves this file.

use std::error::Error;

use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use serde::{Serialize, de::DeserializeOwned};

/// Most bytes of an encoded message, its version byte included.
pub const MAX_MESSAGE_LEN: usize = 1024 * 1024;

/// The first byte of every message.
pub const VERSION: u8 = 1;

/// Most bytes that decoding may allocate, by bincode's count. bincode counts a length as 8 bytes even where the wire has
/// one, so a budget of [`MAX_MESSAGE_LEN`] would refuse valid messages of many short strings. No message within the
/// length limit costs more than this.
const DECODE_BUDGET: usize = 8 * MAX_MESSAGE_LEN;

/// bincode's encoding, with the limit above.
const CONFIG: Configuration<LittleEndian, Varint, Limit<DECODE_BUDGET>> =
    config::standard().with_limit::<DECODE_BUDGET>();

/// Encodes a message.
///
/// # Errors
/// [`CodecError::TooLong`] for more than [`MAX_MESSAGE_LEN`] bytes; [`CodecError::Unfit`] for a type that has no
/// bincode form.
pub fn encode<T: Serialize + ?Sized>(message: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::serde::encode_to_vec((VERSION, message), CONFIG).map_err(|e| CodecError::Unfit(e.into()))?;
    check_len(&bytes)?;
    Ok(bytes)
}

/// Decodes a message that fills `bytes` exactly.
///
/// # Errors
/// [`CodecError`] for any other bytes than [`encode`] makes of a `T`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    check_len(bytes)?;
    let body = match bytes.split_first() {
        Some((&VERSION, body)) => body,
        Some((&got, _)) => return Err(CodecError::Version { got }),
        None => return Err(CodecError::Empty),
    };
    let (message, used) =
        bincode::serde::decode_from_slice(body, CONFIG).map_err(|e| CodecError::Malformed(e.into()))?;
    match body.len() - used {
        0 => Ok(message),
        extra => Err(CodecError::TrailingBytes { extra }),
    }
}

/// Why a message could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// More than [`MAX_MESSAGE_LEN`].
    #[error("message of {len} bytes: limit is {MAX_MESSAGE_LEN}")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// A message of no bytes.
    #[error("message is empty")]
    Empty,
    /// From another version of narthex.
    #[error("message of version {got}: this side speaks version {VERSION}")]
    Version {
        /// The message's version.
        got: u8,
    },
    /// Wrong content: cut short, an unknown variant, a false length.
    #[error("message is malformed")]
    Malformed(#[source] Box<dyn Error + Send + Sync>),
    /// A whole message with more bytes after.
    #[error("message is followed by {extra} more bytes")]
    TrailingBytes {
        /// Bytes after the message.
        extra: usize,
    },
    /// A message of our own without an encoding.
    #[error("message cannot be encoded")]
    Unfit(#[source] Box<dyn Error + Send + Sync>),
}

fn check_len(bytes: &[u8]) -> Result<(), CodecError> {
    if bytes.len() > MAX_MESSAGE_LEN {
        return Err(CodecError::TooLong { len: bytes.len() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::{
        identity::KeyPair,
        wire::{
            AliasGuard, AliasOutcome, AliasRefusal, AliasStatus, Claim, GroupMember, InstanceId, Probe, Probed,
            Register, RegisterFrom, RegisterReply, RegisterRequest, Registered,
        },
    };

    fn hex(bytes: &[u8]) -> String {
        data_encoding::HEXLOWER.encode(bytes)
    }

    #[track_caller]
    fn assert_bytes<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: T, bytes: &str) {
        let encoded = encode(&message).expect("encodes");
        assert_eq!(hex(&encoded), bytes.replace(' ', ""));
        assert_eq!(decode::<T>(&encoded).expect("decodes"), message);
    }

    fn claim() -> Claim {
        Claim {
            alias: "web-1".into(),
            service: "web".into(),
            labels: vec![("region".into(), "eu".into())],
            unlisted: false,
        }
    }

    #[test]
    fn request_bytes_are_unchanged_since_v1() {
        let register = Register { hostname: "host".into(), claims: vec![claim()] };
        for (request, bytes) in [
            (RegisterRequest::Register(register), "01 00 04686f7374 01 057765622d31 03776562 01 06726567696f6e 026575"),
            (RegisterRequest::Release, "0101"),
        ] {
            assert_bytes(request, bytes);
        }
    }

    #[test]
    fn reply_bytes_are_unchanged_since_v1() {
        let outcomes = vec![
            AliasOutcome::Granted { updated: true },
            AliasOutcome::Granted { updated: false },
            AliasOutcome::Refused(AliasRefusal::Taken),
            AliasOutcome::Refused(AliasRefusal::Invalid),
            AliasOutcome::Refused(AliasRefusal::Duplicate),
            AliasOutcome::Refused(AliasRefusal::Full),
        ];
        for (reply, bytes) in [
            (
                RegisterReply::Registered(Registered { lease_ms: 600_000, outcomes }),
                "0100 fcc0270900 06 0001 0000 0100 0101 0102 0103",
            ),
            (RegisterReply::Released, "0101"),
            (RegisterReply::SlowDown { retry_after_ms: 250 }, "0102fa"),
            (RegisterReply::Unavailable, "0103"),
            (RegisterReply::Malformed, "0104"),
        ] {
            assert_bytes(reply, bytes);
        }
    }

    #[test]
    fn probe_bytes_are_unchanged() {
        let request = RegisterRequest::Probe(Probe { aliases: vec!["web-1".into(), "b".into()] });
        assert_bytes(request, "01 02 02 057765622d31 0162");

        let holder = KeyPair::from_seed(&[1; 32]).public();
        let held = |linked, guard| AliasStatus::Held { holder, linked, guard };
        let statuses = vec![
            AliasStatus::Free,
            AliasStatus::Full,
            AliasStatus::Invalid,
            held(false, AliasGuard::None),
            held(true, AliasGuard::Live),
            held(false, AliasGuard::Pinned),
        ];
        let reply = RegisterReply::Probed(Probed { unix_ms: 250, statuses });
        let key = hex(holder.as_bytes());
        assert_bytes(reply, &format!("01 05 fa 06 00 01 02 03{key}0000 03{key}0101 03{key}0002"));
    }

    #[test]
    fn the_bytes_of_a_process_that_names_itself_are_unchanged() {
        let register = Register { hostname: "host".into(), claims: vec![] };
        let instance = InstanceId([0xab; 16]);
        let named = "ab".repeat(16);
        let request = RegisterRequest::RegisterFrom(RegisterFrom { register, instance, kept: true });
        assert_bytes(request, &format!("01 03 04686f7374 00 {named} 01"));
        assert_bytes(RegisterRequest::ReleaseFrom(instance), &format!("01 04 {named}"));

        let registered = Registered { lease_ms: 250, outcomes: vec![AliasOutcome::Granted { updated: false }] };
        assert_bytes(RegisterReply::InUse, "01 06");
        assert_bytes(RegisterReply::Contested(registered), "01 07 fa 01 0000");
    }

    #[test]
    fn the_bytes_of_a_registration_with_a_target_that_is_not_listed_are_unchanged() {
        let bare = |unlisted| Claim { alias: "a".into(), service: String::new(), labels: vec![], unlisted };
        let register = Register { hostname: "host".into(), claims: vec![bare(false), bare(true)] };
        let from = RegisterFrom { register, instance: InstanceId([0xab; 16]), kept: true };
        let named = "ab".repeat(16);
        let encoded = encode(&RegisterRequest::from(from.clone())).expect("encodes");
        let bytes = format!("01 06 04686f7374 02 01610000 01610000 {named} 01 01 01");
        assert_eq!(hex(&encoded), bytes.replace(' ', ""));
        let Ok(RegisterRequest::RegisterUnlisted(mut read)) = decode(&encoded) else { panic!("another request") };
        assert_eq!(RegisterFrom::from(read.clone()), from);
        read.unlisted = vec![u32::MAX, 2];
        assert!(RegisterFrom::from(read).register.claims.iter().all(|claim| !claim.unlisted), "places of no claim");
    }

    #[test]
    fn the_bytes_of_a_group_are_unchanged() {
        assert_bytes(RegisterRequest::Group, "01 05");
        assert_bytes(RegisterRequest::Echo(vec![0, 250, 251]), "01 07 03 00fafb");
        assert_bytes(RegisterReply::Echo(vec![7]), "01 09 01 07");

        let [first, second] = [1, 2].map(|seed| KeyPair::from_seed(&[seed; 32]).public());
        let members = vec![
            GroupMember { key: first, addresses: vec!["h:1".into(), "wss://h".into()] },
            GroupMember { key: second, addresses: vec![] },
        ];
        let [first, second] = [first, second].map(|key| hex(key.as_bytes()));
        let bytes = format!("01 08 02 {first} 02 03683a31 077773733a2f2f68 {second} 00");
        assert_bytes(RegisterReply::Group(members), &bytes);
        assert_bytes(RegisterReply::Group(vec![]), "01 08 00");
    }

    /// Requests as scrapers of an earlier version know them.
    #[derive(Debug, PartialEq, Deserialize)]
    enum EarlierRequest {
        Register(Register),
        Release,
        Probe(Probe),
        RegisterFrom(RegisterFrom),
        ReleaseFrom(InstanceId),
    }

    #[test]
    fn a_scraper_of_an_earlier_version_refuses_to_read_what_it_does_not_know() {
        let request = |bytes: &[u8]| decode::<EarlierRequest>(bytes);
        assert_eq!(request(&[1, 1]).expect("known"), EarlierRequest::Release);
        assert!(matches!(request(&[1, 5]), Err(CodecError::Malformed(_))), "a request for the group");
        assert!(matches!(request(&[1, 6]), Err(CodecError::Malformed(_))), "a registration with unlisted targets");
    }

    #[test]
    fn an_unknown_version_differs_from_garbage() {
        assert!(matches!(decode::<RegisterRequest>(&[2, 1]), Err(CodecError::Version { got: 2 })));
        assert!(matches!(decode::<RegisterRequest>(&[]), Err(CodecError::Empty)));
        assert!(matches!(decode::<RegisterRequest>(&[1]), Err(CodecError::Malformed(_))));
        assert!(matches!(decode::<RegisterRequest>(&[1, 9]), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn bytes_after_a_message_are_refused() {
        assert!(matches!(decode::<RegisterRequest>(&[1, 1, 0]), Err(CodecError::TrailingBytes { extra: 1 })));
    }

    #[test]
    fn every_cut_of_a_message_is_refused() {
        let request = RegisterRequest::Register(Register { hostname: "host".into(), claims: vec![claim(); 3] });
        let whole = encode(&request).expect("encodes");
        for len in 0..whole.len() {
            assert!(decode::<RegisterRequest>(&whole[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_message_at_the_limit_passes_and_one_byte_more_is_refused_by_both_sides() {
        // Version, variant, a length in five bytes, the host name, no claims.
        let fits = MAX_MESSAGE_LEN - 8;
        let request = |len| RegisterRequest::Register(Register { hostname: "x".repeat(len), claims: vec![] });
        let encoded = encode(&request(fits)).expect("fits");
        assert_eq!(encoded.len(), MAX_MESSAGE_LEN);
        assert_eq!(decode::<RegisterRequest>(&encoded).expect("fits"), request(fits));

        assert!(matches!(encode(&request(fits + 1)), Err(CodecError::TooLong { .. })));
        let too_long = vec![VERSION; MAX_MESSAGE_LEN + 1];
        assert!(matches!(decode::<RegisterRequest>(&too_long), Err(CodecError::TooLong { .. })));
    }

    #[test]
    fn the_densest_message_within_the_limit_is_decoded_into_bounded_memory() {
        // Claims of three empty fields: each length takes one byte and is charged eight.
        let empty = Claim { alias: String::new(), service: String::new(), labels: vec![], unlisted: false };
        let claims = vec![empty; (MAX_MESSAGE_LEN - 8) / 3];
        let request = RegisterRequest::Register(Register { hostname: String::new(), claims });
        let encoded = encode(&request).expect("fits");
        assert!(encoded.len() > MAX_MESSAGE_LEN - 8);
        let decoded = decode::<RegisterRequest>(&encoded).expect("within the budget");
        assert!(decoded == request);

        // The most memory that a message can make us take for a byte of it, a growing list's spare half included.
        let RegisterRequest::Register(register) = decoded else { panic!("it was a registration") };
        assert!(register.claims.capacity() * size_of::<Claim>() <= 48 * MAX_MESSAGE_LEN);
    }

    #[test]
    fn a_length_that_lies_is_refused_before_memory_is_taken_for_it() {
        // A host name, then a list of claims, of u64::MAX. The first would panic with "capacity overflow" and the
        // second exhaust memory without checking the length.
        for lie in ["0100 fdffffffffffffffff", "0100 00 fdffffffffffffffff"] {
            let bytes = data_encoding::HEXLOWER.decode(lie.replace(' ', "").as_bytes()).expect("hex");
            assert!(matches!(decode::<RegisterRequest>(&bytes), Err(CodecError::Malformed(_))), "{lie}");
        }
        // The same for a length just past the budget, which could be allocated.
        let mut bytes = vec![VERSION, 0, 252];
        bytes.extend(u32::try_from(DECODE_BUDGET).expect("fits").to_le_bytes());
        let Err(CodecError::Malformed(cause)) = decode::<RegisterRequest>(&bytes) else { panic!("refused") };
        assert_eq!(cause.to_string(), "LimitExceeded");
    }

    fn text() -> impl Strategy<Value = String> {
        "\\PC{0,40}"
    }

    prop_compose! {
        fn any_claim()(
            alias in text(), service in text(), labels in prop::collection::vec((text(), text()), 0..5)
        ) -> Claim {
            Claim { alias, service, labels, unlisted: false }
        }
    }

    proptest! {
        #[test]
        fn requests_come_back_as_they_went(hostname in text(), claims in prop::collection::vec(any_claim(), 0..8)) {
            let request = RegisterRequest::Register(Register { hostname, claims });
            prop_assert_eq!(decode::<RegisterRequest>(&encode(&request).expect("encodes")).expect("decodes"), request);
        }

        #[test]
        fn replies_come_back_as_they_went(lease_ms: u64, updated in prop::collection::vec(any::<bool>(), 0..300)) {
            let outcomes = updated.into_iter().map(|updated| AliasOutcome::Granted { updated }).collect();
            let reply = RegisterReply::Registered(Registered { lease_ms, outcomes });
            prop_assert_eq!(decode::<RegisterReply>(&encode(&reply).expect("encodes")).expect("decodes"), reply);
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 1..400)) {
            bytes[0] = VERSION;
            let _ = decode::<RegisterRequest>(&bytes);
            let _ = decode::<RegisterReply>(&bytes);
        }
    }
}
