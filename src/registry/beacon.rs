//! Beacons: what a caller of the registration API keeps under a kind and a key, for whoever lists the kind.
//!
//! The data is the caller's text. If it names targets, Prometheus is shown them as they are, beside the aliases: it reaches
//! those targets itself. A beacon stays until it is unregistered, so that what vanishes is seen as down, unless its caller asked for
//! a lease.

mod groups;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

#[cfg(feature = "cli")]
pub(crate) use groups::{KEY_LABEL, KIND_LABEL, TOKEN_LABEL};
pub(crate) use groups::{ListedGroup, NotListed};

/// How the kinds of narthex's own begin, which the registration API does not change.
pub(crate) const OWN_KINDS: &str = "narthex/";

/// Longest kind, in bytes.
const MAX_KIND: usize = 256;
/// Longest key, in bytes: that of the original's database.
const MAX_KEY: usize = 32_768;
/// Longest data, in bytes, whatever the limits of the table: a stored record has room for no more.
const MAX_DATA: usize = 64 << 10;

/// Characters of a key that are shown.
const SHOWN: usize = 100;

/// A kind, and a key in it. Both are text of the caller's choice, not empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BeaconName {
    kind: String,
    key: String,
}

/// Why something cannot be a beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BeaconError {
    #[error("kind, key and data must not be empty")]
    Empty,
    #[error("the {what} has {len} bytes: at most {most} are allowed")]
    TooLong { what: &'static str, len: usize, most: usize },
}

impl BeaconName {
    pub(crate) fn new(kind: impl Into<String>, key: impl Into<String>) -> Result<Self, BeaconError> {
        let name = Self { kind: kind.into(), key: key.into() };
        check("kind", &name.kind, MAX_KIND)?;
        check("key", &name.key, MAX_KEY)?;
        Ok(name)
    }

    /// What stands before every name of the kind, and is none itself.
    pub(super) fn first_of(kind: &str) -> Self {
        Self { kind: kind.to_owned(), key: String::new() }
    }

    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// For the store: `length of the kind: u16, little endian | kind | key`.
    pub(super) fn encode(&self) -> Vec<u8> {
        let len = u16::try_from(self.kind.len()).expect("a kind is short");
        [&len.to_le_bytes(), self.kind.as_bytes(), self.key.as_bytes()].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (len, rest) = bytes.split_first_chunk()?;
        let (kind, key) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
        let [kind, key] = [kind, key].map(std::str::from_utf8);
        Self::new(kind.ok()?, key.ok()?).ok()
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.kind.len() + self.key.len()
    }
}

fn check(what: &'static str, text: &str, most: usize) -> Result<(), BeaconError> {
    match text.len() {
        0 => Err(BeaconError::Empty),
        len if len > most => Err(BeaconError::TooLong { what, len, most }),
        _ => Ok(()),
    }
}

impl fmt::Display for BeaconName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // For logs: a key may be long, and anything.
        let key = self.key.chars().take(SHOWN).flat_map(char::escape_debug).collect::<String>();
        write!(f, "{}/{key}", self.kind.escape_debug())
    }
}

/// A beacon in the table. Times are wall-clock times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Beacon {
    pub(crate) name: BeaconName,
    pub(crate) data: String,
    /// Time from each registration until the beacon goes by itself; `None` if it stays.
    pub(crate) lease: Option<Duration>,
    pub(crate) registered_at: SystemTime,
    pub(crate) expires_at: Option<SystemTime>,
    /// The targets that the data names.
    pub(crate) groups: Result<Vec<ListedGroup>, NotListed>,
}

impl Beacon {
    pub(crate) fn new(
        name: BeaconName,
        data: String,
        lease: Option<Duration>,
        now: SystemTime,
    ) -> Result<Self, BeaconError> {
        check("data", &data, MAX_DATA)?;
        let expires_at = lease.map(|lease| super::lease::later(now, lease));
        Ok(Self {
            groups: ListedGroup::read(&name.kind, &name.key, &data),
            name,
            data,
            lease,
            registered_at: now,
            expires_at,
        })
    }

    /// The same, to end at another time.
    pub(super) fn until(&self, expires_at: SystemTime) -> Self {
        let Self { name, data, groups, .. } = self;
        let (name, data, groups) = (name.clone(), data.clone(), groups.clone());
        Self { name, data, groups, expires_at: Some(expires_at), ..*self }
    }

    /// True if it says the same as the other.
    pub(super) fn says_as(&self, other: &Self) -> bool {
        self.name == other.name && self.data == other.data && self.lease == other.lease
    }

    /// What it takes of the table's bytes: its name and data, and its groups in the http_sd list.
    pub(super) fn len_bytes(&self) -> u64 {
        let listed = self.groups.iter().flatten().map(|group| group.json.len()).sum::<usize>();
        (self.name.len_bytes() + self.data.len() + listed) as u64
    }
}

#[cfg(test)]
impl Beacon {
    pub(super) fn sample(kind: &str, key: &str) -> Self {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let name = BeaconName::new(kind, key).expect("a name");
        Self::new(name, r#"{"targets":["10.0.0.1:9100"]}"#.to_owned(), None, at).expect("a beacon")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        for (kind, key) in [("k", "a"), ("a/b", "c/d"), ("ü", "\0\n")] {
            let name = BeaconName::new(kind, key).expect("a name");
            assert_eq!(BeaconName::decode(&name.encode()), Some(name));
        }
        for bytes in [&b""[..], b"\x01", b"\x01\0k", b"\0\0k", b"\x09\0k", b"\x01\0\xff\xff"] {
            assert_eq!(BeaconName::decode(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_empty_or_too_long_is_refused() {
        assert_eq!(BeaconName::new("", "a"), Err(BeaconError::Empty));
        assert!(BeaconName::new("k", "a".repeat(MAX_KEY)).is_ok());
        assert!(matches!(BeaconName::new("k", "a".repeat(MAX_KEY + 1)), Err(BeaconError::TooLong { what: "key", .. })));
        let name = || BeaconName::new("k", "a").expect("a name");
        let with = |data: String| Beacon::new(name(), data, None, SystemTime::UNIX_EPOCH);
        assert_eq!(with(String::new()).expect_err("refused"), BeaconError::Empty);
        assert!(with("x".repeat(MAX_DATA)).is_ok());
        assert!(matches!(with("x".repeat(MAX_DATA + 1)), Err(BeaconError::TooLong { what: "data", .. })));
    }
}
