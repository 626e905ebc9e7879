//! The group in the data directory, for a start while the given scraper is gone.
//!
//! A line `given KEY` for each scraper that the client was given when it learned of the group, and a line
//! `member KEY ADDRESS..` for each member. The file decides whom a client trusts: one that is damaged counts for nothing.

use std::{collections::BTreeSet, io, path::Path, str};

use super::Members;
use crate::{
    atomic_file,
    identity::{DialAddress, PublicKey},
    small_file,
    wire::{MAX_ADDRESSES, MAX_MEMBERS},
};

/// Most members in the file: the words of a given scraper and of two learned ones.
const MAX: usize = 3 * MAX_MEMBERS;
/// Longest file: an address has at most 400 bytes.
const MAX_LEN: u64 = (MAX * MAX_ADDRESSES * 400) as u64;

/// The members, if the client was given one of these scrapers when it learned of them.
///
/// # Errors
/// The operating system's, except if there is no file; `InvalidData` for any other content than [`save`] writes.
pub(in crate::client) fn load(path: &Path, given: &BTreeSet<PublicKey>) -> io::Result<Members> {
    let bytes = match small_file::read(path, MAX_LEN) {
        Ok((bytes, _)) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Members::new()),
        Err(error) => return Err(error),
    };
    let text = str::from_utf8(&bytes).ok();
    let (through, members) =
        text.and_then(parse).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "damaged"))?;
    Ok(if through.is_disjoint(given) { Members::new() } else { members })
}

/// Replaces the file.
///
/// # Errors
/// The operating system's.
pub(in crate::client) fn save(path: &Path, given: &BTreeSet<PublicKey>, members: &Members) -> io::Result<()> {
    let mut text: String = given.iter().map(|key| format!("given {key}\n")).collect();
    for (key, addresses) in members.iter().take(MAX) {
        text += &format!("member {key}");
        for address in addresses.iter().take(MAX_ADDRESSES) {
            text += &format!(" {address}");
        }
        text += "\n";
    }
    atomic_file::replace(path, text.as_bytes(), atomic_file::PRIVATE)
}

fn parse(text: &str) -> Option<(BTreeSet<PublicKey>, Members)> {
    let (mut through, mut members) = (BTreeSet::new(), Members::new());
    for line in text.lines() {
        let mut words = line.split(' ');
        let (kind, key) = (words.next()?, words.next()?.parse().ok()?);
        let addresses = words.map(|word| word.parse().ok()).collect::<Option<Vec<DialAddress>>>()?;
        match kind {
            "given" if addresses.is_empty() => _ = through.insert(key),
            "member" if members.len() < MAX && addresses.len() <= MAX_ADDRESSES => _ = members.insert(key, addresses),
            _ => return None,
        }
    }
    Some((through, members))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::identity::KeyPair;

    fn key() -> PublicKey {
        KeyPair::generate().public()
    }

    #[test]
    fn a_group_is_remembered_for_the_scrapers_through_which_it_was_learned() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (path, given) = (dir.path().join("group"), BTreeSet::from([key(), key()]));
        assert_eq!(load(&path, &given).expect("there is none"), Members::new());
        let address = |text: &str| text.parse().expect("an address");
        let members = Members::from([(key(), vec![address("h:1"), address("wss://h/x")]), (key(), vec![])]);
        save(&path, &given, &members).expect("writes");
        assert_eq!(load(&path, &given).expect("reads"), members);
        assert_eq!(load(&path, &given.iter().take(1).copied().collect()).expect("reads"), members);
        assert_eq!(load(&path, &BTreeSet::from([key()])).expect("reads"), Members::new(), "another group");
    }

    #[test]
    fn a_damaged_file_counts_for_nothing() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (path, given) = (dir.path().join("group"), BTreeSet::from([key()]));
        let good = Members::from([(key(), vec!["h:1".parse().expect("an address")])]);
        save(&path, &given, &good).expect("writes");
        let text = fs::read_to_string(&path).expect("reads");
        let long = format!("{text}member {}{}\n", key(), " h:1".repeat(9));
        let many: String = (0..49).map(|_| format!("member {}\n", key())).collect();
        for bad in [
            &text[..text.len() - 2],
            &text.replace("member", "membre"),
            &text.replace("h:1", "h:0"),
            &long,
            &many,
            "\0",
            "\n",
        ] {
            fs::write(&path, bad).expect("writes");
            assert!(load(&path, &given).is_err(), "{bad:?}");
        }
        fs::write(&path, vec![b' '; 1 << 20]).expect("writes");
        assert!(load(&path, &given).is_err(), "too long");
    }
}
