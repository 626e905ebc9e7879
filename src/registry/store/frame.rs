//! The bytes of the table's file: a line that names the format, then frames, each of one change.
//!
//! ```text
//! narthex aliases <format> <16 hex digits of the checksum of what stands before>\n
//! magic: 4 bytes | body length: u32 | group: u64 | index: u32 | of: u32 | body | checksum: 8 bytes
//! ```
//!
//! Numbers are little endian. A body is one byte, 0 for a base, 1 for a put, 2 for a removal, and for the latter two
//! `length of the alias: u16 | alias | record of the lease, if put`. The changes of one commit are one group: frames
//! with its number, the first of index 0, `of` of them. A base begins a group that holds all leases up to its number.
//!
//! Each frame stands for itself, so that damage takes no more than the frames that it hits. The magic is no UTF-8: no
//! text of a peer contains a frame.

use std::io::{self, Read};

use blake2::{Blake2s256, Digest};
use data_encoding::HEXLOWER;

use super::{Change, record};
use crate::{registry::Lease, wire::Alias};

/// The format of the file. Format 1 was a directory of sled's (`former`).
const FORMAT: u32 = 2;
const MARK: &str = "narthex aliases ";
/// Longest first line that is read.
const MAX_FIRST_LINE: usize = 64;

const MAGIC: [u8; 4] = [0xff, b'n', b'x', 0xfe];
/// Bytes before the body.
const HEAD: usize = 24;
const CHECKSUM: usize = 8;
/// Longest body: the longest record, the longest alias.
const MAX_BODY: usize = 256 * 1024;
/// How much is read at once.
const CHUNK: usize = 256 * 1024;

const BASE: u8 = 0;
const PUT: u8 = 1;
const REMOVE: u8 = 2;

/// The place of a frame: its group, and which of how many it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: u64,
    pub(super) index: u32,
    pub(super) of: u32,
}

/// What a frame says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The group does not build on those before.
    Base,
    Put(Box<Lease>),
    Remove(Alias),
    /// A put whose record cannot be read.
    Unreadable(Alias),
}

/// A frame, and where it stands in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) place: Place,
    pub(super) entry: Entry,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// The first line of a file of our format.
pub(super) fn first_line() -> String {
    line(FORMAT)
}

fn line(format: u32) -> String {
    let body = format!("{MARK}{format}");
    let sum = HEXLOWER.encode(&checksum(body.as_bytes()));
    format!("{body} {sum}\n")
}

/// Appends the frames of a commit.
pub(super) fn append_group(to: &mut Vec<u8>, group: u64, changes: &[Change]) -> io::Result<()> {
    let of = u32::try_from(changes.len()).map_err(io::Error::other)?;
    (0..of).zip(changes).try_for_each(|(index, change)| append(to, Place { group, index, of }, Some(change)))
}

/// Appends one frame; without a change, a base.
pub(super) fn append(to: &mut Vec<u8>, place: Place, change: Option<&Change>) -> io::Result<()> {
    let (kind, alias, record) = match change {
        None => (BASE, None, Vec::new()),
        Some(Change::Put(lease)) => (PUT, Some(&lease.alias), record::encode(lease).map_err(io::Error::other)?),
        Some(Change::Remove(alias)) => (REMOVE, Some(alias), Vec::new()),
    };
    let start = to.len();
    let alias = alias.map_or("", Alias::as_str);
    let alias_len = u16::try_from(alias.len()).map_err(io::Error::other)?;
    let body = 1 + if change.is_some() { 2 + alias.len() + record.len() } else { 0 };
    to.extend(MAGIC);
    to.extend(u32::try_from(body).map_err(io::Error::other)?.to_le_bytes());
    to.extend(place.group.to_le_bytes());
    to.extend(place.index.to_le_bytes());
    to.extend(place.of.to_le_bytes());
    to.push(kind);
    if change.is_some() {
        to.extend(alias_len.to_le_bytes());
        to.extend(alias.as_bytes());
        to.extend(record);
    }
    let sum = checksum(&to[start..]);
    to.extend(sum);
    Ok(())
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&Blake2s256::digest(bytes)[..CHECKSUM]);
    sum
}

/// Finds frames in bytes of which any may be damaged.
pub(super) struct Scanner<R> {
    from: R,
    buffer: Vec<u8>,
    /// Where the next frame is looked for in the buffer.
    at: usize,
    /// Where the buffer begins in the file.
    offset: u64,
    ended: bool,
}

/// What the first line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Ours,
    Other(u32),
    /// The line is damaged.
    Unknown,
}

impl<R: Read> Scanner<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, buffer: Vec::new(), at: 0, offset: 0, ended: false }
    }

    /// Reads the first line, and passes it if the format is ours.
    pub(super) fn format(&mut self) -> io::Result<Format> {
        self.fill(MAX_FIRST_LINE)?;
        let first = &self.buffer[..self.buffer.len().min(MAX_FIRST_LINE)];
        let Some(end) = first.iter().position(|byte| *byte == b'\n') else { return Ok(Format::Unknown) };
        let number =
            std::str::from_utf8(&first[..end]).ok().and_then(|text| text.strip_prefix(MARK)?.split(' ').next());
        match number.and_then(|number| number.parse().ok()) {
            Some(number) if line(number).as_bytes() != &first[..=end] => Ok(Format::Unknown),
            Some(FORMAT) => {
                self.at = end + 1;
                Ok(Format::Ours)
            }
            Some(other) => Ok(Format::Other(other)),
            None => Ok(Format::Unknown),
        }
    }

    /// The offset at which the next frame stands if nothing is damaged.
    pub(super) fn position(&self) -> u64 {
        self.offset + self.at as u64
    }

    /// The next frame, whatever bytes stand before it.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame>> {
        while self.fill(HEAD + CHECKSUM)? {
            let start = self.position();
            if let Some((place, entry, len)) = self.here()? {
                self.at += len;
                return Ok(Some(Frame { place, entry, start, end: start + len as u64 }));
            }
            let rest = &self.buffer[self.at + 1..];
            self.at += 1 + rest.iter().position(|byte| *byte == MAGIC[0]).unwrap_or(rest.len());
        }
        Ok(None)
    }

    /// The frame at the place looked at, and its length.
    fn here(&mut self) -> io::Result<Option<(Place, Entry, usize)>> {
        let head = &self.buffer[self.at..][..HEAD];
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let body = number(4) as usize;
        if head[..4] != MAGIC || body > MAX_BODY {
            return Ok(None);
        }
        let group = u64::from(number(8)) | u64::from(number(12)) << 32;
        let place = Place { group, index: number(16), of: number(20) };
        if !self.fill(HEAD + body + CHECKSUM)? {
            return Ok(None);
        }
        let (summed, sum) = self.buffer[self.at..][..HEAD + body + CHECKSUM].split_at(HEAD + body);
        if checksum(summed) != sum {
            return Ok(None);
        }
        Ok(entry(&summed[HEAD..]).map(|entry| (place, entry, HEAD + body + CHECKSUM)))
    }

    /// True if so many bytes are there.
    fn fill(&mut self, want: usize) -> io::Result<bool> {
        while !self.ended && self.buffer.len() - self.at < want {
            if self.at >= CHUNK {
                self.buffer.drain(..self.at);
                self.offset += self.at as u64;
                self.at = 0;
            }
            let len = self.buffer.len();
            self.buffer.resize(len + CHUNK, 0);
            let read = self.from.read(&mut self.buffer[len..])?;
            self.buffer.truncate(len + read);
            self.ended = read == 0;
        }
        Ok(self.buffer.len() - self.at >= want)
    }
}

/// What a body says that has its checksum; `None` if no version of narthex wrote it.
fn entry(body: &[u8]) -> Option<Entry> {
    let (&kind, body) = body.split_first()?;
    if kind == BASE {
        return Some(Entry::Base);
    }
    let (len, body) = body.split_first_chunk()?;
    let (alias, record) = body.split_at_checked(u16::from_le_bytes(*len).into())?;
    let name: Alias = std::str::from_utf8(alias).ok()?.parse().ok()?;
    match kind {
        PUT => Some(match record::decode(alias, record) {
            Ok(lease) => Entry::Put(Box::new(lease)),
            Err(error) => {
                tracing::warn!(alias = %name, error = &error as &dyn std::error::Error, "stored lease cannot be read");
                Entry::Unreadable(name)
            }
        }),
        REMOVE => Some(Entry::Remove(name)),
        _ => None,
    }
}
