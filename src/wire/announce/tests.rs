//! Announcements made and read, and the ones that must be refused.

use proptest::prelude::*;

use super::*;

const NOW_S: u64 = 1_700_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW_S)
}

fn key() -> KeyPair {
    KeyPair::from_seed(&[7; 32])
}

fn sign(addresses: &[Vec<u8>], sequence: u64) -> Vec<u8> {
    Announcement::sign(&key(), addresses, sequence, NOW_S + 3600).expect("signs")
}

fn verify(bytes: &[u8]) -> Result<Announcement, AnnounceError> {
    Announcement::verify(bytes, &key().public(), now())
}

/// Signs a body that [`Announcement::sign`] would not make.
fn forge(body: &[u8]) -> Vec<u8> {
    [body, &key().sign(&signed(body))].concat()
}

#[test]
fn announcement_bytes_are_unchanged_since_v1() {
    let bytes = sign(&[b"ab".to_vec(), vec![4, 127, 0, 0, 1]], 0x0102_0304_0506_0708);
    assert_eq!(data_encoding::HEXLOWER.encode(&bytes), PINNED.replace(char::is_whitespace, ""));
    let read = verify(&bytes).expect("verifies");
    assert_eq!(read.addresses, [b"ab".to_vec(), vec![4, 127, 0, 0, 1]]);
    assert_eq!((read.sequence, read.expires_at_unix_s), (0x0102_0304_0506_0708, NOW_S + 3600));
}

const PINNED: &str = "
01ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c0102030405060708000000006553ff
1002000261620005047f000001084bc93ff105f013b47e0b46e287726f507b1b7b4870521a3d656a00959496302fcac9
971460db62044157fefd81663245375491c46226433d32495be499b901";

#[test]
fn record_keys_are_unchanged_since_v1() {
    let record_key = record_key(&key().public());
    assert_eq!(record_key[..14], *b"/narthex/addr/");
    assert_eq!(record_key[14..], *key().public().as_bytes());
    assert_eq!(parse_record_key(&record_key), Some(key().public()));
    let short = &record_key[..record_key.len() - 1];
    let long = [record_key.as_slice(), &[0]].concat();
    let no_point = [RECORD_PREFIX, &[0; 32]].concat();
    for other in [&[][..], short, &long, &no_point, key().public().as_bytes(), b"/narthex/addr/"] {
        assert_eq!(parse_record_key(other), None, "{other:?}");
    }
}

#[test]
fn an_announcement_of_another_peer_is_refused() {
    let other = KeyPair::from_seed(&[8; 32]);
    let bytes = sign(&[], 1);
    let wanted = other.public();
    assert_eq!(Announcement::verify(&bytes, &wanted, now()), Err(AnnounceError::OtherKey { wanted }));

    // Signed by another peer in this one's name.
    let mut stolen = bytes;
    let body = stolen.len() - SIGNATURE_LEN;
    let signature = other.sign(&signed(&stolen[..body]));
    stolen[body..].copy_from_slice(&signature);
    assert_eq!(verify(&stolen), Err(AnnounceError::Signature { key: key().public() }));
}

#[test]
fn a_signature_over_the_bare_bytes_is_refused() {
    let mut bytes = sign(&[], 1);
    let body = bytes.len() - SIGNATURE_LEN;
    let signature = key().sign(&bytes[..body]);
    bytes[body..].copy_from_slice(&signature);
    assert_eq!(verify(&bytes), Err(AnnounceError::Signature { key: key().public() }));
}

/// Before: who announced with a clock an hour behind could not be found.
#[test]
fn expiry_is_at_most_a_day_ago_and_two_days_ahead() {
    let (day, two_days) = (Announcement::MAX_LATE.as_secs(), Announcement::MAX_LIFE.as_secs());
    let at = |expires| verify(&Announcement::sign(&key(), &[], 1, expires).expect("signs"));
    for expires_at_unix_s in [NOW_S + 1, NOW_S, NOW_S - 1, NOW_S - day + 1, NOW_S + two_days] {
        assert!(at(expires_at_unix_s).is_ok(), "{expires_at_unix_s}");
    }
    for expires_at_unix_s in [0, NOW_S - day - 1, NOW_S - day] {
        assert_eq!(at(expires_at_unix_s), Err(AnnounceError::Expired { expires_at_unix_s }));
    }
    for expires_at_unix_s in [NOW_S + two_days + 1, u64::MAX] {
        assert_eq!(at(expires_at_unix_s), Err(AnnounceError::TooFarAhead { expires_at_unix_s }));
    }
}

#[test]
fn an_announcements_life_is_what_its_owner_means_whatever_the_time() {
    let life = |made_s: u64, expires_at_unix_s| {
        Announcement { key: key().public(), addresses: Vec::new(), sequence: made_s * 1_000_000, expires_at_unix_s }
            .life()
    };
    assert_eq!(life(NOW_S, NOW_S + 3600), Some(Duration::from_secs(3600)));
    assert_eq!(life(NOW_S - 86_400, NOW_S - 86_400 + 60), Some(Duration::from_secs(60)), "of a slow clock");
    assert_eq!((life(NOW_S, NOW_S), life(NOW_S, NOW_S - 1)), (None, None), "of a clock that was set back");
}

#[test]
fn a_clock_before_the_epoch_does_not_panic() {
    let bytes = Announcement::sign(&key(), &[], 1, 60).expect("signs");
    let long_ago = UNIX_EPOCH - Duration::from_secs(1_000_000);
    assert!(Announcement::verify(&bytes, &key().public(), long_ago).is_ok());
}

#[test]
fn too_many_or_too_long_addresses_are_refused_on_both_sides() {
    let sign = |addresses: &[Vec<u8>]| Announcement::sign(&key(), addresses, 1, NOW_S + 1);
    assert_eq!(sign(&vec![vec![1]; 17]), Err(AnnounceError::TooManyAddresses { count: 17 }));
    assert_eq!(sign(&[vec![1; 257]]), Err(AnnounceError::AddressLength { len: 257 }));
    assert_eq!(sign(&[vec![]]), Err(AnnounceError::AddressLength { len: 0 }));
    assert!(matches!(sign(&vec![vec![1; 256]; 16]), Err(AnnounceError::TooLong { .. })));
    assert!(verify(&sign(&vec![vec![1; 256]; 15]).expect("signs")).is_ok());
    assert!(verify(&sign(&vec![vec![1; 240]; 16]).expect("signs")).is_ok());

    let head = sign(&[]).expect("signs")[..1 + 32 + 8 + 8].to_vec();
    let with = |tail: &[u8]| verify(&forge(&[head.as_slice(), tail].concat()));
    assert_eq!(with(&[&[17][..], &[0, 1, 9].repeat(17)].concat()), Err(AnnounceError::TooManyAddresses { count: 17 }));
    assert_eq!(with(&[&[1, 1, 1][..], &[9; 257]].concat()), Err(AnnounceError::AddressLength { len: 257 }));
    assert_eq!(with(&[1, 0, 0]), Err(AnnounceError::AddressLength { len: 0 }));
}

#[test]
fn lengths_that_lie_are_malformed_even_when_signed() {
    let head = sign(&[], 1)[..1 + 32 + 8 + 8].to_vec();
    for tail in [&[][..], &[1], &[1, 0], &[1, 0, 2, 9], &[2, 0, 1, 9], &[1, 255, 255, 9], &[0, 0], &[1, 0, 1, 9, 9]] {
        let forged = forge(&[head.as_slice(), tail].concat());
        assert_eq!(verify(&forged), Err(AnnounceError::Malformed), "{tail:?}");
    }
}

#[test]
fn size_and_version_are_checked_before_anything_else() {
    assert_eq!(verify(&[1; 4097]), Err(AnnounceError::TooLong { len: 4097 }));
    assert_eq!(verify(&[2]), Err(AnnounceError::Version { got: 2 }));
    assert_eq!(verify(&[]), Err(AnnounceError::Malformed));
}

#[test]
fn only_a_higher_sequence_of_the_same_peer_supersedes() {
    let older = verify(&sign(&[], 5)).expect("verifies");
    let newer = verify(&sign(&[vec![1]], 6)).expect("verifies");
    let others = Announcement { key: KeyPair::from_seed(&[8; 32]).public(), ..newer.clone() };
    assert!(newer.supersedes(&older));
    assert!(!older.supersedes(&newer) && !newer.supersedes(&newer) && !others.supersedes(&older));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn announcements_come_back_as_they_went(
        addresses in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..=200), 0..=16),
        sequence: u64,
        life in 1..=Announcement::MAX_LIFE.as_secs(),
    ) {
        let bytes = Announcement::sign(&key(), &addresses, sequence, NOW_S + life).expect("signs");
        let expected =
            Announcement { key: key().public(), addresses, sequence, expires_at_unix_s: NOW_S + life };
        prop_assert_eq!(verify(&bytes), Ok(expected));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused(at: prop::sample::Index, bit in 0..8) {
        let mut bytes = sign(&[b"somewhere".to_vec()], 9);
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        prop_assert!(verify(&bytes).is_err());
    }

    #[test]
    fn a_cut_anywhere_is_refused(at: prop::sample::Index) {
        let bytes = sign(&[b"somewhere".to_vec()], 9);
        prop_assert!(verify(&bytes[..at.index(bytes.len())]).is_err());
    }
}
