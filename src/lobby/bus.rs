//! The bus of lobbyd's hosts: a subject of NATS, on which each of them says hi and goodbye.
//!
//! While a group moves, hosts of both kinds list each other: ours are said on the bus, and those that others say there are in our
//! lists. A packet has no sender and no proof, so whoever may publish is anybody; but a name is not
//! taken from the bus while one of ours has it.

mod heard;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_nats::{Client, ConnectOptions, Subscriber, connection::State};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{Host, NoList, Others, is_label};
use crate::{
    nats::{Connection, NatsConfig},
    telemetry::{Chain, escaped, short_duration},
    wire::LobbyHost,
};
use heard::Heard;

/// How often each of our hosts says hi, as with lobbyd.
const HI_EVERY: Duration = Duration::from_secs(5);
/// How often is looked for what has changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A silent connection is given up after 15 s, in which a host that NATS keeps us from hearing must not be given up.
const SHORTEST_TTL: Duration = Duration::from_secs(20);
/// lobbyd's subject.
const SUBJECT: &str = "lobby.discovery";
/// Packets that wait to be read: NATS drops further ones, and hosts repeat theirs.
const WAITING: usize = 1024;
/// Longest packet: that of a host as large as one may be.
const MAX_PACKET: usize = 128 << 10;
/// How long a host of ours must have had its labels for another that says others to be logged.
const SETTLED: Duration = Duration::from_secs(15);
/// How often packets that are left out are logged.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// Longest wait for the last goodbye to be sent.
const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// A place on the bus. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Bus(Arc<Shared>);

struct Shared {
    client: Client,
    /// What went wrong with NATS last.
    fault: watch::Receiver<String>,
    /// True if it keeps us from hearing.
    is_deaf: AtomicBool,
    url: String,
    subject: String,
    heard: Mutex<Heard>,
}

/// What lobbyd sends, as JSON.
#[derive(Deserialize, Serialize)]
struct Packet<D> {
    discovery: D,
    message: Word,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Hi,
    Goodbye,
}

/// A host as another says it.
#[derive(Deserialize)]
struct Discovery {
    hostname: String,
    labels: Option<Vec<String>>,
}

/// A host of ours, as it was said last.
struct Said {
    labels: Vec<String>,
    /// Since when it has these labels.
    since: Instant,
    /// When it is to be said again.
    again_at: Instant,
    /// True if that somebody else says hi in its name was logged.
    is_contested: bool,
    /// True if it could not be sent.
    is_unsaid: bool,
}

/// Whether the server lets us hear the subject.
struct Hearing {
    packets: Subscriber,
    /// When the last subscription was refused; another is tried later.
    refused_at: Option<Instant>,
}

/// What was logged of packets that were left out.
#[derive(Default)]
struct Complaints {
    at: Option<Instant>,
    further: u64,
}

impl Bus {
    /// A place on the bus of these servers, whose path is the subject; `lobby.discovery` without one. The connection is made in the
    /// background. A host is listed for `ttl` after its last hi, for 20 s at least.
    ///
    /// # Errors
    /// A file of the settings cannot be read, or no host can say hi on the subject.
    pub(crate) async fn connect(nats: &NatsConfig, ttl: Duration) -> io::Result<Self> {
        let options = ConnectOptions::new().no_echo().subscription_capacity(WAITING);
        let subject = nats.url.path().unwrap_or(SUBJECT).to_owned();
        if !is_subject(&subject) {
            let error = format!("{subject:?} is no subject of NATS that hosts can say hi on");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        if ttl < SHORTEST_TTL {
            tracing::warn!(
                ttl = short_duration(ttl),
                shortest = short_duration(SHORTEST_TTL),
                "hosts of the lobby's NATS are listed for the shortest time that loses none between two packets"
            );
        }
        let Connection { client, fault, .. } = nats.connect(options).await?;
        let heard = Mutex::new(Heard::new(ttl.max(SHORTEST_TTL)));
        let (url, is_deaf) = (nats.url.to_string(), AtomicBool::new(false));
        Ok(Self(Arc::new(Shared { client, fault, is_deaf, url, subject, heard })))
    }

    /// True while nobody can be heard.
    pub(crate) fn is_failing(&self) -> bool {
        !self.is_connected() || self.0.is_deaf.load(Ordering::Relaxed)
    }

    fn is_connected(&self) -> bool {
        self.0.client.connection_state() == State::Connected
    }

    /// The number of hosts that others have on the bus.
    pub(crate) fn len(&self) -> usize {
        self.heard().len()
    }

    /// Says what `own` returns, asked once a second, where it returns something, and hears what others say, until `stop` fires. Then
    /// says goodbye for ours, if they end with this process.
    pub(crate) async fn keep<F: Future<Output = Option<Vec<Host>>>>(
        &self,
        own: impl Fn() -> F,
        ends: bool,
        stop: CancellationToken,
    ) {
        let mut said = BTreeMap::new();
        let Some(mut hearing) = Hearing::start(self).await else { return stop.cancelled().await };
        let mut fault = self.0.fault.clone();
        let mut ticks = time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut complaints = Complaints::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(packet) = hearing.packets.next() => {
                    if let Err(error) = self.take(&packet.payload, &mut said) {
                        complaints.of(self, &error);
                    }
                }
                Ok(()) = fault.changed() => {
                    if fault.borrow_and_update().to_ascii_lowercase().contains("subscription") {
                        hearing.refused_at = Some(Instant::now());
                    }
                }
                _ = ticks.tick() => {
                    hearing.look(self).await;
                    let is_failing = self.is_failing();
                    self.heard().look(is_failing, Instant::now());
                    if let Some(own) = own().await && self.is_connected() {
                        self.say_all(own, &mut said).await;
                    }
                }
            }
        }
        if ends {
            self.say_all(Vec::new(), &mut said).await;
        }
        let _ = time::timeout(GOODBYE_TIME, self.0.client.flush()).await;
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says hi of the hosts that are new, have other labels, or were said a while ago; goodbye of those that are gone.
    async fn say_all(&self, own: Vec<Host>, said: &mut BTreeMap<String, Said>) {
        let now = Instant::now();
        let names: BTreeSet<&str> = own.iter().map(|host| host.hostname.as_str()).collect();
        let gone: Vec<String> = said.keys().filter(|name| !names.contains(name.as_str())).cloned().collect();
        for hostname in gone {
            if let Some(Said { labels, .. }) = said.remove(&hostname) {
                // Whoever does not hear it gives the host up in time.
                let _ = self.say(Word::Goodbye, &Host { hostname, labels, last_check: 0 }).await;
            }
        }
        for host in own {
            let last = said.get(&host.hostname);
            let same = last.filter(|last| last.labels == host.labels);
            if same.is_some_and(|last| now < last.again_at) {
                continue;
            }
            let since = same.map_or(now, |last| last.since);
            let is_contested = last.is_some_and(|last| last.is_contested);
            let was_unsaid = last.is_some_and(|last| last.is_unsaid);
            let sent = self.say(Word::Hi, &host).await;
            if let Err(error) = &sent
                && !was_unsaid
            {
                tracing::warn!(
                    bus = %self, hostname = %escaped(&host.hostname), error = %escaped(error),
                    "a host cannot be said on the bus, and is not in the lists of lobbyd's hosts"
                );
            }
            let (again_at, is_unsaid) = (now + HI_EVERY, sent.is_err());
            said.insert(host.hostname, Said { labels: host.labels, since, again_at, is_contested, is_unsaid });
        }
    }

    async fn say(&self, message: Word, host: &Host) -> Result<(), String> {
        let discovery = Host { last_check: 0, ..host.clone() };
        let packet = serde_json::to_vec(&Packet { discovery, message }).expect("text is JSON");
        self.0.client.publish(self.0.subject.clone(), packet.into()).await.map_err(|error| Chain(&error).to_string())
    }

    /// Takes a packet of somebody else.
    fn take(&self, packet: &[u8], said: &mut BTreeMap<String, Said>) -> Result<(), String> {
        if packet.len() > MAX_PACKET {
            return Err(format!("it has {} bytes", packet.len()));
        }
        let Packet { discovery, message } =
            serde_json::from_slice::<Packet<Discovery>>(packet).map_err(|error| error.to_string())?;
        let Discovery { hostname, labels } = discovery;
        let labels = labels.unwrap_or_default();
        if let Some(own) = said.get_mut(&hostname) {
            match message {
                // It is still here, and those who heard the goodbye should know.
                Word::Goodbye => own.again_at = Instant::now(),
                // Another scraper that lists it may say a change a moment sooner or later.
                Word::Hi if own.labels != labels && own.since.elapsed() > SETTLED && !own.is_contested => {
                    own.is_contested = true;
                    tracing::warn!(
                        bus = %self, hostname = %escaped(&hostname),
                        "another host on the bus has the name of one of ours: lobbyd's hosts list now the one, now the other"
                    );
                }
                Word::Hi => {}
            }
        }
        match message {
            Word::Hi => {
                let labels = labels.into_iter().filter(|label| is_label(label)).collect();
                let host = Host::new(hostname, labels, 0).map_err(|error| error.to_string())?;
                self.heard().hi(host, SystemTime::now(), Instant::now())
            }
            Word::Goodbye => {
                self.heard().goodbye(&hostname);
                Ok(())
            }
        }
    }
}

impl Hearing {
    async fn start(bus: &Bus) -> Option<Self> {
        match bus.0.client.subscribe(bus.0.subject.clone()).await {
            Ok(packets) => Some(Self { packets, refused_at: None }),
            Err(error) => {
                tracing::error!(%bus, error = %Chain(&error), "lobbyd's hosts cannot be heard");
                None
            }
        }
    }

    /// Notes whether the server has refused the subscription, and subscribes again after a while: its user's rights may have
    /// changed.
    async fn look(&mut self, bus: &Bus) {
        bus.0.is_deaf.store(self.refused_at.is_some(), Ordering::Relaxed);
        if self.refused_at.is_some_and(|at| at.elapsed() >= HI_EVERY)
            && let Some(anew) = Self::start(bus).await
        {
            *self = anew;
        }
    }
}

impl Complaints {
    /// Logs why a packet was left out, once a minute.
    fn of(&mut self, bus: &Bus, error: &str) {
        if self.at.is_some_and(|at| at.elapsed() < COMPLAIN_EVERY) {
            self.further += 1;
            return;
        }
        let further = std::mem::take(&mut self.further);
        tracing::warn!(%bus, error = %escaped(error), further, "packets of the bus are left out");
        self.at = Some(Instant::now());
    }
}

impl Others for Bus {
    fn hosts(&self) -> Result<Vec<LobbyHost>, NoList> {
        let heard = self.heard();
        if !heard.is_complete(Instant::now()) {
            return Err(NoList(format!("lobbyd's hosts at {self} have not been heard yet")));
        }
        Ok(heard.hosts())
    }
}

/// True of a subject that can be published on: words between dots.
fn is_subject(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c.is_control() || "*>".contains(c))
    };
    text.split('.').all(is_word)
}

impl fmt::Display for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.url)
    }
}
