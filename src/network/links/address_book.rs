//! The last good addresses of peers, remembered across restarts, and those that others named, which are not.
//!
//! A hint, not a record: losing the file costs one look-up. Each line has the key of a peer and its address.

use std::{
    collections::HashMap,
    fs, io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use libp2p::Multiaddr;

use crate::{
    atomic_file,
    identity::{DialAddress, PublicKey},
};

/// A client has a few scrapers and nodes; the bound is for damaged files.
const MAX_PEERS: usize = 1024;

pub(crate) struct AddressBook {
    file: Option<PathBuf>,
    known: Mutex<HashMap<PublicKey, Multiaddr>>,
    hints: Mutex<HashMap<PublicKey, Vec<DialAddress>>>,
}

impl AddressBook {
    /// Reads the file, and never writes it.
    pub(crate) fn read_only(file: Option<PathBuf>) -> Self {
        Self { file: None, ..Self::open(file) }
    }

    /// Reads the file; what is unreadable in it is passed over.
    pub(crate) fn open(file: Option<PathBuf>) -> Self {
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let known = text.lines().take(MAX_PEERS).filter_map(|line| {
            let (key, address) = line.split_once(' ')?;
            Some((key.parse().ok()?, address.parse().ok()?))
        });
        Self { known: Mutex::new(known.collect()), hints: Mutex::default(), file }
    }

    pub(crate) fn address(&self, peer: &PublicKey) -> Option<Multiaddr> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(peer).cloned()
    }

    /// Where others say that the peer can be dialled, empty once they say nothing any more.
    pub(crate) fn hint(&self, peer: PublicKey, addresses: Vec<DialAddress>) {
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.is_empty() {
            hints.remove(&peer);
        } else {
            hints.insert(peer, addresses);
        }
    }

    pub(crate) fn hints(&self, peer: &PublicKey) -> Vec<DialAddress> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner).get(peer).cloned().unwrap_or_default()
    }

    pub(crate) fn remember(&self, peer: PublicKey, address: Multiaddr) {
        let text = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.get(&peer) == Some(&address) || (known.len() >= MAX_PEERS && !known.contains_key(&peer)) {
                return;
            }
            known.insert(peer, address);
            known.iter().map(|(peer, address)| format!("{peer} {address}\n")).collect::<String>()
        };
        if let Err(error) = self.save(&text) {
            tracing::warn!(%error, file = ?self.file, "could not remember an address");
        }
    }

    fn save(&self, text: &str) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        atomic_file::replace(file, text.as_bytes(), atomic_file::SHARED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyPair;

    #[test]
    fn an_address_is_remembered_across_a_restart() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = Some(dir.path().join("addresses"));
        let peer = KeyPair::generate().public();
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/9".parse().expect("multiaddr");
        AddressBook::open(file.clone()).remember(peer, address.clone());
        assert_eq!(AddressBook::open(file).address(&peer), Some(address));
    }

    #[test]
    fn a_book_that_is_only_read_leaves_the_file_as_it_is() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("addresses");
        let peer = KeyPair::generate().public();
        let text = format!("{peer} /ip4/127.0.0.1/tcp/9\n");
        fs::write(&file, &text).expect("writes");
        let book = AddressBook::read_only(Some(file.clone()));
        assert!(book.address(&peer).is_some());
        book.remember(peer, "/ip4/127.0.0.1/tcp/10".parse().expect("multiaddr"));
        assert_eq!(fs::read_to_string(file).expect("there"), text);
    }

    #[test]
    fn a_damaged_file_is_passed_over_line_by_line() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("addresses");
        let peer = KeyPair::generate().public();
        fs::write(&file, format!("junk\n{peer} nonsense\n{peer} /ip4/127.0.0.1/tcp/9\n")).expect("writes");
        assert!(AddressBook::open(Some(file)).address(&peer).is_some());
    }
}
