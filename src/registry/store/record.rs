//! The bytes of a stored lease: `version: u8 = 1 | bincode 2 (standard configuration) of a record`.
//!
//! The key of the record is the alias. Times are milliseconds since 1970. Fields are checked like those of a peer: one
//! bad label name in a damaged record would make Prometheus refuse the whole list.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::{Deserialize, Serialize};

use crate::{
    identity::PublicKey,
    registry::Lease,
    wire::{Alias, Labels, Target, TargetError},
};

/// First byte of a record; another version is refused.
const VERSION: u8 = 1;

/// Most bytes that decoding may allocate: a wrong length in a damaged record cannot ask for more. The most and longest
/// labels are 36 KiB.
const MAX_LEN: usize = 64 * 1024;

/// bincode's encoding, with the limit above.
const CONFIG: Configuration<LittleEndian, Varint, Limit<MAX_LEN>> = bincode::config::standard().with_limit::<MAX_LEN>();

/// Why stored bytes are no lease.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("record is empty")]
    Empty,
    #[error("record has version {0}: this program reads version {VERSION}")]
    Version(u8),
    #[error("record cannot be decoded")]
    Decode(#[source] bincode::error::DecodeError),
    #[error("record is followed by {0} more bytes")]
    TrailingBytes(usize),
    #[error("record has a time out of range")]
    Time,
    #[error("record holds what cannot be listed")]
    Unfit(#[from] TargetError),
    #[error("record has a key that is no text")]
    Key,
}

#[derive(Serialize, Deserialize)]
struct Record {
    peer: PublicKey,
    service: String,
    hostname: String,
    labels: Vec<(String, String)>,
    registered_at_unix_ms: u64,
    renewed_at_unix_ms: u64,
    expires_at_unix_ms: u64,
}

/// The bytes to store under the alias of `lease`.
pub(super) fn encode(lease: &Lease) -> Result<Vec<u8>, bincode::error::EncodeError> {
    let record = Record {
        peer: lease.peer,
        service: lease.service.clone(),
        hostname: lease.hostname.clone(),
        labels: lease.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        registered_at_unix_ms: unix_ms(lease.registered_at),
        renewed_at_unix_ms: unix_ms(lease.renewed_at),
        expires_at_unix_ms: unix_ms(lease.expires_at),
    };
    let mut bytes = vec![VERSION];
    bytes.extend(bincode::serde::encode_to_vec(record, CONFIG)?);
    Ok(bytes)
}

/// The lease stored as `value` under `key`.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Lease, RecordError> {
    let alias: Alias = std::str::from_utf8(key).map_err(|_| RecordError::Key)?.parse()?;
    let body = match value.split_first() {
        Some((&VERSION, body)) => body,
        Some((&other, _)) => return Err(RecordError::Version(other)),
        None => return Err(RecordError::Empty),
    };
    let (record, read) = bincode::serde::decode_from_slice::<Record, _>(body, CONFIG).map_err(RecordError::Decode)?;
    if read < body.len() {
        return Err(RecordError::TrailingBytes(body.len() - read));
    }
    Target::check_name("service", &record.service)?;
    Target::check_name("hostname", &record.hostname)?;
    let mut labels = Labels::default();
    for (name, value) in record.labels {
        // Earlier versions took control characters: such an alias is kept, with a space for each.
        labels.insert(name, value.replace(char::is_control, " "))?;
    }
    Ok(Lease {
        alias,
        peer: record.peer,
        service: record.service,
        hostname: record.hostname,
        labels,
        registered_at: time(record.registered_at_unix_ms)?,
        renewed_at: time(record.renewed_at_unix_ms)?,
        expires_at: time(record.expires_at_unix_ms)?,
    })
}

/// A clock before 1970 reads as 1970.
fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn time(unix_ms: u64) -> Result<SystemTime, RecordError> {
    UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms)).ok_or(RecordError::Time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::KeyPair;

    fn lease() -> Lease {
        let mut labels = Labels::default();
        labels.insert("region", "eu").expect("fits");
        let at = UNIX_EPOCH + Duration::from_secs(1_000_000);
        Lease {
            alias: "web-1".parse().expect("an alias"),
            peer: KeyPair::from_seed(&[7; 32]).public(),
            service: "web".into(),
            hostname: "h1".into(),
            labels,
            registered_at: at,
            renewed_at: at + Duration::from_secs(1),
            expires_at: at + Duration::from_secs(601),
        }
    }

    #[test]
    fn record_bytes_are_unchanged_since_v1() {
        let bytes = encode(&lease()).expect("fits");
        let key = "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c";
        let rest = "03776562026831010672656769 6f6e026575fc00ca9a3bfce8cd9a3bfca8f5a33b";
        let hex = format!("01{key}{rest}").replace(' ', "");
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes), hex);
        assert_eq!(decode(b"web-1", &bytes).expect("reads"), lease());
    }

    #[test]
    fn a_record_of_another_version_or_with_bytes_to_spare_is_refused() {
        let bytes = encode(&lease()).expect("fits");
        let newer = [&[2], &bytes[1..]].concat();
        assert!(matches!(decode(b"web-1", &newer), Err(RecordError::Version(2))));
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(decode(b"web-1", &longer), Err(RecordError::TrailingBytes(1))));
        assert!(matches!(decode(b"web-1", &bytes[..bytes.len() - 1]), Err(RecordError::Decode(_))));
        assert!(matches!(decode(b"web-1", b""), Err(RecordError::Empty)));
        assert!(matches!(decode(b"a b", &bytes), Err(RecordError::Unfit(_))));
    }

    #[test]
    fn control_characters_of_an_earlier_version_are_read_as_spaces() {
        let mut bytes = encode(&lease()).expect("fits");
        let at = bytes.windows(2).position(|w| w == b"eu").expect("the value");
        bytes[at] = 1;
        assert_eq!(decode(b"web-1", &bytes).expect("reads").labels.value("region"), Some(" u"));
    }

    #[test]
    fn a_record_with_a_label_that_prometheus_refuses_is_refused() {
        let text = encode(&lease()).expect("fits");
        let at = text.windows(6).position(|w| w == b"region").expect("the label");
        let mut damaged = text;
        damaged[at] = b'-';
        assert!(matches!(decode(b"web-1", &damaged), Err(RecordError::Unfit(_))));
    }

    proptest! {
        #[test]
        fn damaged_records_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), versioned: bool) {
            if let (true, Some(first)) = (versioned, bytes.first_mut()) {
                *first = VERSION;
            }
            let _ = decode(b"web-1", &bytes);
        }
    }
}
