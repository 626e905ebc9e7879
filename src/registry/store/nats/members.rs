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
use crate::{identity::PublicKey, registry::Member};

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
    noted: Arc<Mutex<BTreeMap<PublicKey, Noted>>>,
    current: watch::Sender<Arc<[Member]>>,
}

/// A member as its value in the bucket, JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Noted {
    addresses: Vec<String>,
    noted_at_unix_s: u64,
}

impl Members {
    pub(super) fn new() -> Self {
        Self { noted: Arc::default(), current: watch::Sender::new(Arc::from([])) }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<[Member]>> {
        self.current.subscribe()
    }

    /// Takes an entry of the bucket; false if it is none of a member.
    pub(super) fn take(&self, entry: &kv::Entry) -> bool {
        let Some(member) = entry.key.strip_prefix(key::MEMBER) else { return false };
        let Ok(member) = member.parse::<PublicKey>() else { return true };
        let noted = (entry.operation == Operation::Put).then(|| serde_json::from_slice::<Noted>(&entry.value));
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

    fn noted(&self) -> MutexGuard<'_, BTreeMap<PublicKey, Noted>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key and value under which a scraper notes itself.
pub(super) fn note(member: &Member, now: SystemTime) -> (String, Vec<u8>) {
    let noted = Noted {
        addresses: member.addresses.iter().map(ToString::to_string).collect(),
        noted_at_unix_s: now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
    };
    (key_of(&member.key), serde_json::to_vec(&noted).expect("text is JSON"))
}

pub(super) fn key_of(member: &PublicKey) -> String {
    format!("{}{member}", key::MEMBER)
}
