//! The scrapers over one bucket. Each notes itself under `member.<its key>` every minute, so that the others find it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_nats::jetstream::kv::{self, Operation};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::key;
use crate::{identity::PublicKey, registry::Member, telemetry::escaped};

/// How often a scraper notes itself.
pub(super) const NOTED_EVERY: Duration = Duration::from_secs(60);
/// How soon it tries again, if that failed.
pub(super) const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// A scraper that has not noted itself for so long is no member any more.
const GONE_AFTER: Duration = Duration::from_secs(600);
/// Bounds of what is read.
const MAX_MEMBERS: usize = 256;
const MAX_ADDRESSES: usize = 8;

/// The members that are known, this scraper among them. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Members {
    /// The writer's number of this process.
    run: u64,
    own: Arc<Mutex<Own>>,
    noted: Arc<Mutex<BTreeMap<PublicKey, Noted>>>,
    current: watch::Sender<Arc<[Member]>>,
}

/// A member as its value in the bucket, JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Noted {
    addresses: Vec<String>,
    noted_at_unix_s: u64,
    /// Of the process that noted it; 0 of an earlier version.
    #[serde(default)]
    run: u64,
}

/// This scraper's own note.
#[derive(Debug, Default)]
struct Own {
    key: Option<PublicKey>,
    /// The revision of its first one.
    since: u64,
    is_contested: bool,
}

impl Members {
    pub(super) fn new(run: u64) -> Self {
        Self { run, own: Arc::default(), noted: Arc::default(), current: watch::Sender::new(Arc::from([])) }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<[Member]>> {
        self.current.subscribe()
    }

    /// Takes an entry of the bucket; false if it is none of a member.
    pub(super) fn take(&self, entry: &kv::Entry) -> bool {
        let Some(member) = entry.key.strip_prefix(key::MEMBER) else { return false };
        let Ok(member) = member.parse::<PublicKey>() else { return true };
        let noted = (entry.operation == Operation::Put).then(|| serde_json::from_slice::<Noted>(&entry.value));
        if let Some(Ok(noted)) = &noted {
            self.compare(&member, noted, entry.revision);
        }
        {
            let mut all = self.noted();
            match noted {
                Some(Ok(noted)) if all.len() < MAX_MEMBERS || all.contains_key(&member) => {
                    all.insert(member, noted);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => drop(all.remove(&member)),
            }
        }
        self.publish(SystemTime::now());
        true
    }

    /// This process has noted itself, in this revision.
    pub(super) fn noted_own(&self, key: PublicKey, revision: u64) {
        let mut own = self.own();
        if own.key.replace(key).is_none() {
            own.since = revision;
        }
    }

    /// Warns of another process that says it is this scraper: each would take itself for the only one with the key.
    fn compare(&self, member: &PublicKey, noted: &Noted, revision: u64) {
        let mut own = self.own();
        let is_other = own.key == Some(*member) && revision > own.since && ![0, self.run].contains(&noted.run);
        if is_other && !std::mem::replace(&mut own.is_contested, true) {
            let addresses = noted.addresses.iter().take(MAX_ADDRESSES).map(|address| escaped(address));
            tracing::error!(
                key = %member, addresses = addresses.collect::<Vec<_>>().join(" "),
                "another scraper of this store has our key, so that neither asks the other: give it a key of its own (narthex keygen)"
            );
        }
    }

    /// Tells who is a member now, if that has changed: time passes, too.
    pub(super) fn publish(&self, now: SystemTime) {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let members: Vec<Member> = {
            let all = self.noted();
            let here = all.iter().filter(|(_, noted)| noted.noted_at_unix_s + GONE_AFTER.as_secs() > now);
            let members = here.map(|(key, noted)| {
                let addresses = noted.addresses.iter().filter_map(|address| address.parse().ok());
                Member { key: *key, addresses: addresses.take(MAX_ADDRESSES).collect() }
            });
            members.collect()
        };
        self.current.send_if_modified(|current| {
            let is_news = **current != *members;
            if is_news {
                *current = members.into();
            }
            is_news
        });
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn noted(&self) -> MutexGuard<'_, BTreeMap<PublicKey, Noted>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key and value under which a scraper notes itself.
pub(super) fn note(member: &Member, run: u64, now: SystemTime) -> (String, Vec<u8>) {
    let noted = Noted {
        addresses: member.addresses.iter().map(ToString::to_string).collect(),
        noted_at_unix_s: now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        run,
    };
    (key_of(&member.key), serde_json::to_vec(&noted).expect("text is JSON"))
}

pub(super) fn key_of(member: &PublicKey) -> String {
    format!("{}{member}", key::MEMBER)
}
