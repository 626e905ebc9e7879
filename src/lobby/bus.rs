//! The bus of lobbyd's hosts: a subject of NATS, on which each of them says hi and goodbye.
//!
//! While a group moves, hosts of both kinds list each other: ours are said on the bus, and those that others say there are in our
//! lists. A packet has no sender and no proof, so whoever may publish is anybody; but a name that one of ours has is never
//! taken from the bus.

mod heard;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use async_nats::{Client, ConnectOptions, connection::State};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Host, NoList, Others, is_label};
use crate::{nats::NatsConfig, telemetry::Chain, wire::LobbyHost};
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
/// Longest wait for the last goodbye to be sent.
const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// A place on the bus. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Bus(Arc<Shared>);

struct Shared {
    client: Client,
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
    /// When it is to be said again.
    again_at: Instant,
    /// True if somebody else has said hi in its name.
    is_contested: bool,
}

impl Bus {
    /// A place on the bus of these servers, whose path is the subject; `lobby.discovery` without one. The connection is made in the
    /// background. A host is listed for `ttl` after its last hi, for 20 s at least.
    ///
    /// # Errors
    /// A file of the settings cannot be read.
    pub(crate) async fn connect(nats: &NatsConfig, ttl: Duration) -> io::Result<Self> {
        let options = ConnectOptions::new().no_echo().subscription_capacity(WAITING);
        let (client, _) = nats.connect(options).await?;
        let subject = nats.url.path().unwrap_or(SUBJECT).to_owned();
        let heard = Mutex::new(Heard::new(ttl.max(SHORTEST_TTL)));
        Ok(Self(Arc::new(Shared { client, url: nats.url.to_string(), subject, heard })))
    }

    /// True while there is no connection.
    pub(crate) fn is_failing(&self) -> bool {
        self.0.client.connection_state() != State::Connected
    }

    /// The number of hosts that others have on the bus.
    pub(crate) fn len(&self) -> usize {
        self.heard().len()
    }

    /// Says what `own` returns, asked once a second, where it returns something; hears what others say, until `stop` fires. Then says goodbye for
    /// ours, if they end with this process.
    pub(crate) async fn keep<F: Future<Output = Option<Vec<Host>>>>(
        &self,
        own: impl Fn() -> F,
        ends: bool,
        stop: CancellationToken,
    ) {
        let mut said = BTreeMap::new();
        let mut packets = match self.0.client.subscribe(self.0.subject.clone()).await {
            Ok(packets) => packets,
            Err(error) => {
                let error = Chain(&error).to_string();
                tracing::error!(bus = %self, error = %error.escape_debug(), "lobbyd's hosts cannot be heard");
                return stop.cancelled().await;
            }
        };
        let mut ticks = time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_odd = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(packet) = packets.next() => {
                    let taken = self.take(&packet.payload, &mut said);
                    if let Err(error) = taken && !std::mem::replace(&mut is_odd, true) {
                        tracing::warn!(bus = %self, error = %error.escape_debug(), "a packet of the bus is none of a host, and is left out, as further ones are");
                    }
                }
                _ = ticks.tick() => {
                    let is_failing = self.is_failing();
                    self.heard().look(is_failing, Instant::now());
                    if let Some(own) = own().await && !is_failing {
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
                self.say(Word::Goodbye, &Host { hostname, labels, last_check: 0 }).await;
            }
        }
        for host in own {
            // It may have been said before it was ours.
            self.heard().goodbye(&host.hostname);
            let last = said.get(&host.hostname);
            if last.is_some_and(|last| last.labels == host.labels && now < last.again_at) {
                continue;
            }
            let is_contested = last.is_some_and(|last| last.is_contested);
            self.say(Word::Hi, &host).await;
            said.insert(host.hostname, Said { labels: host.labels, again_at: now + HI_EVERY, is_contested });
        }
    }

    async fn say(&self, message: Word, host: &Host) {
        let discovery = Host { last_check: 0, ..host.clone() };
        let packet = serde_json::to_vec(&Packet { discovery, message }).expect("text is JSON");
        if let Err(error) = self.0.client.publish(self.0.subject.clone(), packet.into()).await {
            tracing::debug!(bus = %self, error = %Chain(&error), "a host could not be said on the bus");
        }
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
                Word::Hi if own.labels != labels && !own.is_contested => {
                    own.is_contested = true;
                    tracing::warn!(
                        bus = %self, hostname = %hostname.escape_debug(),
                        "another host on the bus has the name of one of ours: lobbyd's hosts list now the one, now the other"
                    );
                }
                Word::Hi => {}
            }
            return Ok(());
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

impl Others for Bus {
    fn hosts(&self) -> Result<Vec<LobbyHost>, NoList> {
        let heard = self.heard();
        if !heard.is_complete(Instant::now()) {
            return Err(NoList(format!("lobbyd's hosts at {self} have not been heard yet")));
        }
        Ok(heard.hosts())
    }
}

impl fmt::Display for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.url)
    }
}
