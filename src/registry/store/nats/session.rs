//! Watches a bucket: lists it, then follows it; after a lost connection, a lost consumer or a gap, lists it again.
//!
//! A bucket that is another one, or an older state of the one it was, is reported as such: names that it has not were not
//! released, and the table writes them again.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    error::Error,
    sync::Arc,
    time::Duration,
};

use async_nats::jetstream::kv::{self, Operation};
use futures::StreamExt;
use rand::Rng;
use tokio::{
    sync::{mpsc, watch},
    time::{self, MissedTickBehavior},
};

use super::{
    bucket::{Bucket, created, said},
    key,
    known::{Known, Place},
    members::Members,
    value::{self, Written},
};
use crate::{
    registry::{Foreign, Name, SharedEvent},
    telemetry::escaped,
};

/// Longest wait for the next entry of a list.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the bucket is asked how far it is: two answers beyond what was watched are a gap.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// Most changes of one event.
const CHUNK: usize = 512;
/// Pauses before the bucket is listed again: lists of a whole fleet would be a load of their own.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub(super) struct Session {
    pub(super) bucket: Bucket,
    /// Counts lost connections.
    pub(super) lost: watch::Receiver<u64>,
    pub(super) known: Arc<Known>,
    pub(super) members: Members,
    pub(super) events: mpsc::Sender<SharedEvent>,
}

/// Why a watch has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    #[error("the connection was lost")]
    Disconnected,
    #[error("{0}")]
    Nats(String),
    #[error("the bucket's entries do not come")]
    Silent,
    #[error("the bucket was made anew")]
    Replaced,
    #[error("changes were missed")]
    Gap,
    #[error("entries were purged")]
    Purged,
    #[error("the bucket's entries end after {0:?}: make it without a max age")]
    MaxAge(Duration),
    #[error("the table has ended")]
    Ended,
}

impl Session {
    /// Watches until it is dropped.
    pub(super) async fn run(self) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let began = time::Instant::now();
            let Err(error) = self.watch().await;
            tracing::debug!(%error, bucket = self.bucket.name(), "the registry's bucket is watched no more");
            self.known.set_down(Some(error.to_string()));
            if matches!(error, WatchError::Ended) {
                return;
            }
            if began.elapsed() > LONGEST_PAUSE {
                pause = SHORTEST_PAUSE;
            }
            let jitter = rand::rng().random_range(0.5..1.0);
            time::sleep(pause.mul_f64(jitter)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn watch(&self) -> Result<Infallible, WatchError> {
        let mut lost = self.lost.clone();
        lost.mark_unchanged();
        tokio::select! {
            _ = lost.changed() => Err(WatchError::Disconnected),
            ended = self.follow() => ended,
        }
    }

    async fn follow(&self) -> Result<Infallible, WatchError> {
        let bucket = self.bucket.open().await.map_err(WatchError::Nats)?;
        let info = bucket.stream.get_info().await.map_err(failed)?;
        if !info.config.max_age.is_zero() {
            return Err(WatchError::MaxAge(info.config.max_age));
        }
        let mut watch = bucket.watch_with_history(">").await.map_err(failed)?;
        let place = Place { stream: created(&info), at: info.state.last_sequence };
        let mut listed = Vec::new();
        let mut is_listed = info.state.messages == 0;
        while !is_listed {
            let entry = time::timeout(LIST_TIMEOUT, watch.next()).await.map_err(|_| WatchError::Silent)?;
            let entry = entry.ok_or(WatchError::Silent)?.map_err(failed)?;
            // They come in their order. On a busy bucket there is always a next one.
            is_listed = entry.delta == 0 || entry.revision >= place.at;
            listed.push(entry);
        }
        let mut at = self.report_list(place, listed).await?;
        self.known.set_down(None);

        let mut changes = watch.ready_chunks(CHUNK);
        let mut check = time::interval_at(time::Instant::now() + CHECK_EVERY, CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut expected, mut messages) = (at, info.state.messages);
        loop {
            tokio::select! {
                entries = changes.next() => {
                    let entries = entries.ok_or(WatchError::Silent)?;
                    let entries = entries.into_iter().collect::<Result<Vec<_>, _>>().map_err(failed)?;
                    at = entries.iter().map(|entry| entry.revision).max().unwrap_or(at);
                    self.report_changes(entries, at).await?;
                }
                _ = check.tick() => {
                    let info = bucket.stream.get_info().await.map_err(failed)?;
                    if created(&info) != place.stream || info.state.last_sequence < at {
                        return Err(WatchError::Replaced);
                    }
                    if at < expected {
                        return Err(WatchError::Gap);
                    }
                    expected = info.state.last_sequence;
                    // Each key has one: their number only grows.
                    if info.state.messages < messages {
                        return Err(WatchError::Purged);
                    }
                    messages = info.state.messages;
                }
            }
        }
    }

    /// Reports what differs from what is known, and returns how far the list is.
    async fn report_list(&self, place: Place, listed: Vec<kv::Entry>) -> Result<u64, WatchError> {
        let at = listed.iter().map(|entry| entry.revision).max().unwrap_or(0).max(place.at);
        let event = {
            let mut state = self.known.state();
            let all: Vec<(u64, Foreign)> = listed.iter().filter_map(|entry| self.read(&state.bases, entry)).collect();
            let known_at = state.place.map_or(0, |known| known.at);
            let is_same_stream = state.place.is_some_and(|known| known.stream == place.stream);
            let is_same = is_same_stream && known_at <= at;
            state.place = Some(Place { at, ..place });
            let copied = std::mem::take(&mut state.copied);
            if is_same {
                let found: HashSet<&Name> = all.iter().map(|(_, foreign)| &foreign.name).collect();
                // Releases leave a mark.
                let known = state.bases.iter().filter(|(_, base)| **base <= place.at).map(|(name, _)| name);
                let lost = known.chain(&copied).filter(|name| !found.contains(name)).cloned().collect();
                // What the copy has is what the bucket had then.
                let is_copied = |foreign: &&Foreign| foreign.base <= known_at && copied.contains(&foreign.name);
                for Foreign { name, base, .. } in all.iter().map(|(_, foreign)| foreign).filter(is_copied) {
                    state.bases.insert(name.clone(), *base);
                }
                let news = all.into_iter().filter(|(writer, foreign)| self.is_news(&state.bases, *writer, foreign));
                let changes = news.map(|(_, foreign)| foreign).collect();
                SharedEvent { changes, lost, at, reset: None }
            } else {
                state.is_reset = true;
                let changes = all.into_iter().map(|(_, foreign)| foreign).collect();
                let heard_to = if is_same_stream { known_at } else { 0 };
                SharedEvent { changes, lost: Vec::new(), at, reset: Some(heard_to) }
            }
        };
        self.events.send(event).await.map_err(|_| WatchError::Ended)?;
        Ok(at)
    }

    async fn report_changes(&self, entries: Vec<kv::Entry>, at: u64) -> Result<(), WatchError> {
        let changes = {
            let mut state = self.known.state();
            if let Some(place) = &mut state.place {
                place.at = place.at.max(at);
            }
            let changes = entries.iter().filter_map(|entry| self.read(&state.bases, entry));
            let news = changes.filter(|(writer, foreign)| self.is_news(&state.bases, *writer, foreign));
            news.map(|(_, foreign)| foreign).collect()
        };
        self.events
            .send(SharedEvent { changes, lost: Vec::new(), at, reset: None })
            .await
            .map_err(|_| WatchError::Ended)
    }

    fn is_news(&self, bases: &HashMap<Name, u64>, writer: u64, foreign: &Foreign) -> bool {
        writer != self.known.writer && bases.get(&foreign.name).is_none_or(|base| *base < foreign.base)
    }

    /// What an entry of the bucket says, and who says so; none if it is no entry of the table. An entry that cannot be read frees
    /// its name: its holder registers it again, on top of that revision.
    fn read(&self, bases: &HashMap<Name, u64>, entry: &kv::Entry) -> Option<(u64, Foreign)> {
        let is_removal = entry.operation != Operation::Put;
        if self.members.take(entry) {
            return None;
        }
        let (base, at) = (entry.revision, entry.revision);
        match value::decode(&entry.key, &entry.value, is_removal) {
            Ok(Written { writer, name, entry }) => Some((writer, Foreign { name, entry, base, at })),
            Err(error) => {
                // Others remove keys without a word.
                if !is_removal {
                    let key = escaped(&entry.key);
                    tracing::warn!(%key, %error, "an entry of the registry's bucket cannot be read, and is left out");
                }
                let name = key::alias(&entry.key).and_then(|alias| Some(Name::Alias(alias.parse().ok()?)));
                let name = name.or_else(|| bases.keys().find(|name| key::of(name) == entry.key).cloned());
                Some((0, Foreign { name: name?, entry: None, base, at }))
            }
        }
    }
}

fn failed(error: impl Error + 'static) -> WatchError {
    WatchError::Nats(said(error))
}
