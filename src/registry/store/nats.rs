//! Leases in a key-value bucket of NATS JetStream, which several scrapers share.
//!
//! - `bucket`: the bucket as NATS has it.
//! - `session`: the task that lists and watches the bucket, and reports the changes of others.
//! - `known`: what is shared between that task and the thread that writes: the base of each name, and whether all is well.
//! - `key`, `value`: the bucket's keys and values. Values carry who wrote them.
//! - `members`: the scrapers over the bucket.
//! - `mirror`: a copy on the disk, for a start without NATS.
//! - `probe`: what a person asks before all that.
//!
//! Each change is a publication that NATS takes only if the last revision of the key is the change's base (the header
//! `Nats-Expected-Last-Subject-Sequence`, ADR-8 of NATS). A write is acknowledged by JetStream once it is stored: by the
//! leader and a majority where the bucket has replicas.

mod bucket;
mod key;
mod known;
mod members;
mod mirror;
#[cfg(feature = "cli")]
mod probe;
mod session;
mod value;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_nats::ConnectOptions;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinSet,
    time,
};

use super::{Change, Loaded, Store, StoreError};
use crate::{
    nats::{Connection, NatsConfig},
    registry::{Entry, Foreign, Member, Name, Note, SharedEvent},
    telemetry::Chain,
};
use bucket::{Bucket, IN_FLIGHT, Last, Published, created};
use known::{Known, Place, State};
use members::Members;
use mirror::Mirror;
use session::Session;
use value::Written;

#[cfg(feature = "cli")]
pub(crate) use probe::{ProbedBucket, probe_bucket};

/// A store that takes longer than five seconds counts as one that hangs.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(4);
/// Changes that must be stored in that time: those of a whole table take longer.
const PART: usize = 1024;
/// How long the start waits for NATS before it begins with the copy on the disk.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// Events that wait for the table: the watch goes no faster.
const EVENTS: usize = 16;

/// The store of a group of scrapers.
pub(crate) struct NatsStore {
    url: String,
    runtime: Handle,
    bucket: Bucket,
    known: Arc<Known>,
    mirror: Mirror,
    /// What a commit that failed half-way has stored: the caller repeats all of it.
    stored: HashMap<Name, Change>,
    /// All changes up to this one were handed to the copy.
    copied: Option<Place>,
    reached_at: SystemTime,
    is_mirror_failing: bool,
    events: Option<mpsc::Receiver<SharedEvent>>,
    members: Members,
    own: watch::Sender<Option<Member>>,
    session: Option<Session>,
    tasks: JoinSet<()>,
}

impl NatsStore {
    /// The store of a bucket, with its copy in the files at `path`. The connection is made in the background.
    ///
    /// # Errors
    /// As for the sled store, or a file of the connection's settings cannot be read.
    pub(crate) async fn open(config: &NatsConfig, path: PathBuf) -> Result<Self, StoreError> {
        let mirror = {
            let opened = tokio::task::spawn_blocking(|| Mirror::open(path)).await;
            opened.unwrap_or_else(|error| Err(StoreError::Panicked { message: error.to_string() }))?
        };
        let connected = config.connect(ConnectOptions::new()).await;
        let refused = |reason: String| StoreError::Unreachable { url: config.url.to_string(), reason };
        let Connection { client, times_lost: lost, .. } =
            connected.map_err(|error| refused(Chain(&error).to_string()))?;
        let bucket = Bucket::of(client, &config.url).map_err(|error| refused(error.to_owned()))?;
        let known = Arc::new(Known::new(rand::random(), State::default()));
        let (members, (sender, events)) = (Members::new(known.writer), mpsc::channel(EVENTS));
        let session = Session {
            bucket: bucket.clone(),
            lost,
            known: Arc::clone(&known),
            members: members.clone(),
            events: sender,
        };
        Ok(Self {
            url: config.url.to_string(),
            runtime: Handle::current(),
            bucket,
            known,
            mirror,
            stored: HashMap::new(),
            copied: None,
            reached_at: SystemTime::UNIX_EPOCH,
            is_mirror_failing: false,
            events: Some(events),
            members,
            own: watch::Sender::new(None),
            session: Some(session),
            tasks: JoinSet::new(),
        })
    }

    /// The scrapers over the bucket, and where this one says that it is one of them.
    pub(crate) fn group(&self) -> (watch::Receiver<Arc<[Member]>>, watch::Sender<Option<Member>>) {
        (self.members.subscribe(), self.own.clone())
    }

    fn unreachable(&self, reason: impl fmt::Display) -> StoreError {
        StoreError::Unreachable { url: self.url.clone(), reason: reason.to_string() }
    }

    fn check_up(&self) -> Result<(), StoreError> {
        self.known.down().map_or(Ok(()), |reason| Err(self.unreachable(reason)))
    }

    /// Publishes all changes, and returns what stands in place of those that were overtaken.
    async fn publish(&self, changes: &[Change]) -> Result<Vec<Foreign>, StoreError> {
        let mut overtaken = self.publish_all(changes.iter().collect()).await?;
        let mut foreign = Vec::new();
        // What is ours or was lost is published once more, on top of what stands there.
        for is_last in [false, true] {
            if overtaken.is_empty() {
                break;
            }
            let found =
                stream::iter(overtaken).map(|change| async move { Ok((change, self.find(change.name()).await?)) });
            let found: Vec<(&Change, (u64, Foreign))> = found.buffer_unordered(IN_FLIGHT).try_collect().await?;
            self.check_place().await?;
            let mut again = Vec::new();
            for (change, (writer, found)) in found {
                // Ours, of which no acknowledgement came. And what is gone without a mark nobody has released.
                if !is_last && (writer == self.known.writer || found.base == 0) {
                    self.known.state().bases.insert(found.name, found.base);
                    again.push(change);
                } else {
                    foreign.push(found);
                }
            }
            overtaken = self.publish_all(again).await?;
        }
        Ok(foreign)
    }

    /// Publishes changes, and returns those that were overtaken.
    async fn publish_all<'a>(&self, changes: Vec<&'a Change>) -> Result<Vec<&'a Change>, StoreError> {
        let published = stream::iter(changes).map(|change| async move {
            Ok(match self.publish_one(change).await? {
                Published::At(_) => None,
                Published::Overtaken => Some(change),
            })
        });
        published.buffer_unordered(IN_FLIGHT).try_filter_map(async |overtaken| Ok(overtaken)).try_collect().await
    }

    async fn publish_one(&self, change: &Change) -> Result<Published, StoreError> {
        let name = change.name();
        let base = self.known.state().bases.get(&name).copied().unwrap_or(0);
        let is_removal = matches!(change, Change::Remove(_) | Change::RemoveBeacon(_));
        if is_removal && base == 0 {
            return Ok(Published::At(0)); // never stored
        }
        let value = value::encode(change, self.known.writer).map_err(|error| self.unreachable(error))?;
        let published = self.bucket.publish(&key::of(&name), value, is_removal, base).await;
        let published = published.map_err(|reason| self.unreachable(reason))?;
        if let Published::At(revision) = published {
            self.known.state().bases.insert(name, revision);
        }
        Ok(published)
    }

    /// What stands under a name now, and who wrote it.
    async fn find(&self, name: Name) -> Result<(u64, Foreign), StoreError> {
        let key = key::of(&name);
        let found = self.bucket.last(&key).await.map_err(|reason| self.unreachable(reason))?;
        let base = self.known.state().bases.get(&name).copied().unwrap_or(0);
        let Some(Last { revision, value, is_removal }) = found else {
            return Ok((0, Foreign { name, entry: None, base: 0, at: base }));
        };
        if revision < base {
            return Err(self.unreachable("the bucket is an older state of itself"));
        }
        let (writer, entry) =
            value::decode(&key, &value, is_removal).map_or((0, None), |Written { writer, entry, .. }| (writer, entry));
        Ok((writer, Foreign { name, entry, base: revision, at: revision }))
    }

    /// An error if the bucket is not the one whose revisions the bases are.
    async fn check_place(&self) -> Result<(), StoreError> {
        // Before the bucket is asked: the watch goes on meanwhile.
        let place = self.known.state().place;
        let info = self.bucket.info().await.map_err(|reason| self.unreachable(reason))?;
        let is_same = |place: Place| place.stream == created(&info) && place.at <= info.state.last_sequence;
        if place.is_some_and(is_same) { Ok(()) } else { Err(self.unreachable("the bucket was made anew")) }
    }
}

impl Store for NatsStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let (mut loaded, copied) = self.mirror.load()?;
        if let Some(session) = self.session.take() {
            let mut state = self.known.state();
            if let Some((place, reached_at)) = copied {
                state.place = Some(place);
                (self.copied, self.reached_at) = (Some(place), reached_at);
                let Loaded { contents, .. } = &loaded;
                let aliases = contents.leases.iter().map(|lease| Name::Alias(lease.alias.clone()));
                let beacons = contents.beacons.iter().map(|beacon| Name::Beacon(beacon.name.clone()));
                state.copied.extend(aliases.chain(beacons));
            }
            drop(state);
            self.tasks.spawn_on(session.run(), &self.runtime);
            let noting =
                note_member(self.bucket.clone(), Arc::clone(&self.known), self.own.subscribe(), self.members.clone());
            self.tasks.spawn_on(noting, &self.runtime);
        }
        let is_up = self.runtime.block_on(async { time::timeout(FIRST_WAIT, self.known.up()).await.is_ok() });
        loaded.failure = (!is_up).then(|| self.check_up().err()).flatten();
        loaded.position = self.copied.map_or(0, |place| place.at);
        // What the copy has lost the bucket has.
        (loaded.damage, loaded.unreadable) = (None, 0);
        loaded.unconfirmed.clear();
        loaded.unconfirmed_beacons.clear();
        loaded.copied_at = Some(self.reached_at);
        Ok(loaded)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<Vec<Foreign>, StoreError> {
        self.check_up()?;
        let is_left = |change: &&Change| self.stored.get(&change.name()) != Some(*change);
        let left: Vec<Change> = changes.iter().filter(is_left).cloned().collect();
        let mut foreign = Vec::new();
        for part in left.chunks(PART) {
            let published = self.runtime.block_on(async { time::timeout(COMMIT_TIMEOUT, self.publish(part)).await });
            let overtaken = published.map_err(|_| self.unreachable("it does not answer"))??;
            let names: HashSet<&Name> = overtaken.iter().map(|foreign| &foreign.name).collect();
            for change in part.iter().filter(|change| !names.contains(&change.name())) {
                self.stored.insert(change.name(), change.clone());
            }
            foreign.extend(overtaken);
        }
        self.check_up()?;
        self.reached_at = SystemTime::now();
        std::mem::take(&mut self.stored).into_values().for_each(|change| self.mirror.take(change));
        Ok(foreign)
    }

    fn note(&mut self, note: Note) {
        let mut state = self.known.state();
        match note {
            Note::Adopted(Foreign { name, entry, base, .. }) => {
                let change = match (entry, &name) {
                    (Some(Entry::Lease(lease)), _) => Change::Put(lease),
                    (Some(Entry::Beacon(beacon)), _) => Change::PutBeacon(beacon),
                    (None, Name::Alias(alias)) => Change::Remove(alias.clone()),
                    (None, Name::Beacon(name)) => Change::RemoveBeacon(name.clone()),
                };
                match base {
                    0 => drop(state.bases.remove(&name)),
                    base => drop(state.bases.insert(name, base)),
                }
                drop(state);
                self.stored.remove(&change.name());
                self.mirror.take(change);
            }
            Note::Reached(at) => {
                self.copied = state.place.map(|place| Place { at, ..place });
            }
            Note::Reset => {
                state.bases.clear();
                state.is_reset = false;
                drop(state);
                self.stored.clear();
            }
        }
    }

    fn shared_events(&mut self) -> Option<mpsc::Receiver<SharedEvent>> {
        self.events.take()
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        let written = self.mirror.write(self.copied, self.reached_at);
        let was_failing = std::mem::replace(&mut self.is_mirror_failing, written.is_err());
        match written {
            Err(error) if !was_failing => {
                tracing::warn!(error = %Chain(&error), "the copy of the shared table cannot be written: a start without NATS would begin with an older one");
            }
            _ => {}
        }
        Ok(())
    }
}

/// Notes this scraper in the bucket every minute, and whenever the bucket is watched again: it may be another one. Looks which
/// others no longer do.
async fn note_member(bucket: Bucket, known: Arc<Known>, mut own: watch::Receiver<Option<Member>>, members: Members) {
    loop {
        known.up().await;
        let member = own.borrow_and_update().clone();
        let noted = match &member {
            Some(member) => bucket.note(member, known.writer).await.map(|at| members.noted_own(member.key, at)),
            None => Ok(()),
        };
        if let Err(error) = &noted {
            tracing::debug!(error, "this scraper could not be noted in the bucket");
        }
        let is_noted = noted.is_ok();
        tokio::select! {
            () = time::sleep(if is_noted { members::NOTED_EVERY } else { members::AGAIN_AFTER }) => {}
            () = known.went_down(), if is_noted => {}
            changed = own.changed() => if changed.is_err() { return },
        }
        // Not at once after an outage, in which nobody could note itself.
        if known.down().is_none() {
            members.publish(SystemTime::now());
        }
    }
}
