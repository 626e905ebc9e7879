//! The scraper: the role beside Prometheus.
//!
//! A [`Scraper`] is found by its key, registers peers (`registrar`), pulls from them over the links that they opened
//! (`puller`), and answers Prometheus over HTTP (`http`). Scrapers that share one table are a `group`, whose members pull for
//! each other.

mod alias_metrics;
mod config;
mod enforcement;
mod group;
mod http;
mod last_scrapes;
mod link_log;
mod lobby;
mod metrics;
mod outcome;
mod peer_desk;
mod places;
mod processes;
mod pull;
mod puller;
mod reconnect_grace;
mod registrar;
mod reload;
mod shares;
mod silence;
mod store;
mod stream_place;
mod ticket_desk;
mod turn;
mod warnings;

use std::{collections::HashSet, future, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{broadcast, mpsc},
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;

pub use crate::access::{
    AliasPolicy, AliasPolicyError, IssueError, NamedSecret, PeerFileError, PeerRulesError, SecretName, SecretNameError,
    TicketFileError, UnfitSecrets,
};
#[cfg(feature = "nats")]
pub use crate::nats::{NatsConfig, NatsFileError, NatsUrl, NatsUrlError};
pub use crate::secret_file::SecretFileError;
pub use crate::{
    hook::{Hook, HookCommand, HookCommandError, UnusableProgram},
    network::DEFAULT_P2P_PORT,
    registry::{EventKind, RegistryConfig, RegistryError, RegistryEvent, StoreError},
    wire::Alias,
};
pub use config::{
    DEFAULT_HTTP_PORT, HttpConfig, LobbyApi, RegistrationApi, RegistrationLimits, ScrapeConfig, ScraperConfig,
    ScraperError,
};
#[cfg(feature = "nats")]
pub use config::{LobbyNats, SharedStore};

pub use crate::http::{HttpAddr, HttpAddrError, HttpSocket, WebSecurity, WebSecurityError};
#[doc(hidden)]
pub use group::{Member, Members};
pub use reload::{ReloadError, ReloadRequest, ReloadRequests, Reloaded};

use crate::{
    access::{Grant, Policy, Secrets},
    hook::Ending,
    http::{Gate, Listener},
    identity::{HostPort, PublicKey},
    lobby::LobbyListener,
    network::{
        self, Acceptor, Admitted, Firewall, FirewallBlock, LinkPath, Links, Network, NetworkConfig, NetworkRole,
        PULL_PROTOCOL,
    },
    registration_log::{AddressKind, Keeper, LogCounts, Resolve},
    registry::Registry,
    wire::{FAREWELL_PROTOCOL, LOBBY_PROTOCOL, REGISTER_PROTOCOL, Ticket, group::GROUP_PROTOCOL},
};

use enforcement::Enforcement;
use group::{AnswerLimits, Group, GroupPuller};
#[cfg(all(any(fuzzing, test), feature = "cli"))]
pub(crate) use http::fuzzing as host_fuzzing;
use http::{BeaconsApi, Control, FileSd, OnChange, Shared};
#[cfg(feature = "cli")]
pub(crate) use http::{CONTROL_SOCKET, Changed, EXPORT_PATH, Made, PEERS_PATH, RuleText, Rules, TICKETS_PATH, Wanted};
use lobby::Lobby;
use metrics::ScraperMetrics;
use peer_desk::PeerDesk;
use puller::Puller;
use registrar::Registrar;
use reload::Reloader;
use store::OpenStore;
use ticket_desk::TicketDesk;

/// The table's files in the data directory begin with this name.
pub(crate) const TABLE: &str = "aliases";
/// Streams of the register protocol that may wait for the registrar; more are refused.
const REGISTER_QUEUE: usize = 1024;
/// The same of farewells. They are answered as fast as they come; a whole fleet may end between two looks at the queue.
const FAREWELL_QUEUE: usize = 8192;
/// The same of requests of the lobby.
const LOBBY_QUEUE: usize = 1024;
/// The same of requests of other members of the group.
const GROUP_QUEUE: usize = 1024;
/// Longest wait at shutdown for scrapes in flight, and for a command that runs: Prometheus's default scrape timeout.
const DRAIN_GRACE: Duration = Duration::from_secs(10);
/// Longest wait at shutdown for the tasks of the peer-to-peer side, which only close connections.
const TASK_GRACE: Duration = Duration::from_secs(3);
/// How often links to peers without an alias are looked for.
const UPKEEP_EVERY: Duration = Duration::from_secs(60);

/// A running scraper. Lives in background tasks until [`Scraper::shutdown`].
///
/// ```no_run
/// # async fn monitoring() -> Result<(), Box<dyn std::error::Error>> {
/// use narthex::{KeyPair, Scraper, ScraperConfig, SharedSecret};
///
/// let config = ScraperConfig::new(KeyPair::generate(), vec![SharedSecret::generate()], "data");
/// let mut scraper = Scraper::start(config).await?;
/// println!("{} lists its targets at http://127.0.0.1:19960/sd", scraper.public_key());
/// tokio::select! {
///     error = scraper.failed() => eprintln!("{error}"),
///     _ = tokio::signal::ctrl_c() => {}
/// }
/// scraper.shutdown().await?;
/// # Ok(())
/// # }
/// ```
pub struct Scraper {
    public_key: PublicKey,
    http_addr: Option<SocketAddr>,
    registration_api_addr: Option<SocketAddr>,
    lobby_api_addr: Option<SocketAddr>,
    listening: Vec<SocketAddr>,
    registry: Registry,
    network: Network,
    desk: TicketDesk,
    peers: PeerDesk,
    reload_requests: Option<ReloadRequests>,
    stop: Stop,
    http: JoinSet<()>,
    hooks: JoinSet<()>,
    tasks: JoinSet<()>,
    table: JoinSet<Result<(), RegistryError>>,
}

/// Stop tokens in the order in which they fire: each part may end only after the one before.
#[derive(Default)]
struct Stop {
    http: CancellationToken,
    tasks: CancellationToken,
    table: CancellationToken,
}

impl Scraper {
    /// Starts to listen, on HTTP and for peers. The table loads in the background; `/-/ready` is 503 until then.
    ///
    /// # Errors
    /// [`ScraperError`] for settings that cannot work here.
    pub async fn start(mut config: ScraperConfig) -> Result<Self, ScraperError> {
        if let Some(fault) = config.faults().into_iter().next() {
            return Err(fault);
        }
        let OpenStore { store, own } = OpenStore::open(&mut config).await?;
        // Whoever has the token of the registration API has a share of the table, as those who have a secret.
        let shares = config.secrets.len() + usize::from(config.http_limits.registration_api.is_some());
        let peer_file = config.peer_file();
        let secrets = Secrets::open(config.secrets, &config.data_dir)?;
        let policy = Policy::new(secrets, peer_file.read()?);
        let gate = Gate::open(config.http_limits.security.clone())?;
        let listener = match config.http_socket.take() {
            Some(socket) => Listener::passed(socket)?,
            None => Listener::bind(&config.http).await?,
        };
        let http_addr = listener.tcp_addr();
        // A name may have any address.
        if let Some(addr) = http_addr
            && !addr.ip().to_canonical().is_loopback()
            && !config.http_limits.security.insecure
            && gate.is_open()
        {
            return Err(ScraperError::Insecure(HostPort::new(addr.ip().to_string(), addr.port())));
        }
        let file_sd = FileSd::new(&config.http_limits, http_addr)?;
        let on_change = OnChange::new(&config.http_limits, http_addr)?;
        let beacons = match &config.http_limits.registration_api {
            Some(api) => Some(BeaconsApi::bind(api).await?),
            None => None,
        };
        let registration_api_addr = beacons.as_ref().map(BeaconsApi::local);
        let lobby_api = match &config.http_limits.lobby_api {
            Some(api) => Some(api.bind().await?),
            None => None,
        };
        let lobby_api_addr = lobby_api.as_ref().map(LobbyListener::local);
        let (lobby_requests, lobby_inbox) = mpsc::channel(LOBBY_QUEUE);
        let (registrations, register_inbox) = mpsc::channel(REGISTER_QUEUE);
        let (farewells, farewell_inbox) = mpsc::channel(FAREWELL_QUEUE);
        let (forwards, forward_inbox) = mpsc::channel(GROUP_QUEUE);
        let admitted = Admitted::default();
        let mut acceptors = acceptors(registrations, farewells, lobby_requests);
        if config.members.is_some() {
            let firewall = Firewall::Only(admitted.clone());
            acceptors.push(Acceptor { protocol: GROUP_PROTOCOL, firewall, inbox: forwards });
        }
        let (network, network_task) = Network::start(
            &config.key,
            NetworkConfig {
                listen: config.listen,
                listen_ws: config.listen_ws,
                external: config.external,
                bootstrap: config.bootstrap.clone(),
                mdns: config.mdns,
                proved_file: Some(config.data_dir.join("proved-networks")),
                limits: config.limits,
                ..NetworkConfig::new(NetworkRole::Scraper)
            },
            acceptors,
        )
        .await?;
        let control = Control::listen(&config.data_dir);

        let metrics = Arc::new(ScraperMetrics::new(network.refusals()));
        let public_key = config.key.public();
        let takeover_grace = config.registry.takeover_grace;
        let group = Group::new(public_key, network.clone(), admitted, takeover_grace, Arc::clone(&metrics));
        let registry = Registry::new(config.registry.shared_by(shares), Arc::clone(network.refusals()));
        let links = network.links().clone();
        registry.name_secrets_by({
            let policy = policy.clone();
            move |secret| policy.secrets().name_of(secret)
        });
        let log_counts = Arc::new(LogCounts::default());
        if let Some(max_bytes) = config.registration_log {
            let resolve = resolve(&policy, &links);
            let (key, counts) = (config.key.clone(), Arc::clone(&log_counts));
            let log = Keeper::open(&config.data_dir, max_bytes, key, resolve, counts);
            registry.journal_in(Box::new(log));
        }
        registry.locate_by(move |peer| links.status(peer).address);
        let puller = Puller::new(network.clone(), &config.http_limits.scrape);
        let registrar = Registrar::new(
            config.key.clone(),
            policy.clone(),
            registry.clone(),
            group.clone(),
            network.clone(),
            config.registrations,
            Arc::clone(&metrics),
        )
        .naming(config.members.clone());
        let lobby = Lobby::new(registry.clone(), network.clone());
        let pull = Arc::new(GroupPuller::new(puller.clone(), group.clone()));
        let (answer_limits, counts) = (AnswerLimits::new(&config.http_limits.scrape), Arc::clone(&metrics));
        let (reloader, reload_requests) = Reloader::new();
        let reloader = config.http_limits.lifecycle.then_some(reloader);
        let shared = Shared::new(config.http_limits, gate, registry.clone(), pull, network.clone(), counts);
        let shared = Arc::new(shared.reloading(reloader).logging(log_counts));

        let stop = Stop::default();
        let (mut http_task, mut hooks, mut tasks) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
        let mut table = JoinSet::new();
        table.spawn({
            let (registry, stop) = (registry.clone(), stop.table.clone());
            async move { registry.run(store, stop).await }
        });
        tasks.spawn(network_task.run(stop.tasks.clone()));
        tasks.spawn(registrar.run(register_inbox, farewell_inbox, stop.tasks.clone()));
        #[cfg(feature = "nats")]
        let lobby = match &config.lobby_nats {
            Some(nats) => {
                let bus = nats.connect().await?;
                let lobby = lobby.beside(bus.clone());
                tasks.spawn(lobby.clone().keep_bus(bus, Arc::clone(&metrics), stop.tasks.clone()));
                lobby
            }
            None => lobby,
        };
        tasks.spawn(lobby.clone().run(lobby_inbox, stop.tasks.clone()));
        tasks.spawn(puller.clone().keep_pool(stop.tasks.clone()));
        if let Some(own) = own {
            tasks.spawn(store::keep_own_member(public_key, network.clone(), own, stop.tasks.clone()));
        }
        if let Some(members) = config.members {
            tasks.spawn(group.clone().keep(members, stop.tasks.clone()));
            let serving = group::serve(group.clone(), puller, answer_limits, forward_inbox, stop.http.clone());
            http_task.spawn(serving);
        }
        tasks.spawn(network::keep_nodes(network.clone(), stop.tasks.clone()));
        tasks.spawn(network::keep_external(network.clone(), stop.tasks.clone()));
        tasks.spawn(network::keep_proved(network.clone(), stop.tasks.clone()));
        tasks.spawn(network::keep_reservations(network.clone(), config.use_met_relays, stop.tasks.clone()));
        tasks.spawn(network::announce(network.clone(), config.key, stop.tasks.clone()));
        tasks.spawn(count_blocks(network.blocks(), metrics, stop.tasks.clone()));
        tasks.spawn(shared.last_scrapes().clone().keep(stop.tasks.clone()));
        tasks.spawn(link_log::keep(registry.clone(), network.links().clone(), stop.tasks.clone()));
        tasks.spawn(keep_holders(registry.clone(), group, network.links().clone(), stop.tasks.clone()));
        let enforcement = Enforcement { policy: policy.clone(), registry: registry.clone(), network: network.clone() };
        let desk = TicketDesk {
            scraper: public_key,
            bootstrap: config.bootstrap,
            policy,
            enforcement: enforcement.clone(),
            network: network.clone(),
        };
        let peers = PeerDesk::new(peer_file, enforcement.clone());
        tasks.spawn(enforcement.keep(stop.tasks.clone()));
        tasks.spawn(control.serve(registry.clone(), desk.clone(), peers.clone(), stop.tasks.clone()));
        if let Some(api) = lobby_api {
            let (limits, refusals) = (shared.connections(), Arc::clone(network.refusals()));
            http_task.spawn(api.serve(lobby, limits, refusals, stop.http.clone()));
        }
        if let Some(on_change) = on_change {
            let end = Ending { stop: stop.http.clone(), grace: DRAIN_GRACE };
            hooks.spawn(on_change.keep(Arc::clone(&shared), end));
        }
        http_task.spawn(http::serve(listener, shared, beacons, file_sd, stop.http.clone()));
        network.listeners_up().await;
        let listening = network.listening().to_vec();
        Ok(Self {
            public_key,
            http_addr,
            registration_api_addr,
            lobby_api_addr,
            listening,
            registry,
            network,
            desk,
            peers,
            reload_requests: Some(reload_requests),
            stop,
            http: http_task,
            hooks,
            tasks,
            table,
        })
    }

    /// The key that clients find it by.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// TCP address of the HTTP API; none if it is on a Unix socket.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// How many tickets clients may use.
    pub fn tickets(&self) -> usize {
        self.desk.policy.secrets().tickets()
    }

    /// Makes a ticket that may do everything, for whoever gets it, until it is revoked: `narthex ticket revoke NAME`. It is on the
    /// disk when this returns.
    ///
    /// # Errors
    /// [`IssueError`] if the name is taken or is none, nobody could find this scraper, or the disk fails.
    pub async fn create_ticket(&self, name: &str) -> Result<Ticket, IssueError> {
        self.desk.issue(Grant::of_everything(name.parse()?), &[], &[]).await
    }

    /// Puts these secrets in the place of those that the scraper was started with, and reads the rules of peers again. What was
    /// registered with a secret that is gone, or by a key that may not register any more, is released, and its links are closed,
    /// when this returns. Tickets stay.
    ///
    /// # Errors
    /// [`ReloadError`] if the rules cannot be read, when nothing has changed, or the table cannot be written.
    pub async fn reload(&self, secrets: Vec<NamedSecret>) -> Result<Reloaded, ReloadError> {
        reload::reload(&self.desk.enforcement, &self.peers, secrets).await
    }

    /// The requests by `POST /-/reload`, once: whoever runs the scraper answers each, after a call of [`Scraper::reload`].
    pub fn reload_requests(&mut self) -> Option<ReloadRequests> {
        self.reload_requests.take()
    }

    /// Address of the registration API, if there is one.
    pub fn registration_api_addr(&self) -> Option<SocketAddr> {
        self.registration_api_addr
    }

    /// Address of the lobby API, if there is one.
    pub fn lobby_api_addr(&self) -> Option<SocketAddr> {
        self.lobby_api_addr
    }

    /// Addresses that peers dial.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Returns once clients can find it by its key through a bootstrap node; without one, never.
    pub async fn announced(&self) {
        self.network.announced().await;
    }

    /// Returns once the table is loaded, from when on `/-/ready` is 200 unless the store fails.
    pub fn ready(&self) -> impl Future<Output = ()> + use<> {
        let mut generation = self.registry.changes();
        async move {
            if generation.wait_for(|generation| *generation > 0).await.is_err() {
                future::pending().await // the registry has ended before
            }
        }
    }

    /// Subscribes to events of aliases. A subscriber that is more than 1024 events behind misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<RegistryEvent> {
        self.registry.events()
    }

    /// Returns when a part of the scraper has failed; as long as all is well, never.
    pub async fn failed(&mut self) -> ScraperError {
        tokio::select! {
            ended = self.table.join_next() => match ended {
                Some(Ok(Err(error))) => error.into(),
                _ => ScraperError::TaskEnded("registry"),
            },
            _ = self.tasks.join_next() => ScraperError::TaskEnded("peer-to-peer side"),
            _ = self.http.join_next() => ScraperError::TaskEnded("HTTP side"),
            Some(_) = self.hooks.join_next() => ScraperError::TaskEnded("command at changes"),
        }
    }

    /// Lets scrapes in flight and a [`Hook`] that runs end (for up to 10 s; a hook that stays gets 5 s more to end), closes the links, and writes what the table still holds back.
    ///
    /// # Errors
    /// [`RegistryError`] if the table could not be written at the end.
    pub async fn shutdown(mut self) -> Result<(), RegistryError> {
        self.stop.http.cancel();
        let drained = async { while self.http.join_next().await.is_some() {} };
        if time::timeout(DRAIN_GRACE, drained).await.is_err() {
            tracing::warn!("scrapes in flight were cut");
            self.http.shutdown().await;
        }
        self.stop.tasks.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if time::timeout(TASK_GRACE, ended).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "tasks did not end in time and were aborted");
            self.tasks.shutdown().await;
        }
        self.stop.table.cancel();
        while let Some(ended) = self.table.join_next().await {
            ended.unwrap_or(Err(RegistryError::Stopped))?;
        }
        // Each ends itself in time.
        while self.hooks.join_next().await.is_some() {}
        Ok(())
    }
}

/// A scraper answers registrations of anybody, who must then prove a secret, farewells, which concern the peer alone, and the
/// requests of those who hold an alias in the lobby; it is never pulled from.
fn acceptors(
    registrations: mpsc::Sender<network::InboundStream>,
    farewells: mpsc::Sender<network::InboundStream>,
    lobby: mpsc::Sender<network::InboundStream>,
) -> Vec<Acceptor> {
    let (refused, _) = mpsc::channel(1);
    vec![
        Acceptor { protocol: REGISTER_PROTOCOL, firewall: Firewall::Anyone, inbox: registrations },
        Acceptor { protocol: FAREWELL_PROTOCOL, firewall: Firewall::Anyone, inbox: farewells },
        Acceptor { protocol: LOBBY_PROTOCOL, firewall: Firewall::Anyone, inbox: lobby },
        Acceptor { protocol: PULL_PROTOCOL, firewall: Firewall::Only(Admitted::default()), inbox: refused },
    ]
}

async fn count_blocks(
    mut blocks: broadcast::Receiver<FirewallBlock>,
    metrics: Arc<ScraperMetrics>,
    stop: CancellationToken,
) {
    while let Some(block) = stop.run_until_cancelled(blocks.recv()).await {
        match block {
            Ok(_) => metrics.firewall_block(),
            Err(broadcast::error::RecvError::Lagged(missed)) => (0..missed).for_each(|_| metrics.firewall_block()),
            Err(broadcast::error::RecvError::Closed) => return stop.cancelled().await,
        }
    }
}

/// Links are kept to peers that hold an alias, from the moment when the table is loaded; those of peers whose last alias
/// is gone may end. A peer without an alias twice in a row: its link is dropped. Once is not enough, as a registration may
/// be under way. Members of the group are kept as such.
async fn keep_holders(registry: Registry, group: Group, links: network::Links, stop: CancellationToken) {
    let mut generation = registry.changes();
    if stop.run_until_cancelled(generation.wait_for(|generation| *generation > 0)).await.is_none() {
        return;
    }
    links.know(holders(&registry));
    let mut upkeep = time::interval(UPKEEP_EVERY);
    let mut idle: HashSet<PublicKey> = HashSet::new();
    while stop.run_until_cancelled(upkeep.tick()).await.is_some() {
        let idle_now = needless(&registry, &group, &links);
        idle_now.intersection(&idle).for_each(|peer| links.let_go(peer));
        idle = idle_now;
    }
}

/// Peers whose links are kept for nothing.
fn needless(registry: &Registry, group: &Group, links: &network::Links) -> HashSet<PublicKey> {
    &links.kept() - &(&holders(registry) | &group.keys())
}

fn holders(registry: &Registry) -> HashSet<PublicKey> {
    registry.snapshot().map(|all| all.contents.leases.iter().map(|lease| lease.peer).collect()).unwrap_or_default()
}
/// What the registration log has of others: the names of secrets, and from where peers are linked.
fn resolve(policy: &Policy, links: &Links) -> Resolve {
    let (policy, links) = (policy.clone(), links.clone());
    Resolve {
        name_of: Box::new(move |secret| policy.secrets().name_of(secret).map(|name| name.to_string())),
        address_of: Box::new(move |peer| {
            let status = links.status(peer);
            match status.path? {
                LinkPath::Relayed => Some(AddressKind::Relayed),
                LinkPath::Direct => Some(AddressKind::of(status.address?.parse::<SocketAddr>().ok()?.ip())),
            }
        }),
    }
}
