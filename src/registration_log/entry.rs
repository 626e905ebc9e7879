//! A line of the log.
//!
//! The hash of a line is SHA-256 of its bytes without the line end; `prev` is that of the line before, in hex, and 64 zeros in the
//! very first. A head's signature is Ed25519 over [`CONTEXT`] and the bytes of its own line before `,"signature"`: with `prev` it is
//! over everything before.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::identity::KeyPair;
#[cfg(any(test, feature = "cli"))]
use crate::identity::PublicKey;

/// What a signature of a head begins with, so that it is one of nothing else.
const CONTEXT: &[u8] = b"narthex registration log head v1\n";
/// Where a head's signature begins in its line.
const SIGNATURE: &str = ",\"signature\":\"";
/// What is behind it.
const END: &str = "\"}";

/// A line, as JSON has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// From 1, without gaps.
    pub(crate) seq: u64,
    /// RFC 3339 with milliseconds, UTC.
    pub(crate) at: String,
    pub(crate) prev: Hash,
    #[serde(flatten)]
    pub(crate) what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum What {
    /// A scraper began to write.
    Started {
        /// Its version.
        narthex: String,
        /// True if the line before was not whole, and was cut off: the scraper, or its host, had crashed.
        torn: bool,
        /// True if the line before is none of this log: somebody has changed it.
        broken: bool,
    },
    /// A free alias.
    Registered(Holder),
    /// The same holder, with another secret from now on.
    SecretChanged(Holder),
    /// By the same holder, after the lease had lapsed.
    Returned(Holder),
    /// From another holder.
    TakenOver {
        #[serde(flatten)]
        by: Holder,
        from: String,
    },
    /// Not renewed in time; still listed.
    Lapsed { alias: String, peer: String },
    /// Out of the table, as it was lapsed for so long.
    Gone { alias: String, peer: String },
    /// Out of the table at once.
    Released { alias: String, peer: String, why: Why },
    /// So many entries could not be written before.
    Lost { entries: u64 },
    /// Signed by the scraper's key.
    Head { key: String, signature: String },
}

/// Who holds an alias from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) alias: String,
    /// The holder's public key.
    pub(crate) peer: String,
    /// The name of the secret, or its id where it has none here any more.
    pub(crate) secret: Option<String>,
    /// From which kind of address: `loopback`, `private`, `public`, `relayed`; none if there was no link by then.
    pub(crate) address: Option<String>,
}

/// Why an alias was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    /// Its holder gave it up, or may not hold as much as it asked for.
    Holder,
    /// Somebody with the right to.
    Operator,
    /// Its key may not hold it any more.
    Blocked,
    /// Its secret or ticket is gone, or is not for it any more.
    Revoked,
    /// Another scraper of the same table.
    Elsewhere,
}

/// SHA-256 of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hash([u8; 32]);

impl Hash {
    pub(crate) fn of(line: &[u8]) -> Self {
        Self(Sha256::digest(line).into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl FromStr for Hash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("expected 64 hex digits")
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Entry {
    /// The line, without its end.
    pub(super) fn line(&self) -> String {
        // Strings and numbers have a form in JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The line of a head that this key signs.
    pub(super) fn signed(seq: u64, at: String, prev: Hash, key: &KeyPair) -> String {
        let what = What::Head { key: key.public().to_string(), signature: String::new() };
        let mut line = Self { seq, at, prev, what }.line();
        line.truncate(line.len() - SIGNATURE.len() - END.len());
        let signature = key.sign(&[CONTEXT, line.as_bytes()].concat());
        line + SIGNATURE + &HEXLOWER.encode(&signature) + END
    }
}

/// True if the line is a head that the key has signed.
#[cfg(any(test, feature = "cli"))]
pub(super) fn is_signed_by(line: &str, key: &PublicKey) -> bool {
    let Some((signed, rest)) = line.rsplit_once(SIGNATURE) else { return false };
    let signature = rest.strip_suffix(END).and_then(|hex| HEXLOWER.decode(hex.as_bytes()).ok());
    let Some(Ok(signature)) = signature.map(<[u8; 64]>::try_from) else { return false };
    key.verify(&[CONTEXT, signed.as_bytes()].concat(), &signature)
}
