//! Networks from which a peer proved a secret lately, remembered across restarts.
//!
//! A hint, not a record: their half-open connections have places of their own. Each line of the file has the Unix time and
//! the network (an IPv4 address, or the first of an IPv6 /56).

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::ip_network;

/// Beyond this number the network that was seen longest ago is forgotten.
const MAX_NETWORKS: usize = 4096;
/// Clients renew every few minutes; one that was away for a night is still known.
const LATELY: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest line: a time and an IPv6 address.
const MAX_LINE: u64 = 64;

/// Who has proved a secret, by network.
#[derive(Default)]
pub(crate) struct ProvedNetworks {
    #[cfg(feature = "scraper")]
    file: Option<PathBuf>,
    seen: Mutex<HashMap<IpAddr, SystemTime>>,
    #[cfg(feature = "scraper")]
    changed: std::sync::atomic::AtomicBool,
}

impl ProvedNetworks {
    /// Reads the file; what is unreadable in it is passed over.
    pub(crate) fn open(file: Option<PathBuf>) -> Self {
        let text = file.as_deref().and_then(|file| read(file).ok()).unwrap_or_default();
        let lines = String::from_utf8_lossy(&text);
        let seen = lines.lines().take(MAX_NETWORKS).filter_map(|line| {
            let (unix_s, network) = line.split_once(' ')?;
            let at = UNIX_EPOCH.checked_add(Duration::from_secs(unix_s.parse().ok()?))?;
            // A time to come would never be forgotten.
            (at <= SystemTime::now()).then_some((ip_network::of_line(network.parse().ok()?), at))
        });
        let seen = Mutex::new(seen.collect());
        Self {
            #[cfg(feature = "scraper")]
            file,
            seen,
            #[cfg(feature = "scraper")]
            changed: std::sync::atomic::AtomicBool::new(false),
        }
    }

    pub(crate) fn contains(&self, network: &IpAddr) -> bool {
        let seen = self.seen().get(network).copied();
        seen.is_some_and(|at| at.elapsed().is_ok_and(|age| age < LATELY))
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<IpAddr, SystemTime>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a scraper writes.
#[cfg(feature = "scraper")]
mod noting {
    use std::net::IpAddr;
    use std::{
        fmt::Write,
        io,
        sync::atomic::Ordering::Relaxed,
        time::{SystemTime, UNIX_EPOCH},
    };

    use super::{LATELY, MAX_NETWORKS, ProvedNetworks};
    use crate::atomic_file;

    impl ProvedNetworks {
        pub(crate) fn note(&self, network: IpAddr) {
            let mut seen = self.seen();
            if seen.len() >= MAX_NETWORKS && !seen.contains_key(&network) {
                let oldest = seen.iter().min_by_key(|(_, at)| **at).map(|(network, _)| *network);
                oldest.and_then(|oldest| seen.remove(&oldest));
            }
            seen.insert(network, SystemTime::now());
            self.changed.store(true, Relaxed);
        }

        /// Writes the file if anything has changed. Blocks.
        pub(crate) fn save(&self) -> io::Result<()> {
            let Some(file) = &self.file else { return Ok(()) };
            if !self.changed.swap(false, Relaxed) {
                return Ok(());
            }
            let mut text = String::new();
            for (network, at) in self.seen().iter().filter(|(_, at)| at.elapsed().is_ok_and(|age| age < LATELY)) {
                let unix_s = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let _ = writeln!(text, "{unix_s} {network}"); // a String takes all
            }
            atomic_file::replace(file, text.as_bytes(), atomic_file::PRIVATE)
        }
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(file)?.take(MAX_NETWORKS as u64 * MAX_LINE).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(all(test, feature = "scraper"))]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_network_is_remembered_across_a_restart_for_a_day() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("proved-networks");
        let network = IpAddr::from([203, 0, 113, 7]);
        let before = ProvedNetworks::open(Some(file.clone()));
        before.note(network);
        before.save().expect("saved");
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        assert!(ProvedNetworks::open(Some(file.clone())).contains(&network));
        let long_ago = SystemTime::now() - LATELY;
        let unix_s = long_ago.duration_since(UNIX_EPOCH).expect("since 1970").as_secs();
        fs::write(&file, format!("{unix_s} {network}\n")).expect("written");
        assert!(!ProvedNetworks::open(Some(file)).contains(&network));
    }

    #[test]
    fn a_damaged_file_is_passed_over_line_by_line() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("proved-networks");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("since 1970").as_secs();
        let lines = format!("junk\n{now} nowhere\n{} 192.0.2.1\n{now} 192.0.2.2\n", u64::MAX);
        fs::write(&file, [lines.as_bytes(), b"\xff\xfe 1"].concat()).expect("written");
        let networks = ProvedNetworks::open(Some(file));
        assert!(!networks.contains(&[192, 0, 2, 1].into()) && networks.contains(&[192, 0, 2, 2].into()));
    }

    #[test]
    fn the_network_that_was_seen_longest_ago_is_forgotten_first() {
        let networks = ProvedNetworks::default();
        let network = |number: usize| IpAddr::from(u32::try_from(number).expect("small").to_be_bytes());
        (0..MAX_NETWORKS).for_each(|number| networks.note(network(number)));
        networks.note(network(0));
        networks.note(network(MAX_NETWORKS));
        assert!(networks.contains(&network(0)) && !networks.contains(&network(1)));
        assert_eq!(networks.seen().len(), MAX_NETWORKS);
    }
}
