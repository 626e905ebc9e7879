//! The keys of a bucket, which may hold letters, digits, `-`, `_`, `=`, `/` and `.` only.
//!
//! - `alias.<alias>`, with `=` and two hexadecimal digits for each byte that may not stand there, and for `.`.
//! - `beacon.<Blake2s-256 of kind and key, 128 bits, base32>`: a beacon's key may be longer than a NATS subject.
//! - `member.<public key>`: a scraper.

use blake2::{Blake2s256, Digest};
use data_encoding::BASE32_NOPAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::registry::{BeaconName, Name};

/// What is not written as it is in an alias.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

pub(super) const ALIAS: &str = "alias.";
pub(super) const BEACON: &str = "beacon.";
pub(super) const MEMBER: &str = "member.";

/// The key of a name.
pub(super) fn of(name: &Name) -> String {
    match name {
        Name::Alias(alias) => {
            format!("{ALIAS}{}", utf8_percent_encode(alias.as_str(), ESCAPED).to_string().replace('%', "="))
        }
        Name::Beacon(name) => format!("{BEACON}{}", digest(name)),
    }
}

/// The alias of a key that is one of an alias.
pub(super) fn alias(key: &str) -> Option<String> {
    let escaped = key.strip_prefix(ALIAS)?.replace('=', "%");
    percent_decode_str(&escaped).decode_utf8().ok().map(|alias| alias.into_owned())
}

fn digest(name: &BeaconName) -> String {
    let digest: [u8; 32] = Blake2s256::digest(name.encode()).into();
    BASE32_NOPAD.encode(digest.first_chunk::<16>().expect("32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unchanged_and_name_their_alias() {
        for (alias, key) in [("web-1", "alias.web-1"), ("a.b", "alias.a=2Eb"), ("x_y", "alias.x_y")] {
            let name = Name::Alias(alias.parse().expect("an alias"));
            assert_eq!(of(&name), key);
            assert_eq!(super::alias(key).as_deref(), Some(alias));
        }
        let name = Name::Beacon(BeaconName::new("k", "ü".repeat(10_000)).expect("a name"));
        assert_eq!(of(&name).len(), BEACON.len() + 26);
        assert_eq!(super::alias("alias.=zz=ff"), None);
    }
}
