//! Passwords of HTTP users, as bcrypt hashes: slow to try, and so tried seldom.
//!
//! As in the exporter-toolkit, the outcome for a name, a hash and a password is remembered, by a keyed digest: whoever asks again
//! costs nothing. Two hashes at most are computed at once, and an address that guesses has a few guesses a minute, so a stranger
//! buys little of the processor. A name that nobody has is compared with somebody's hash, which takes as long.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use blake2::{Blake2sMac256, digest::Mac};
use tokio::{sync::Semaphore, task, time::Instant};
use zeroize::Zeroizing;

use crate::ip_network;

/// Hashes computed at once.
const AT_ONCE: usize = 2;
/// Requests that may wait for that.
const WAITING: usize = 64;
/// Verified passwords that are remembered; others cannot displace these.
const REMEMBERED: usize = 1024;
/// Wrong passwords that are remembered: a misconfigured Prometheus sends the same one for ever.
const WRONG: usize = 256;
/// New wrong passwords of one address in [`WINDOW`].
const GUESSES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses whose guesses are counted.
const ADDRESSES: usize = 4096;

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    Right,
    Wrong,
    /// Not looked at: too many guesses came from the address, or too many requests wait.
    TooOften,
}

/// What is remembered of checks. Lives on when the passwords change, as it goes by their hashes.
pub(super) struct PasswordCheck {
    /// Of this process alone.
    key: Zeroizing<[u8; 32]>,
    at_once: Arc<Semaphore>,
    waiting: Semaphore,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    right: HashMap<Digest, ()>,
    wrong: HashMap<Digest, ()>,
    guesses: HashMap<IpAddr, (Instant, u32)>,
}

type Digest = [u8; 32];

impl PasswordCheck {
    pub(super) fn new() -> Self {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key).expect("the operating system has random bytes");
        let (at_once, waiting) = (Arc::new(Semaphore::new(AT_ONCE)), Semaphore::new(WAITING));
        Self { key, at_once, waiting, known: Mutex::default() }
    }

    /// Checks a password that came from `ip`.
    pub(super) async fn check(
        &self,
        hashes: &BTreeMap<String, String>,
        name: &str,
        password: &[u8],
        ip: IpAddr,
    ) -> Checked {
        let Some((hash, is_known)) = self.hash_of(hashes, name) else { return Checked::Wrong };
        // A name that is gone may be compared with the very hash that it had.
        let digest = self.digest(&[&[is_known.into()], name.as_bytes(), hash.as_bytes(), password]);
        let source = ip_network::of_line(ip);
        {
            let mut known = self.known();
            if known.right.contains_key(&digest) {
                return Checked::Right;
            }
            if known.wrong.contains_key(&digest) {
                return Checked::Wrong;
            }
            if !known.may_guess(source) {
                return Checked::TooOften;
            }
        }
        let Ok(_waits) = self.waiting.try_acquire() else { return Checked::TooOften };
        let permit = Arc::clone(&self.at_once).acquire_owned().await.expect("never closed");
        let (hash, password) = (hash.to_owned(), Zeroizing::new(password.to_vec()));
        let verified = task::spawn_blocking(move || {
            let _permit = permit;
            bcrypt::verify(&*password, &hash).unwrap_or(false)
        });
        let is_right = verified.await.unwrap_or(false) && is_known;
        self.known().remember(digest, is_right, source);
        if is_right { Checked::Right } else { Checked::Wrong }
    }

    /// The hash of that user. For a name that nobody has it is somebody's, always the same, and false.
    fn hash_of<'a>(&self, hashes: &'a BTreeMap<String, String>, name: &str) -> Option<(&'a str, bool)> {
        if let Some(hash) = hashes.get(name) {
            return Some((hash, true));
        }
        let digest = self.digest(&[name.as_bytes()]);
        let number = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]) as usize;
        let hash = hashes.values().nth(number.checked_rem(hashes.len())?)?;
        Some((hash, false))
    }

    fn digest(&self, parts: &[&[u8]]) -> Digest {
        let mut mac = Blake2sMac256::new_from_slice(&*self.key).expect("a key of 32 bytes");
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Counts a password from `source` that is not remembered. False if there were too many.
    fn may_guess(&mut self, source: IpAddr) -> bool {
        let now = Instant::now();
        if self.guesses.len() >= ADDRESSES {
            self.guesses.retain(|_, (since, _)| now - *since < WINDOW);
        }
        if self.guesses.len() >= ADDRESSES && !self.guesses.contains_key(&source) {
            return true; // so many addresses are held back by how many hashes are computed at once
        }
        let (since, count) = self.guesses.entry(source).or_insert((now, 0));
        if now - *since >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= GUESSES
    }

    fn remember(&mut self, digest: Digest, is_right: bool, source: IpAddr) {
        let (outcomes, most) = if is_right { (&mut self.right, REMEMBERED) } else { (&mut self.wrong, WRONG) };
        // The order of a map is random.
        if outcomes.len() >= most
            && let Some(any) = outcomes.keys().next().copied()
        {
            outcomes.remove(&any);
        }
        outcomes.insert(digest, ());
        // A right password was no guess.
        if is_right && let Some((_, count)) = self.guesses.get_mut(&source) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn hashes() -> BTreeMap<String, String> {
        [("alice", "one"), ("bob", "two")]
            .map(|(name, word)| (name.into(), bcrypt::hash(word, 4).expect("hashed")))
            .into()
    }

    #[tokio::test]
    async fn a_name_has_its_own_password_and_a_changed_hash_counts_at_once() {
        let (check, mut hashes) = (PasswordCheck::new(), hashes());
        for _ in 0..2 {
            for (name, word, expected) in [
                ("alice", "one", Checked::Right),
                ("bob", "two", Checked::Right),
                ("alice", "two", Checked::Wrong),
                ("carol", "one", Checked::Wrong),
                ("carol", "two", Checked::Wrong),
                ("", "", Checked::Wrong),
            ] {
                assert_eq!(check.check(&hashes, name, word.as_bytes(), HERE).await, expected, "{name} {word}");
            }
        }
        hashes.insert("alice".into(), bcrypt::hash("three", 4).expect("hashed"));
        assert_eq!(check.check(&hashes, "alice", b"one", HERE).await, Checked::Wrong);
        assert_eq!(check.check(&hashes, "alice", b"three", HERE).await, Checked::Right);
        let renamed = [("carol".to_owned(), hashes["alice"].clone())].into();
        assert_eq!(check.check(&renamed, "alice", b"three", HERE).await, Checked::Wrong);
        assert_eq!(check.check(&BTreeMap::new(), "alice", b"one", HERE).await, Checked::Wrong);
    }

    #[tokio::test]
    async fn whoever_guesses_is_held_back_and_verified_passwords_and_other_addresses_are_not() {
        let (check, hashes) = (PasswordCheck::new(), hashes());
        assert_eq!(check.check(&hashes, "alice", b"one", HERE).await, Checked::Right);
        let mut outcomes = Vec::new();
        for guess in 0..=GUESSES {
            outcomes.push(check.check(&hashes, "alice", guess.to_string().as_bytes(), HERE).await);
        }
        assert_eq!(outcomes.pop(), Some(Checked::TooOften));
        assert!(outcomes.iter().all(|outcome| *outcome == Checked::Wrong), "{outcomes:?}");
        assert_eq!(check.check(&hashes, "alice", b"0", HERE).await, Checked::Wrong, "the same again costs nothing");
        assert_eq!(check.check(&hashes, "alice", b"one", HERE).await, Checked::Right);
        assert_eq!(check.check(&hashes, "bob", b"two", HERE).await, Checked::TooOften);
        assert_eq!(check.check(&hashes, "bob", b"two", ELSEWHERE).await, Checked::Right);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let mut known = Known::default();
        for number in 0..2 * ADDRESSES as u32 {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&number.to_le_bytes());
            let source = IpAddr::from(number.to_le_bytes());
            assert!(known.may_guess(source));
            known.remember(digest, number % 2 == 0, source);
        }
        assert_eq!((known.right.len(), known.wrong.len(), known.guesses.len()), (REMEMBERED, WRONG, ADDRESSES));
        tokio::time::advance(WINDOW).await;
        assert!(known.may_guess(HERE));
        assert_eq!(known.guesses.len(), 1);
    }
}
