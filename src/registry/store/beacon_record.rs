//! The bytes of a stored beacon: `version: u8 = 1 | bincode 2 (standard configuration) of a record`, beside its name.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::{self, RecordError};
use crate::registry::{Beacon, BeaconName};

/// First byte of a record; other versions are refused.
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Record {
    data: String,
    lease_ms: Option<u64>,
    registered_at_unix_ms: u64,
    expires_at_unix_ms: Option<u64>,
}

/// The bytes to store beside the name of `beacon`.
pub(super) fn encode(beacon: &Beacon) -> Result<Vec<u8>, bincode::error::EncodeError> {
    let record = Record {
        data: beacon.data.clone(),
        lease_ms: beacon.lease.map(|lease| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)),
        registered_at_unix_ms: record::unix_ms(beacon.registered_at),
        expires_at_unix_ms: beacon.expires_at.map(record::unix_ms),
    };
    let mut bytes = vec![VERSION];
    bytes.extend(record::write(&record)?);
    Ok(bytes)
}

/// The beacon stored as `bytes` beside its name.
pub(super) fn decode(name: BeaconName, bytes: &[u8]) -> Result<Beacon, RecordError> {
    let body = match bytes.split_first() {
        Some((&VERSION, body)) => body,
        Some((&other, _)) => return Err(RecordError::Version(other)),
        None => return Err(RecordError::Empty),
    };
    let Record { data, lease_ms, registered_at_unix_ms, expires_at_unix_ms } = record::read(body)?;
    let registered_at = record::time(registered_at_unix_ms)?;
    let expires_at = expires_at_unix_ms.map(record::time).transpose()?;
    let beacon = Beacon::new(name, data, lease_ms.map(Duration::from_millis), registered_at)?;
    Ok(Beacon { expires_at, ..beacon })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn record_bytes_are_unchanged_since_v1() {
        let stays = Beacon::sample("k", "a");
        let at = stays.registered_at;
        let lease = Some(Duration::from_secs(90));
        let ends = Beacon::new(stays.name.clone(), "x".to_owned(), lease, at).expect("a beacon");
        let data = data_encoding::HEXLOWER.encode(stays.data.as_bytes());
        for (beacon, hex) in [
            (stays, format!("011d{data}00fd0068e5cf8b010000 00")),
            (ends, "0101780 1fc905f0100fd0068e5cf8b01000001fd90c7e6cf8b010000".to_owned()),
        ] {
            let bytes = encode(&beacon).expect("fits");
            assert_eq!(data_encoding::HEXLOWER.encode(&bytes), hex.replace(' ', ""));
            assert_eq!(decode(beacon.name.clone(), &bytes).expect("reads"), beacon);
        }
    }

    proptest! {
        #[test]
        fn damaged_records_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), versioned: bool) {
            if let (true, Some(first)) = (versioned, bytes.first_mut()) {
                *first = VERSION;
            }
            let _ = decode(BeaconName::new("k", "a").expect("a name"), &bytes);
        }
    }
}
