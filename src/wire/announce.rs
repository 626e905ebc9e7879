//! Announcements: the addresses of a peer, signed by that peer, as records of the DHT.
//!
//! Layout: `version: u8 | key: 32 | sequence: u64 | expires_at_unix_s: u64 | count: u8 | count x (len: u16 | address) |
//! signature: 64`, integers big endian. The signature covers the domain and everything before it. One announcement has
//! exactly one encoding.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::identity::{KeyPair, PublicKey, SIGNATURE_LEN};

/// First byte of an announcement; another version is refused.
const VERSION: u8 = 1;
/// Prefix of the signed bytes, so that no other signature of the key is valid here.
const DOMAIN: &[u8] = b"narthex announce v1";
/// Before the public key in the key of a DHT record.
const RECORD_PREFIX: &[u8] = b"/narthex/addr/";

/// The addresses of a peer, and how long they are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The announcing peer.
    pub key: PublicKey,
    /// Multiaddresses in their binary form, opaque here.
    pub addresses: Vec<Vec<u8>>,
    /// When the announcement was made, in microseconds since the epoch, by its owner's clock. The higher one of two is valid.
    pub sequence: u64,
    /// When the announcement expires, in seconds since the epoch, by its owner's clock.
    pub expires_at_unix_s: u64,
}

impl Announcement {
    /// Most addresses.
    pub const MAX_ADDRESSES: usize = 16;
    /// Most bytes of an address. The least is 1.
    pub const MAX_ADDRESS_LEN: usize = 256;
    /// Most bytes of a signed announcement.
    pub const MAX_LEN: usize = 4096;
    /// Furthest expiry ahead of now.
    pub const MAX_LIFE: Duration = Duration::from_secs(48 * 60 * 60);
    /// For so long after its expiry an announcement is still valid: its owner's clock may be slow. The bound keeps old
    /// announcements from being shown for ever.
    pub const MAX_LATE: Duration = Duration::from_secs(24 * 60 * 60);

    /// Makes and signs an announcement.
    ///
    /// # Errors
    /// [`AnnounceError`] for more addresses, or longer ones, than an announcement may have. [`Self::MAX_LEN`] is a
    /// little less than the most and longest addresses together.
    pub fn sign(
        key: &KeyPair,
        addresses: &[Vec<u8>],
        sequence: u64,
        expires_at_unix_s: u64,
    ) -> Result<Vec<u8>, AnnounceError> {
        if addresses.len() > Self::MAX_ADDRESSES {
            return Err(AnnounceError::TooManyAddresses { count: addresses.len() });
        }
        let count = u8::try_from(addresses.len()).expect("checked above");
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(key.public().as_bytes());
        bytes.extend_from_slice(&sequence.to_be_bytes());
        bytes.extend_from_slice(&expires_at_unix_s.to_be_bytes());
        bytes.push(count);
        for address in addresses {
            check_address(address)?;
            let len = u16::try_from(address.len()).expect("checked above");
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(address);
        }
        let signature = key.sign(&signed(&bytes));
        bytes.extend_from_slice(&signature);
        check_len(&bytes)?;
        Ok(bytes)
    }

    /// Reads an announcement of `key` and checks all of it.
    ///
    /// # Errors
    /// [`AnnounceError`] unless the announcement is complete, signed by this peer, and its expiry is at most
    /// [`Self::MAX_LATE`] before and [`Self::MAX_LIFE`] after `now`.
    pub fn verify(bytes: &[u8], key: &PublicKey, now: SystemTime) -> Result<Self, AnnounceError> {
        check_len(bytes)?;
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&got) => return Err(AnnounceError::Version { got }),
            None => return Err(AnnounceError::Malformed),
        }
        let (body, signature) = bytes.split_last_chunk::<SIGNATURE_LEN>().ok_or(AnnounceError::Malformed)?;
        let announcement = parse(body, key)?;
        announcement.check_expiry(now)?;
        if !key.verify(&signed(body), signature) {
            return Err(AnnounceError::Signature { key: *key });
        }
        Ok(announcement)
    }

    /// True if this one replaces `older`: same peer, higher sequence.
    pub fn supersedes(&self, older: &Self) -> bool {
        self.key == older.key && self.sequence > older.sequence
    }

    /// How long the announcement is valid, by its owner's clock alone: from when the announcement was made until its expiry.
    /// None if its sequence is past the expiry: an owner whose clock was set back exceeds its last sequence.
    pub fn life(&self) -> Option<Duration> {
        let made = Duration::from_micros(self.sequence);
        Duration::from_secs(self.expires_at_unix_s).checked_sub(made).filter(|life| !life.is_zero())
    }

    fn check_expiry(&self, now: SystemTime) -> Result<(), AnnounceError> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let expires_at_unix_s = self.expires_at_unix_s;
        if expires_at_unix_s.saturating_add(Self::MAX_LATE.as_secs()) <= now {
            return Err(AnnounceError::Expired { expires_at_unix_s });
        }
        if expires_at_unix_s > now.saturating_add(Self::MAX_LIFE.as_secs()) {
            return Err(AnnounceError::TooFarAhead { expires_at_unix_s });
        }
        Ok(())
    }
}

/// The key of a peer's announcement in the DHT: a fixed prefix and the peer's public key.
pub fn record_key(key: &PublicKey) -> Vec<u8> {
    [RECORD_PREFIX, key.as_bytes()].concat()
}

/// The peer of an announcement's key in the DHT; `None` for keys of other records.
pub fn parse_record_key(record_key: &[u8]) -> Option<PublicKey> {
    let bytes = record_key.strip_prefix(RECORD_PREFIX)?.try_into().ok()?;
    PublicKey::from_bytes(bytes).ok()
}

/// Why an announcement is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// More than [`Announcement::MAX_LEN`].
    #[error("announcement of {len} bytes: limit is {}", Announcement::MAX_LEN)]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// From another version of narthex.
    #[error("announcement of version {got}: this side speaks version {VERSION}")]
    Version {
        /// The announcement's version.
        got: u8,
    },
    /// Cut short, or followed by something else.
    #[error("announcement is malformed")]
    Malformed,
    /// More than [`Announcement::MAX_ADDRESSES`].
    #[error("announcement of {count} addresses: limit is {}", Announcement::MAX_ADDRESSES)]
    TooManyAddresses {
        /// The number of addresses.
        count: usize,
    },
    /// An empty address, or one of more than [`Announcement::MAX_ADDRESS_LEN`].
    #[error("announcement with an address of {len} bytes: limit is 1 to {}", Announcement::MAX_ADDRESS_LEN)]
    AddressLength {
        /// Its length.
        len: usize,
    },
    /// An announcement of another peer.
    #[error("announcement is not of peer {wanted}")]
    OtherKey {
        /// The expected peer.
        wanted: PublicKey,
    },
    /// The announcement has expired more than [`Announcement::MAX_LATE`] ago.
    #[error("announcement has expired at {expires_at_unix_s} s since the epoch, more than 24 h ago")]
    Expired {
        /// The time of expiry.
        expires_at_unix_s: u64,
    },
    /// The announcement is valid for longer than [`Announcement::MAX_LIFE`].
    #[error("announcement expires at {expires_at_unix_s} s since the epoch, more than 48 h ahead")]
    TooFarAhead {
        /// The time of expiry.
        expires_at_unix_s: u64,
    },
    /// The signature is not the peer's.
    #[error("announcement is not signed by peer {key}")]
    Signature {
        /// The peer.
        key: PublicKey,
    },
}

/// The bytes that the signature covers.
fn signed(body: &[u8]) -> Vec<u8> {
    [DOMAIN, body].concat()
}

fn check_len(bytes: &[u8]) -> Result<(), AnnounceError> {
    if bytes.len() > Announcement::MAX_LEN {
        return Err(AnnounceError::TooLong { len: bytes.len() });
    }
    Ok(())
}

fn check_address(address: &[u8]) -> Result<(), AnnounceError> {
    match address.len() {
        1..=Announcement::MAX_ADDRESS_LEN => Ok(()),
        len => Err(AnnounceError::AddressLength { len }),
    }
}

/// Reads everything but the signature; the key must be `wanted`.
fn parse(body: &[u8], wanted: &PublicKey) -> Result<Announcement, AnnounceError> {
    let mut rest = body;
    let [_version] = take(&mut rest)?;
    if take::<32>(&mut rest)? != wanted.as_bytes() {
        return Err(AnnounceError::OtherKey { wanted: *wanted });
    }
    let sequence = u64::from_be_bytes(*take(&mut rest)?);
    let expires_at_unix_s = u64::from_be_bytes(*take(&mut rest)?);
    let count = usize::from(u8::from_be_bytes(*take(&mut rest)?));
    if count > Announcement::MAX_ADDRESSES {
        return Err(AnnounceError::TooManyAddresses { count });
    }
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..count {
        let len = usize::from(u16::from_be_bytes(*take(&mut rest)?));
        let (address, after) = rest.split_at_checked(len).ok_or(AnnounceError::Malformed)?;
        check_address(address)?;
        addresses.push(address.to_vec());
        rest = after;
    }
    if !rest.is_empty() {
        return Err(AnnounceError::Malformed);
    }
    Ok(Announcement { key: *wanted, addresses, sequence, expires_at_unix_s })
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], AnnounceError> {
    let (taken, after) = rest.split_first_chunk().ok_or(AnnounceError::Malformed)?;
    *rest = after;
    Ok(taken)
}

#[cfg(test)]
mod tests;
