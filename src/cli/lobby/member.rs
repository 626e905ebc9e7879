//! A host of the group: says hi while it runs, and knows the list that its scrapers had last.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::future;
use tokio::{
    sync::{Mutex, Notify},
    task,
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::labels::Sources;
use crate::{
    client::lobby::{Lobbies, LobbyError},
    identity::PublicKey,
    lobby::{Group, Host, LabelsChange, LabelsError, NoList},
    telemetry::Chain,
    wire::{Hi, LobbyHost, LobbyRequest},
};

/// A list is not asked for again within this time.
const FRESH: Duration = Duration::from_secs(1);
/// A list of a scraper that does not answer counts for so long: what is listed there is mostly as it was.
const STALE: Duration = Duration::from_secs(10 * 60);
/// First pause after a hi that no scraper took: its link, or its table, may not be there yet.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How long hosts may not be listed before that is worth a line: a link and an alias come first.
const PATIENCE: Duration = Duration::from_secs(3);

/// A host of the group. Cheap to clone.
#[derive(Clone)]
pub(super) struct Member(Arc<Shared>);

struct Shared {
    lobbies: Lobbies,
    hostname: String,
    sources: Sources,
    ttl: Duration,
    registers: bool,
    /// Fires when the labels have changed.
    changed: Notify,
    /// Held while the runtime file is changed.
    changing: Mutex<()>,
    lists: Mutex<Lists>,
}

/// The lists of the scrapers, each as of its last answer.
#[derive(Default)]
struct Lists {
    asked_at: Option<Instant>,
    of: HashMap<PublicKey, List>,
}

struct List {
    version: u64,
    hosts: Vec<LobbyHost>,
    answered_at: Instant,
}

impl Member {
    pub(super) fn new(lobbies: Lobbies, hostname: String, sources: Sources, ttl: Duration, registers: bool) -> Self {
        let (changed, changing, lists) = (Notify::new(), Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { lobbies, hostname, sources, ttl, registers, changed, changing, lists }))
    }

    /// Says hi three times within the time to live, and at each change of the labels; says goodbye once `stop` fires.
    pub(super) async fn keep(&self, stop: &CancellationToken) {
        let shared = &self.0;
        if !shared.registers {
            return stop.cancelled().await;
        }
        let mut ticks = time::interval(shared.ttl / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut failing_since, mut reason, mut pause) = (None, None, FIRST_PAUSE);
        loop {
            let again = async {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = shared.changed.notified() => {}
                    () = time::sleep(pause), if failing_since.is_some() => {}
                }
            };
            if stop.run_until_cancelled(again).await.is_none() {
                break;
            }
            let Some(said) = stop.run_until_cancelled(self.say_hi()).await else { break };
            match said {
                Ok(()) => {
                    if reason.take().is_some() {
                        tracing::info!(hostname = shared.hostname, "this host is listed in the lobby again");
                    }
                    (failing_since, pause) = (None, FIRST_PAUSE);
                }
                Err(error) => {
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= PATIENCE && reason.as_ref() != Some(&error) {
                        tracing::warn!(hostname = shared.hostname, error, "this host cannot be listed in the lobby");
                        reason = Some(error);
                    }
                    pause = (pause * 2).min(shared.ttl / 3);
                }
            }
        }
        let goodbye = LobbyRequest::Goodbye { hostname: shared.hostname.clone() };
        future::join_all(shared.lobbies.scrapers().iter().map(|scraper| shared.lobbies.say(scraper, &goodbye))).await;
    }

    /// Says hi to each scraper; an error if one could have taken it, and did not.
    async fn say_hi(&self) -> Result<(), String> {
        let own = self.own().await.map_err(|error| error.to_string())?;
        let ttl_seconds = u32::try_from(self.0.ttl.as_secs()).unwrap_or(u32::MAX);
        let hi = LobbyRequest::Hi(Hi { hostname: own.hostname, labels: own.labels, ttl_seconds });
        let lobbies = &self.0.lobbies;
        let said = lobbies.scrapers().iter().map(async |scraper| (scraper, lobbies.say(scraper, &hi).await));
        let mut failure = None;
        let mut listed = 0;
        for (scraper, said) in future::join_all(said).await {
            match said {
                Ok(()) => listed += 1,
                // A scraper of an earlier version, or none that is linked now.
                Err(error) => failure = Some(format!("{scraper}: {}", Chain(&error))),
            }
        }
        match failure {
            Some(failure) if listed == 0 => Err(failure),
            _ => Ok(()),
        }
    }
}

impl Group for Member {
    async fn own(&self) -> Result<Host, LabelsError> {
        let sources = self.0.sources.clone();
        let labels = task::spawn_blocking(move || sources.read()).await.expect("reading labels does not panic");
        let labels = labels.map_err(|error| LabelsError::Failed(format!("the labels cannot be read: {error}")))?;
        Host::new(self.0.hostname.clone(), labels, 0).map_err(|error| LabelsError::Failed(error.to_string()))
    }

    async fn hosts(&self) -> Result<Arc<[Host]>, NoList> {
        let lobbies = &self.0.lobbies;
        let mut lists = self.0.lists.lock().await;
        if lists.asked_at.is_none_or(|at| at.elapsed() >= FRESH) {
            let asked = lobbies.scrapers().iter().map(async |scraper| {
                let known = lists.of.get(scraper).map_or(0, |list| list.version);
                (*scraper, lobbies.list(scraper, known).await)
            });
            let answers = future::join_all(asked).await;
            let answered_at = Instant::now();
            lists.asked_at = Some(answered_at);
            for (scraper, answer) in answers {
                lists.take(scraper, answer, answered_at);
            }
        }
        lists.joined()
    }

    async fn change(&self, change: LabelsChange, labels: Vec<String>) -> Result<(), LabelsError> {
        let shared = &self.0;
        Host::new(shared.hostname.clone(), labels.clone(), 0)
            .map_err(|error| LabelsError::Invalid(error.to_string()))?;
        let _changing = shared.changing.lock().await;
        let sources = shared.sources.clone();
        let changed = task::spawn_blocking(move || sources.change(change, &labels)).await;
        changed.expect("writing labels does not panic").map_err(|error| LabelsError::Failed(error.to_string()))?;
        shared.changed.notify_one();
        Ok(())
    }
}

impl Lists {
    fn take(
        &mut self,
        scraper: PublicKey,
        answer: Result<Option<(u64, Vec<LobbyHost>)>, LobbyError>,
        answered_at: Instant,
    ) {
        match answer {
            Ok(Some((version, hosts))) => {
                self.of.insert(scraper, List { version, hosts, answered_at });
            }
            Ok(None) => {
                if let Some(list) = self.of.get_mut(&scraper) {
                    list.answered_at = answered_at;
                }
            }
            Err(error) => tracing::debug!(%scraper, error = %Chain(&error), "no list of the lobby"),
        }
    }

    /// The lists as one: of a host that several have, what it said last.
    fn joined(&self) -> Result<Arc<[Host]>, NoList> {
        let mut known = self.of.values().filter(|list| list.answered_at.elapsed() < STALE).peekable();
        if known.peek().is_none() {
            return Err(NoList("no scraper has answered with a list yet, or none has for 10 minutes".to_owned()));
        }
        let mut hosts: BTreeMap<&str, &LobbyHost> = BTreeMap::new();
        for host in known.flat_map(|list| &list.hosts) {
            let other = hosts.entry(&host.hostname).or_insert(host);
            if other.seen < host.seen {
                *other = host;
            }
        }
        let host = |LobbyHost { hostname, labels, seen }: &LobbyHost| Host {
            hostname: hostname.clone(),
            labels: labels.clone(),
            last_check: *seen,
        };
        Ok(hosts.into_values().map(host).collect())
    }
}
