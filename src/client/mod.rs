//! The client: registers aliases with scrapers by their public keys, and answers their pulls.
//!
//! A [`Client`] keeps one link to each of its scrapers, states its targets over it, renews at a third of the lease, and
//! serves `GET /<alias>` on the streams that the scraper opens over the same link. No other peer is served. Further scrapers
//! are learned from those that the client was given (`group`, `learned`).

mod builder;
mod compression;
mod event;
mod event_log;
pub(crate) mod exchange;
mod farewell;
#[cfg(feature = "filter")]
mod filter;
mod group;
mod held;
mod learned;
#[cfg(feature = "cli")]
pub(crate) mod lobby;
mod metrics;
mod outage;
mod pull_watchdog;
mod registration;
mod server;
mod source;
mod targets;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{broadcast, mpsc},
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;

pub use builder::{BuildError, ClientBuilder, TargetBuilder};
pub use compression::Compression;
pub use event::{Event, EventKind, PullFailure, RegisterError};
#[cfg(feature = "filter")]
use filter::Filtered;
#[cfg(all(any(fuzzing, test), feature = "cli"))]
pub(crate) use filter::fuzzing as filter_fuzzing;
#[cfg(feature = "filter")]
pub use filter::{Filter, FilterError};
pub use source::{
    BoxError, Exposition, ExpositionBody, IntoSource, PullReason, PullRequest, Source, SourceError, Text, from_async,
};
#[cfg(feature = "tower")]
pub use source::{Tower, TowerError};
#[cfg(feature = "cli")]
pub(crate) use targets::MAX_TARGETS;

pub use crate::{
    network::{Attempt, AttemptKind, ConnectError, LinkPath, LinkTransport, RelayRefusal},
    wire::{Alias, AliasRefusal, HandshakeRefusal, TargetError},
};

use crate::{
    identity::{KeyPair, PeerAddr, PublicKey, SharedSecret},
    network::{Acceptor, Admitted, Firewall, Links, Network, NetworkConfig, NetworkRole, PULL_PROTOCOL},
    wire::{InstanceId, Ticket},
};

use builder::Checked;
use event::Events;
use group::Group;
use learned::Given;
use pull_watchdog::PullWatchdog;
use targets::Targets;

/// Streams that may wait to be served; more are refused.
const PULL_QUEUE: usize = 256;
/// Longest wait at shutdown for pulls in flight.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// A service's side of narthex. Built by [`Client::builder`]; lives in background tasks until [`Client::shutdown`].
///
/// Dropped without a shutdown, it breaks off: its aliases then lapse at their scrapers instead of being released.
///
/// ```no_run
/// # async fn service(scraper: narthex::PeerAddr, secret: narthex::SharedSecret) -> Result<(), Box<dyn std::error::Error>> {
/// use narthex::{Client, client::EventKind};
///
/// let metrics = || Ok::<_, std::fmt::Error>("orders_total 3\n".to_owned());
/// let client = Client::builder(scraper, secret).alias("web-1").metrics(metrics).start().await?;
/// let mut events = client.events();
/// while !matches!(events.recv().await?.kind, EventKind::Registered { .. }) {}
/// client.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub struct Client {
    public_key: PublicKey,
    events: Events,
    /// For the first caller of [`Client::events`]: registration may be faster than that call.
    since_start: Mutex<Option<broadcast::Receiver<Event>>>,
    links: Links,
    group: Group,
    #[cfg(feature = "cli")]
    lobbies: lobby::Lobbies,
    targets: Arc<Targets>,
    stop: CancellationToken,
    stop_network: CancellationToken,
    registrations: JoinSet<()>,
    serving: JoinSet<()>,
    network: JoinSet<()>,
}

/// State shared by the tasks of a client.
struct Shared {
    key: KeyPair,
    /// True if the key is kept across restarts.
    kept: bool,
    instance: InstanceId,
    secret: SharedSecret,
    targets: Arc<Targets>,
    max_body: u64,
    compression: Compression,
    /// Longest wait at the end for a scraper to release our aliases.
    release_timeout: Duration,
    events: Events,
    network: Network,
    group: Group,
    pull_watchdog: PullWatchdog,
}

impl Client {
    /// A client of one scraper, to begin with: `scraper` is a [`PublicKey`], or a [`PeerAddr`] with a hint.
    pub fn builder(scraper: impl Into<PeerAddr>, secret: SharedSecret) -> ClientBuilder {
        ClientBuilder::new(scraper.into(), secret)
    }

    /// A client that joins by a ticket, as `narthex ticket create` prints it. A ticket for one client is the key's that uses it
    /// first: give a [`key`](ClientBuilder::key) that stays.
    ///
    /// ```no_run
    /// # async fn service() -> Result<(), Box<dyn std::error::Error>> {
    /// use narthex::{Client, Ticket};
    ///
    /// let ticket: Ticket = std::env::var("NARTHEX_TICKET")?.parse()?;
    /// let metrics = || Ok::<_, std::fmt::Error>("up_since 1\n".to_owned());
    /// let client = Client::from_ticket(&ticket).alias("web-1").metrics(metrics).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_ticket(ticket: &Ticket) -> ClientBuilder {
        ClientBuilder::from_ticket(ticket)
    }

    /// The key that the client registers with.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Events: for the first caller since the start, for others from now on. A receiver that lags behind by more than 256
    /// events misses the oldest, which its next `recv` reports.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        let first = self.since_start.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.unwrap_or_else(|| self.events.subscribe())
    }

    /// True while there is a link to the scraper.
    pub fn is_linked(&self, scraper: &PublicKey) -> bool {
        self.links.path(scraper).is_some()
    }

    /// The scrapers as they are now: the given ones, and those that were learned
    /// ([`ClientBuilder::learn_group`]).
    pub fn scrapers(&self) -> Vec<PublicKey> {
        self.group.scrapers()
    }

    /// Replaces the targets, and registers the change at once: new or different ones appear at the scrapers, missing ones
    /// are released and their pulls in flight end; other pulls go on. The client's own target
    /// ([`ClientBuilder::self_alias`]) stays, and is not named here. A target without [`metrics`](TargetBuilder::metrics)
    /// keeps the source that its alias has.
    ///
    /// # Errors
    /// [`BuildError`] if a target can never be listed, or there are too many for one registration. Then nothing has
    /// changed.
    pub fn set_targets(&self, targets: Vec<TargetBuilder>) -> Result<(), BuildError> {
        self.targets.replace(targets)?;
        self.events.metrics().set_targets(self.targets.len());
        Ok(())
    }

    /// The way to the lobbies of the scrapers.
    #[cfg(feature = "cli")]
    pub(crate) fn lobbies(&self) -> lobby::Lobbies {
        self.lobbies.clone()
    }

    /// Sets the number of problems in the targets as they were written, such as those of an agent's inventory, for the
    /// client's own metrics.
    pub fn set_target_problems(&self, count: usize) {
        self.events.metrics().set_target_problems(count);
    }

    /// Releases the aliases (for up to [`ClientBuilder::release_timeout`]), lets pulls in flight end (for up to 5 s), and
    /// closes the links.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        ended(&mut self.registrations).await;
        if time::timeout(DRAIN_GRACE, ended(&mut self.serving)).await.is_err() {
            tracing::warn!("pulls in flight were cut");
        }
        self.stop_network.cancel();
        ended(&mut self.network).await;
    }

    async fn start(mut builder: ClientBuilder) -> Result<Self, BuildError> {
        let Checked { scrapers, hints, key, kept, targets, metrics } = builder.check()?;
        let (inbox, pulls) = mpsc::channel(PULL_QUEUE);
        let admitted = Admitted::default();
        let group = Group::new(scrapers.iter().map(|scraper| scraper.key), admitted.clone(), builder.learn_group);
        let acceptor = Acceptor { protocol: PULL_PROTOCOL, firewall: Firewall::Only(admitted), inbox };
        let file = builder.data_dir.as_ref().map(|dir| dir.join("group"));
        let config = NetworkConfig {
            bootstrap: builder.bootstrap,
            #[cfg(feature = "mdns")]
            mdns: builder.mdns,
            addresses_file: builder.data_dir.map(|dir| dir.join("addresses")),
            ..NetworkConfig::new(NetworkRole::Client)
        };
        let (network, task) = Network::start(&key, config, vec![acceptor]).await?;
        for (scraper, further) in hints {
            network.hint(scraper, further);
        }
        let events = Events::new(metrics);
        let since_start = Mutex::new(Some(events.subscribe()));
        let public_key = key.public();
        let targets = Arc::new(targets);
        events.metrics().set_targets(targets.len());
        let shared = Arc::new(Shared {
            key,
            kept,
            instance: InstanceId(rand::random()),
            secret: builder.secret,
            targets: Arc::clone(&targets),
            max_body: builder.max_body,
            compression: builder.compression,
            release_timeout: builder.release_timeout,
            events: events.clone(),
            network: network.clone(),
            group: group.clone(),
            pull_watchdog: PullWatchdog::default(),
        });
        let (stop, stop_network) = (CancellationToken::new(), CancellationToken::new());
        let (mut registrations, mut serving, mut network_task) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
        // The network outlives the pulls, which outlive the registrations.
        network_task.spawn(task.run(stop_network.clone()));
        serving.spawn(server::serve(Arc::clone(&shared), pulls, stop.clone()));
        serving.spawn(event::report_blocks(events.clone(), network.blocks(), stop.clone()));
        #[cfg(feature = "cli")]
        let lobbies = lobby::Lobbies::new(network.clone(), group.clone());
        if let Some(pace) = builder.learn_group {
            let given = Given { scrapers: scrapers.iter().map(|scraper| scraper.key).collect(), file };
            registrations.spawn(learned::keep(Arc::clone(&shared), given, pace, stop.clone()));
        }
        for scraper in scrapers {
            registrations.spawn(registration::keep(Arc::clone(&shared), scraper, stop.clone()));
        }
        let links = network.links().clone();
        Ok(Self {
            public_key,
            events,
            since_start,
            links,
            group,
            #[cfg(feature = "cli")]
            lobbies,
            targets,
            stop,
            stop_network,
            registrations,
            serving,
            network: network_task,
        })
    }
}

async fn ended(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}
