//! A file beside the table's with the names of what was there, but for aliases whose lease was over: what must be there again
//! after damage.
//!
//! ```text
//! v1 <id of the table> <how many> <checksum of what comes before and of the names>
//! <a name a line: an alias, or a colon and the name of a beacon in base64url>
//! ```
//!
//! The file is replaced as a whole, at a checkpoint, if the names have changed since the last one.

use std::{collections::BTreeSet, fs, io, path::Path};

use blake2::{Blake2s256, Digest};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

use crate::{
    atomic_file,
    registry::{BeaconName, Name},
};

/// What the line of a beacon begins with.
const BEACON: char = ':';

/// Reads the file of the table; `None` if it is not there, of another table, or not as it was written.
pub(super) fn read(file: &Path, id: Option<u64>) -> Option<BTreeSet<Name>> {
    let text = Some(file).filter(|file| file.is_file()).and_then(|file| fs::read_to_string(file).ok())?;
    let (head, names) = text.split_once('\n')?;
    let (summed, _) = head.rsplit_once(' ')?;
    let written = u64::from_str_radix(summed.strip_prefix("v1 ")?.split_once(' ')?.0, 16).ok()?;
    let is_whole = header(summed, names) == head && id.is_none_or(|id| id == written);
    is_whole.then(|| names.lines().map(name).collect())?
}

/// Writes the file if its first line is not `last`, and returns that line.
pub(super) fn write<'a>(
    file: &Path,
    id: u64,
    all: impl Iterator<Item = &'a Name>,
    last: Option<&str>,
) -> io::Result<String> {
    let (mut names, mut count) = (String::new(), 0);
    for name in all {
        match name {
            Name::Alias(alias) => names.push_str(alias.as_str()),
            Name::Beacon(name) => {
                names.push(BEACON);
                BASE64URL_NOPAD.encode_append(&name.encode(), &mut names);
            }
        }
        names.push('\n');
        count += 1;
    }
    let head = header(&format!("v1 {id:016x} {count}"), &names);
    if last != Some(&head) || !file.is_file() {
        atomic_file::replace(file, format!("{head}\n{names}").as_bytes(), atomic_file::SHARED)?;
    }
    Ok(head)
}

fn name(line: &str) -> Option<Name> {
    match line.strip_prefix(BEACON) {
        Some(name) => BeaconName::decode(&BASE64URL_NOPAD.decode(name.as_bytes()).ok()?).map(Name::Beacon),
        None => line.parse().ok().map(Name::Alias),
    }
}

fn header(summed: &str, names: &str) -> String {
    let sum = Blake2s256::new().chain_update(summed).chain_update("\n").chain_update(names).finalize();
    format!("{summed} {}", HEXLOWER.encode(&sum[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_were_written_and_written_if_they_changed() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("a.noted");
        let mut names: BTreeSet<Name> = ["a", "b"].map(|name| Name::Alias(name.parse().expect("an alias"))).into();
        names.insert(Name::Beacon(BeaconName::new("k", "x\n").expect("a name")));
        let head = write(&file, 7, names.iter(), None).expect("written");
        let text = fs::read_to_string(&file).expect("there");
        assert_eq!(text, "v1 0000000000000007 3 fc96f8cdd8b13742\na\nb\n:AQBreAo\n");
        assert_eq!((read(&file, None), read(&file, Some(7))), (Some(names.clone()), Some(names.clone())));
        assert_eq!(read(&file, Some(8)), None);
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&file).expect("there"));
        let before = inode();
        assert_eq!(write(&file, 7, names.iter(), Some(&head)).expect("nothing to do"), head);
        assert_eq!(inode(), before);
        fs::remove_file(&file).expect("removed");
        assert_eq!(write(&file, 7, names.iter(), Some(&head)).expect("written"), head);
        let bytes = fs::read(&file).expect("there");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            fs::write(&file, damaged).expect("written");
            assert_eq!(read(&file, None), None, "byte {at}");
            fs::write(&file, &bytes[..at]).expect("written");
            assert_eq!(read(&file, None), None, "{at} bytes");
        }
    }
}
