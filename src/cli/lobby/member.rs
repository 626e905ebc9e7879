//! A host of the group: says hi while it runs, and knows the list that its scrapers had last.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{self, BoxFuture, Shared as SharedFuture},
};
use tokio::{
    sync::{self, Notify},
    task,
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::labels::Sources;
use crate::{
    client::lobby::{Lobbies, LobbyError},
    identity::PublicKey,
    lobby::{Bus, Group, Host, LabelsChange, LabelsError, NoList, Others, beside},
    telemetry::Chain,
    wire::{Hi, LobbyHost, LobbyRequest},
};

/// A list is not asked for again within this time.
const FRESH: Duration = Duration::from_secs(1);
/// How long a request waits for a newer list than the last one.
const HURRY: Duration = Duration::from_millis(500);
/// A list that was answered within this time is one of a scraper that works.
const LATELY: Duration = Duration::from_secs(15);
/// The last lists of scrapers of which none answers count for so long: what is listed there is mostly as it was.
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
    /// lobbyd's hosts, where the group has some.
    bus: Option<Bus>,
    hostname: String,
    sources: Sources,
    ttl: Duration,
    registers: bool,
    /// Fires when the labels have changed.
    changed: Notify,
    /// Held while the runtime file is changed.
    changing: sync::Mutex<()>,
    lists: Mutex<Lists>,
    refresh: Mutex<Option<Refresh>>,
}

/// A round of questions that several may wait for.
type Refresh = SharedFuture<BoxFuture<'static, ()>>;

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
    pub(super) fn new(
        lobbies: Lobbies,
        bus: Option<Bus>,
        hostname: String,
        sources: Sources,
        ttl: Duration,
        registers: bool,
    ) -> Self {
        let (changed, changing) = (Notify::new(), sync::Mutex::default());
        let (lists, refresh) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { lobbies, bus, hostname, sources, ttl, registers, changed, changing, lists, refresh }))
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
            // Not given up at the end: the goodbye must come after it.
            match self.say_hi().await {
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
        let scrapers = shared.lobbies.scrapers();
        future::join_all(scrapers.iter().map(|scraper| shared.lobbies.say(scraper, &goodbye))).await;
    }

    /// Says the host on the bus, too, and hears lobbyd's hosts.
    pub(super) async fn keep_bus(&self, stop: &CancellationToken) {
        let Some(bus) = &self.0.bus else { return };
        let own = async || match self.0.registers {
            true => self.own().await.ok().map(|own| vec![own]),
            false => Some(Vec::new()),
        };
        bus.keep(own, true, stop.clone()).await;
    }

    /// Says hi to each scraper; an error if none took it, or one refused it.
    async fn say_hi(&self) -> Result<(), String> {
        let own = self.own().await.map_err(|error| error.to_string())?;
        let ttl_seconds = u32::try_from(self.0.ttl.as_secs()).unwrap_or(u32::MAX);
        let hi = LobbyRequest::Hi(Hi { hostname: own.hostname, labels: own.labels, ttl_seconds });
        let lobbies = &self.0.lobbies;
        let scrapers = lobbies.scrapers();
        let said = scrapers.iter().map(async |scraper| (scraper, lobbies.say(scraper, &hi).await));
        let (mut failure, mut is_refused, mut listed) = (None, false, 0);
        for (scraper, said) in future::join_all(said).await {
            match said {
                Ok(()) => listed += 1,
                Err(error) => {
                    // One that is not linked now, or of an earlier version, is none of several that matters.
                    is_refused |= matches!(error, LobbyError::Refused(_));
                    failure = Some(format!("{scraper}: {}", Chain(&error)));
                }
            }
        }
        match failure {
            Some(failure) if listed == 0 || is_refused => Err(failure),
            _ => Ok(()),
        }
    }
}

impl Member {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.0.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks every scraper for its list, which goes on when nobody waits for it any more; one round at a time.
    fn refresh(&self) -> Refresh {
        let mut running = self.0.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(refresh) = running.as_ref().filter(|refresh| refresh.peek().is_none()) {
            return refresh.clone();
        }
        let member = self.clone();
        let asked = task::spawn(async move {
            let lobbies = &member.0.lobbies;
            let scrapers = lobbies.scrapers();
            let asked = scrapers.iter().map(async |scraper| {
                let known = member.lists().of.get(scraper).map_or(0, |list| list.version);
                let answer = lobbies.list(scraper, known).await;
                member.lists().take(*scraper, answer, Instant::now());
            });
            future::join_all(asked).await;
            member.lists().asked_at = Some(Instant::now());
        });
        let refresh = asked.map(drop).boxed().shared();
        *running = Some(refresh.clone());
        refresh
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
        let (is_fresh, is_known) = {
            let lists = self.lists();
            (lists.asked_at.is_some_and(|at| at.elapsed() < FRESH), lists.youngest().is_some())
        };
        if !is_fresh {
            // A scraper that hangs keeps nobody waiting who could have the last list.
            let patience = if is_known { HURRY } else { PATIENCE };
            let _ = time::timeout(patience, self.refresh()).await;
        }
        let mut hosts = self.lists().joined()?;
        if let Some(bus) = &self.0.bus {
            hosts = beside(hosts, bus.hosts()?);
        }
        Ok(hosts.iter().map(Host::from).collect())
    }

    async fn change(&self, change: LabelsChange, labels: Vec<String>) -> Result<(), LabelsError> {
        let shared = &self.0;
        let _changing = shared.changing.lock().await;
        let (sources, hostname) = (shared.sources.clone(), shared.hostname.clone());
        let changed = task::spawn_blocking(move || {
            sources.change(change, &labels, |all| {
                let host = Host::new(hostname, all, 0);
                host.map(drop).map_err(|error| LabelsError::Invalid(error.to_string()))
            })
        });
        changed.await.expect("writing labels does not panic")?;
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

    /// The age of the last answer of a scraper; none if it does not count any more.
    fn youngest(&self) -> Option<Duration> {
        self.of.values().map(|list| list.answered_at.elapsed()).min().filter(|age| *age < STALE)
    }

    /// The lists as one: of a host that several have, what it said last. Beside a scraper that answers, the host of one that does
    /// not counts until its time to live is over.
    fn joined(&self) -> Result<Vec<LobbyHost>, NoList> {
        let Some(youngest) = self.youngest() else {
            return Err(NoList("no scraper has answered with a list yet, or none has for 10 minutes".to_owned()));
        };
        let counts_for = |host: &LobbyHost| match youngest < LATELY {
            true => Duration::from_secs(host.ttl_seconds.into()).clamp(LATELY, STALE),
            false => STALE,
        };
        let mut hosts: BTreeMap<&str, &LobbyHost> = BTreeMap::new();
        for list in self.of.values() {
            let age = list.answered_at.elapsed();
            for host in list.hosts.iter().filter(|host| age < counts_for(host)) {
                let other = hosts.entry(&host.hostname).or_insert(host);
                if other.seen < host.seen {
                    *other = host;
                }
            }
        }
        Ok(hosts.into_values().cloned().collect())
    }
}
