//! The values of the table: frames, each of one change, which can be found in bytes of which any may be damaged.
//!
//! ```text
//! magic: 4 bytes | body length: u32 | group: u64 | index: u32 | of: u32 | body | checksum: 8 bytes
//! ```
//!
//! Numbers are little endian. A body is one of
//!
//! ```text
//! 0 | format: u32 | entries: u64 | id: u64                          the mark: leases and beacons after this group, and the table's id
//! 1 | length of the alias: u16 | alias | record                     a lease
//! 2 | length of the alias: u16 | alias | until: u64, ms since 1970  a removal, and when older leases are over anyway
//! 3 | length of the name: u16 | name | record                       a beacon (since format 3)
//! 4 | length of the name: u16 | name | until                        the removal of a beacon, and how long that is kept
//! ```
//!
//! The frames of one commit are one group: those with its number, `of` of them. sled writes values as they are, so the
//! frames can be read from its files without it. The magic is no UTF-8: no text of a peer contains a frame.

use std::{
    io::{self, Read},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use blake2::{Blake2s256, Digest};

use super::{beacon_record, record};
use crate::{
    registry::{Beacon, BeaconName, Lease, Name},
    wire::Alias,
};

/// The format of the table.
pub(super) const FORMAT: u32 = 3;
/// The first format with frames; before, values were records. Format 2 had no beacons.
pub(super) const FIRST_WITH_FRAMES: u32 = 2;

const MAGIC: [u8; 4] = [0xff, b'n', b'x', 0xfe];
/// Bytes before the body.
const HEAD: usize = 24;
const CHECKSUM: usize = 8;
/// Longest body: the longest record, the longest alias.
const MAX_BODY: usize = 256 * 1024;
/// How much is read at once.
const CHUNK: usize = 256 * 1024;

const MARK: u8 = 0;
const LEASE: u8 = 1;
const REMOVED: u8 = 2;
const BEACON: u8 = 3;
const BEACON_REMOVED: u8 = 4;

/// The place of a frame: its group, and which of how many it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: u64,
    pub(super) index: u32,
    pub(super) of: u32,
}

/// What is stored under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Lease(Arc<Lease>),
    Beacon(Arc<Beacon>),
    /// Nothing: older leases of the alias, which may still be in the files, are over at that time anyway.
    Removed(SystemTime),
    /// A lease or a beacon whose record cannot be read.
    Unreadable,
}

/// What a frame says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// The first tables of format 2 had no id.
    Mark {
        format: u32,
        entries: u64,
        id: Option<u64>,
    },
    Of(Name, Entry),
}

/// The bytes of the mark.
pub(super) fn mark(place: Place, entries: u64, id: u64) -> io::Result<Vec<u8>> {
    frame(place, &[&[MARK][..], &FORMAT.to_le_bytes(), &entries.to_le_bytes(), &id.to_le_bytes()].concat())
}

/// The bytes of the entry of a name.
pub(super) fn entry(place: Place, name: &Name, entry: &Entry) -> io::Result<Vec<u8>> {
    let (name, kind, removed) = match name {
        Name::Alias(alias) => (alias.as_str().as_bytes().to_vec(), LEASE, REMOVED),
        Name::Beacon(name) => (name.encode(), BEACON, BEACON_REMOVED),
    };
    let (kind, rest) = match entry {
        Entry::Lease(lease) => (kind, record::encode(lease).map_err(io::Error::other)?),
        Entry::Beacon(beacon) => (kind, beacon_record::encode(beacon).map_err(io::Error::other)?),
        Entry::Removed(until) => (removed, record::unix_ms(*until).to_le_bytes().to_vec()),
        Entry::Unreadable => (kind, Vec::new()),
    };
    let name_len = u16::try_from(name.len()).map_err(io::Error::other)?;
    frame(place, &[&[kind][..], &name_len.to_le_bytes(), &name, &rest].concat())
}

fn frame(place: Place, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEAD + body.len() + CHECKSUM);
    bytes.extend(MAGIC);
    bytes.extend(u32::try_from(body.len()).map_err(io::Error::other)?.to_le_bytes());
    bytes.extend(place.group.to_le_bytes());
    bytes.extend(place.index.to_le_bytes());
    bytes.extend(place.of.to_le_bytes());
    bytes.extend(body);
    let sum = checksum(&bytes);
    bytes.extend(sum);
    Ok(bytes)
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&Blake2s256::digest(bytes)[..CHECKSUM]);
    sum
}

/// The one frame that these bytes are; `None` if they are anything else.
pub(super) fn decode(bytes: &[u8]) -> Option<(Place, Body)> {
    (length(bytes)? == bytes.len()).then(|| read(bytes))?
}

/// The length of the frame that these bytes may begin with.
fn length(bytes: &[u8]) -> Option<usize> {
    let body = u32::from_le_bytes(*bytes.strip_prefix(&MAGIC)?.first_chunk()?) as usize;
    (body <= MAX_BODY).then_some(HEAD + body + CHECKSUM)
}

/// The frame that is all of these bytes.
fn read(bytes: &[u8]) -> Option<(Place, Body)> {
    let (summed, sum) = bytes.split_last_chunk::<CHECKSUM>()?;
    if checksum(summed) != *sum {
        return None;
    }
    let (group, rest) = summed.get(8..)?.split_first_chunk()?;
    let (index, rest) = rest.split_first_chunk()?;
    let (of, rest) = rest.split_first_chunk()?;
    let number = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
    Some((Place { group: u64::from_le_bytes(*group), index: number(index), of: number(of) }, body(rest)?))
}

/// What a body says that has its checksum; `None` if no version of narthex wrote it.
fn body(bytes: &[u8]) -> Option<Body> {
    let (&kind, rest) = bytes.split_first()?;
    if kind == MARK {
        let (format, rest) = rest.split_first_chunk()?;
        let (entries, id) = rest.split_first_chunk()?;
        return Some(Body::Mark {
            format: u32::from_le_bytes(*format),
            entries: u64::from_le_bytes(*entries),
            id: id.first_chunk().copied().map(u64::from_le_bytes),
        });
    }
    let (len, rest) = rest.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
    match kind {
        LEASE => Some(Body::Of(alias(name)?, lease(name, rest))),
        REMOVED => Some(Body::Of(alias(name)?, removed(rest)?)),
        BEACON => {
            let name = BeaconName::decode(name)?;
            let entry = beacon(&name, rest);
            Some(Body::Of(Name::Beacon(name), entry))
        }
        BEACON_REMOVED => Some(Body::Of(Name::Beacon(BeaconName::decode(name)?), removed(rest)?)),
        _ => None,
    }
}

fn alias(name: &[u8]) -> Option<Name> {
    let alias: Alias = std::str::from_utf8(name).ok()?.parse().ok()?;
    Some(Name::Alias(alias))
}

fn removed(until: &[u8]) -> Option<Entry> {
    let until = Duration::from_millis(u64::from_le_bytes(until.try_into().ok()?));
    Some(Entry::Removed(UNIX_EPOCH.checked_add(until)?))
}

/// The lease of a record.
pub(super) fn lease(key: &[u8], bytes: &[u8]) -> Entry {
    match record::decode(key, bytes) {
        Ok(lease) => Entry::Lease(Arc::new(lease)),
        Err(error) => {
            let key = key.escape_ascii();
            tracing::warn!(%key, error = &error as &dyn std::error::Error, "stored lease cannot be read");
            Entry::Unreadable
        }
    }
}

/// The beacon of a record.
fn beacon(name: &BeaconName, bytes: &[u8]) -> Entry {
    match beacon_record::decode(name.clone(), bytes) {
        Ok(beacon) => Entry::Beacon(Arc::new(beacon)),
        Err(error) => {
            tracing::warn!(beacon = %name, error = &error as &dyn std::error::Error, "stored beacon cannot be read");
            Entry::Unreadable
        }
    }
}

/// Hands on every whole frame, whatever bytes stand between them.
pub(super) fn scan(mut from: impl Read, mut take: impl FnMut(Place, Body)) -> io::Result<()> {
    let (mut buffer, mut ended) = (Vec::new(), false);
    while !ended {
        let len = buffer.len();
        buffer.resize(len + CHUNK, 0);
        let read_len = from.read(&mut buffer[len..])?;
        buffer.truncate(len + read_len);
        ended = read_len == 0;
        let mut at = 0;
        while let Some(next) = buffer[at..].iter().position(|byte| *byte == MAGIC[0]) {
            at += next;
            let rest = &buffer[at..];
            if rest.len() < HEAD + CHECKSUM && !ended {
                break;
            }
            let frame = length(rest);
            if frame.is_some_and(|len| len > rest.len()) && !ended {
                // The rest of the frame has not been read.
                break;
            }
            at += match frame.and_then(|len| Some((len, read(rest.get(..len)?)?))) {
                Some((len, (place, body))) => {
                    take(place, body);
                    len
                }
                None => 1,
            };
        }
        let is_done = !buffer[at..].contains(&MAGIC[0]);
        buffer.drain(..if is_done { buffer.len() } else { at });
    }
    Ok(())
}
