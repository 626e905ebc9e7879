//! The values of a bucket: `version: u8 = 1 | writer: u64, little endian | record`.
//!
//! The writer is a run of a scraper, which so knows its own changes when they come back. The record of an alias is that of the
//! sled store (`store::record`); a beacon's has its name before it: `length of the name: u32, little endian | name | record`. A
//! removal's value is its header, and a beacon's name as above.

use std::sync::Arc;

use super::key;
use crate::registry::{
    BeaconName, Change, Entry, Name,
    store::{beacon_record, record},
};

const VERSION: u8 = 1;
/// Bytes before the record.
const HEADER: usize = 9;

/// Why a value could not be read, or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum ValueError {
    #[error("value has version {0}: this program reads version {VERSION}")]
    Version(u8),
    #[error("value is too short")]
    Short,
    #[error("value has a name that is none")]
    Name,
    #[error(transparent)]
    Record(#[from] record::RecordError),
    #[error("value cannot be written")]
    Write(#[from] bincode::error::EncodeError),
}

/// A value, and who wrote it.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) writer: u64,
    pub(super) name: Name,
    /// `None` in a removal.
    pub(super) entry: Option<Entry>,
}

/// The value that a change leaves.
pub(super) fn encode(change: &Change, writer: u64) -> Result<Vec<u8>, ValueError> {
    let mut bytes = vec![VERSION];
    bytes.extend(writer.to_le_bytes());
    match change {
        Change::Put(lease) => bytes.extend(record::encode(lease)?),
        Change::Remove(_) => {}
        Change::PutBeacon(beacon) => {
            write_name(&beacon.name, &mut bytes);
            bytes.extend(beacon_record::encode(beacon)?);
        }
        Change::RemoveBeacon(name) => write_name(name, &mut bytes),
    }
    Ok(bytes)
}

/// Reads the value of a key; `is_removal` says that the key was deleted.
pub(super) fn decode(key: &str, value: &[u8], is_removal: bool) -> Result<Written, ValueError> {
    let (header, body) = value.split_at_checked(HEADER).ok_or(ValueError::Short)?;
    let (version, writer) = header.split_first().expect("a header");
    if *version != VERSION {
        return Err(ValueError::Version(*version));
    }
    let writer = u64::from_le_bytes(writer.try_into().expect("eight bytes"));
    if let Some(alias) = key::alias(key) {
        let name = Name::Alias(alias.parse().map_err(|_| ValueError::Name)?);
        let lease = (!is_removal).then(|| record::decode(alias.as_bytes(), body)).transpose()?;
        return Ok(Written { writer, name, entry: lease.map(|lease| Entry::Lease(Arc::new(lease))) });
    }
    let (name, body) = read_name(body).ok_or(ValueError::Name)?;
    let beacon = (!is_removal).then(|| beacon_record::decode(name.clone(), body)).transpose()?;
    let name = Name::Beacon(name);
    if key::of(&name) != key {
        return Err(ValueError::Name);
    }
    Ok(Written { writer, name, entry: beacon.map(|beacon| Entry::Beacon(Arc::new(beacon))) })
}

fn write_name(name: &BeaconName, to: &mut Vec<u8>) {
    let name = name.encode();
    to.extend(u32::try_from(name.len()).expect("a name is short").to_le_bytes());
    to.extend(name);
}

fn read_name(bytes: &[u8]) -> Option<(BeaconName, &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    Some((BeaconName::decode(name)?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::registry::{Beacon, Lease};

    #[test]
    fn values_are_read_as_they_were_written() {
        let (lease, beacon) = (Arc::new(Lease::sample("a.b")), Arc::new(Beacon::sample("k", "a")));
        let removed = [Change::Remove(lease.alias.clone()), Change::RemoveBeacon(beacon.name.clone())];
        let put = [
            (Change::Put(Arc::clone(&lease)), Entry::Lease(lease)),
            (Change::PutBeacon(Arc::clone(&beacon)), Entry::Beacon(beacon)),
        ];
        for (change, entry) in put.into_iter().map(|(c, e)| (c, Some(e))).chain(removed.map(|c| (c, None))) {
            let (key, value) = (key::of(&change.name()), encode(&change, 7).expect("fits"));
            let read = decode(&key, &value, entry.is_none()).expect("reads");
            assert_eq!((read.writer, read.name, read.entry), (7, change.name(), entry));
            assert!(matches!(decode(&key, &[&[2], &value[1..]].concat(), false), Err(ValueError::Version(2))));
        }
    }

    proptest! {
        #[test]
        fn odd_values_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), versioned: bool, removal: bool) {
            if let (true, Some(first)) = (versioned, bytes.first_mut()) {
                *first = VERSION;
            }
            for key in ["alias.a", "beacon.AAAA", "member.x", ""] {
                let _ = decode(key, &bytes, removal);
            }
        }
    }
}
