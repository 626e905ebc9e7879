//! The bytes of a stored lease: `version: u8 = 2 | bincode 2 (standard configuration) of a record`. A record of version 1,
//! which ends after its times, is read too. Version 3 says of lease and former lease whether they are listed, and is written
//! if one is not, so that earlier programs read the rest.
//!
//! The key of the record is the alias. Times are milliseconds since 1970. Fields are checked like those of a peer: one
//! bad label name in a damaged record would make Prometheus refuse the whole list.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    identity::{PublicKey, SecretId},
    registry::{BeaconError, Lease},
    wire::{Alias, Labels, Target, TargetError},
};

/// First byte of a record; other versions than these are refused.
const VERSION: u8 = 3;
/// The version of which all leases are listed.
const ALL_LISTED: u8 = 2;
/// The version that had no secret and no former lease.
const FIRST_VERSION: u8 = 1;

/// Most bytes that decoding may allocate: a wrong length in a damaged record cannot ask for more. The most and longest
/// labels are 36 KiB, and a record may hold two leases.
const MAX_LEN: usize = 128 * 1024;

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
    #[error("record holds no beacon")]
    Beacon(#[from] BeaconError),
}

/// What a record of version 1 holds.
#[derive(Serialize, Deserialize)]
struct Fields {
    peer: PublicKey,
    service: String,
    hostname: String,
    labels: Vec<(String, String)>,
    registered_at_unix_ms: u64,
    renewed_at_unix_ms: u64,
    expires_at_unix_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Record {
    fields: Fields,
    kept: bool,
    secret: Option<SecretId>,
    former: Option<Former>,
}

/// What a record of version 3 holds.
#[derive(Serialize, Deserialize)]
struct Unlisted {
    record: Record,
    listed: bool,
    former_listed: bool,
}

/// The former lease of a kept key.
#[derive(Serialize, Deserialize)]
struct Former {
    fields: Fields,
    secret: Option<SecretId>,
}

/// The bytes to store under the alias of `lease`.
pub(super) fn encode(lease: &Lease) -> Result<Vec<u8>, bincode::error::EncodeError> {
    let record = Record {
        fields: Fields::of(lease),
        kept: lease.kept,
        secret: lease.secret,
        former: lease.former.as_ref().map(|former| Former { fields: Fields::of(former), secret: former.secret }),
    };
    let former_listed = lease.former.as_ref().is_none_or(|former| former.listed);
    let (version, body) = match lease.listed && former_listed {
        true => (ALL_LISTED, write(&record)?),
        false => (VERSION, write(&Unlisted { record, listed: lease.listed, former_listed })?),
    };
    Ok([&[version], &body[..]].concat())
}

/// The lease stored as `value` under `key`.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Lease, RecordError> {
    let alias: Alias = std::str::from_utf8(key).map_err(|_| RecordError::Key)?.parse()?;
    match value.split_first() {
        Some((&VERSION, body)) => read::<Unlisted>(body)?.lease(&alias),
        Some((&ALL_LISTED, body)) => Unlisted { record: read(body)?, listed: true, former_listed: true }.lease(&alias),
        Some((&FIRST_VERSION, body)) => read::<Fields>(body)?.lease(alias),
        Some((&other, _)) => Err(RecordError::Version(other)),
        None => Err(RecordError::Empty),
    }
}

/// The bytes of a record.
pub(super) fn write(record: &impl Serialize) -> Result<Vec<u8>, bincode::error::EncodeError> {
    bincode::serde::encode_to_vec(record, CONFIG)
}

/// The record that all of these bytes are.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, RecordError> {
    let (record, read) = bincode::serde::decode_from_slice(body, CONFIG).map_err(RecordError::Decode)?;
    match body.len() - read {
        0 => Ok(record),
        extra => Err(RecordError::TrailingBytes(extra)),
    }
}

impl Unlisted {
    fn lease(self, alias: &Alias) -> Result<Lease, RecordError> {
        let Self { record: Record { fields, kept, secret, former }, listed, former_listed } = self;
        let former = former.map(|Former { fields, secret }| {
            let fields = fields.lease(alias.clone())?;
            Ok::<_, RecordError>(Arc::new(Lease { kept: true, secret, listed: former_listed, ..fields }))
        });
        Ok(Lease { kept, secret, former: former.transpose()?, listed, ..fields.lease(alias.clone())? })
    }
}

impl Fields {
    fn of(lease: &Lease) -> Self {
        Self {
            peer: lease.peer,
            service: lease.service.clone(),
            hostname: lease.hostname.clone(),
            labels: lease.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            registered_at_unix_ms: unix_ms(lease.registered_at),
            renewed_at_unix_ms: unix_ms(lease.renewed_at),
            expires_at_unix_ms: unix_ms(lease.expires_at),
        }
    }

    /// The lease of the alias, of a key that is not known to be kept.
    fn lease(self, alias: Alias) -> Result<Lease, RecordError> {
        Target::check_name("service", &self.service)?;
        Target::check_name("hostname", &self.hostname)?;
        let mut labels = Labels::default();
        for (name, value) in self.labels {
            // Earlier versions took control characters: such an alias is kept, with a space for each.
            labels.insert(name, value.replace(char::is_control, " "))?;
        }
        Ok(Lease {
            alias,
            peer: self.peer,
            service: self.service,
            hostname: self.hostname,
            labels,
            listed: true,
            kept: false,
            secret: None,
            former: None,
            registered_at: time(self.registered_at_unix_ms)?,
            renewed_at: time(self.renewed_at_unix_ms)?,
            expires_at: time(self.expires_at_unix_ms)?,
        })
    }
}

/// A clock before 1970 reads as 1970.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn time(unix_ms: u64) -> Result<SystemTime, RecordError> {
    UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms)).ok_or(RecordError::Time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lease() -> Lease {
        let mut labels = Labels::default();
        labels.insert("region", "eu").expect("fits");
        let at = UNIX_EPOCH + Duration::from_secs(1_000_000);
        Lease {
            labels,
            registered_at: at,
            renewed_at: at + Duration::from_secs(1),
            expires_at: at + Duration::from_secs(601),
            ..Lease::sample("web-1")
        }
    }

    #[test]
    fn record_bytes_are_unchanged_since_v1() {
        let key = "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c";
        let fields = format!("{key}03776562026831010672656769 6f6e026575fc00ca9a3bfce8cd9a3bfca8f5a33b");
        let secret = "01abababababababab";
        let taken = Lease { kept: false, former: Some(Arc::new(lease())), ..lease() };
        let first = Lease { kept: false, secret: None, ..lease() };
        let former = Lease { listed: false, ..lease() };
        let unlisted_before = Lease { kept: false, former: Some(Arc::new(former)), ..lease() };
        for (lease, hex) in [
            (lease(), format!("02{fields}01{secret}00")),
            (taken, format!("02{fields}00{secret}01{fields}{secret}")),
            (first.clone(), format!("02{fields}000000")),
            (Lease { listed: false, ..lease() }, format!("03{fields}01{secret}00 00 01")),
            (unlisted_before, format!("03{fields}00{secret}01{fields}{secret} 01 00")),
        ] {
            let bytes = encode(&lease).expect("fits");
            assert_eq!(data_encoding::HEXLOWER.encode(&bytes), hex.replace(' ', ""));
            assert_eq!(decode(b"web-1", &bytes).expect("reads"), lease);
        }
        let v1 = data_encoding::HEXLOWER.decode(format!("01{fields}").replace(' ', "").as_bytes()).expect("hex");
        assert_eq!(decode(b"web-1", &v1).expect("reads"), first);
    }

    #[test]
    fn a_record_of_another_version_or_with_bytes_to_spare_is_refused() {
        let bytes = encode(&lease()).expect("fits");
        let newer = [&[4], &bytes[1..]].concat();
        assert!(matches!(decode(b"web-1", &newer), Err(RecordError::Version(4))));
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
