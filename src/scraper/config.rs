//! Settings of a scraper, and the errors of settings that cannot work.

use std::{io, net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use http::HeaderName;

use super::{group::Members, http::FileSd};
use crate::{
    access::{NamedSecret, PeerFile, PeerFileError, TicketFileError},
    hook::{Hook, UnusableProgram},
    http::{BindError, Gate, HttpAddr, HttpLimits, HttpSocket, TokenFile, WebSecurity, WebSecurityError},
    identity::{DialAddress, HostPort, KeyPair, PeerAddr, SharedSecret},
    lobby::{LobbyListener, LobbyToken, NODE_EXPORTER_PORT},
    network::{self, MAX_PULL_STREAMS, NetworkError, NetworkLimits},
    registry::{RegistryConfig, RegistryError, StoreError},
    secret_file::SecretFileError,
};
#[cfg(feature = "nats")]
use crate::{
    lobby::Bus,
    nats::{NatsConfig, NatsFileError},
};

/// The port of the HTTP API.
pub const DEFAULT_HTTP_PORT: u16 = 19_960;

/// Settings of a scraper.
///
/// ```
/// use std::time::Duration;
///
/// use narthex::{KeyPair, ScraperConfig, SharedSecret, identity::HostPort, scraper::AliasPolicy};
///
/// let mut config = ScraperConfig::new(KeyPair::generate(), vec![SharedSecret::generate()], "data");
/// config.http = HostPort::new("127.0.0.1", 9960).into();
/// config.registry.policy = AliasPolicy::Pinned;
/// config.http_limits.scrape.timeout_max = Duration::from_secs(60);
/// config.limits.connections_per_peer = 4;
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct ScraperConfig {
    /// The scraper's key, by which clients find it.
    pub key: KeyPair,
    /// The secrets that clients may prove. Several, so that one can replace another by and by.
    pub secrets: Vec<NamedSecret>,
    /// The file of rules for keys: lines `allow KEY [ALIAS..]`, `allow * [ALIAS..]`, `block KEY`. With one `allow`, other keys are
    /// refused. Default: `peers` in the data directory, if it is there.
    pub peers_file: Option<PathBuf>,
    /// The directory of the table of aliases.
    pub data_dir: PathBuf,
    /// Address of the HTTP API. Default `127.0.0.1:19960`.
    pub http: HttpAddr,
    /// A socket that listens already, instead of `http`: what a service manager passes. Default: none.
    pub http_socket: Option<HttpSocket>,
    /// Addresses that peers dial; each means that TCP port and the same UDP port. Default port 19961 on every address.
    pub listen: Vec<HostPort>,
    /// Addresses that peers dial by WebSocket, without TLS, which a reverse proxy adds. Default none.
    pub listen_ws: Vec<HostPort>,
    /// Addresses to announce instead of the ones listened on, as behind a forwarded port.
    pub external: Vec<DialAddress>,
    /// Nodes through which clients find the scraper by key. Each needs its address.
    pub bootstrap: Vec<PeerAddr>,
    /// Whether a scraper with one bootstrap node may be reached through a second relay, which it meets in the DHT and which
    /// then sees who is linked to whom. Default not.
    pub use_met_relays: bool,
    /// Whether clients on the same network find the scraper by mDNS. Default not.
    pub mdns: bool,
    /// Leases, limits, alias policy.
    pub registry: RegistryConfig,
    /// Settings of the HTTP API.
    pub http_limits: HttpConfig,
    /// Limits of the peer-to-peer side.
    pub limits: NetworkLimits,
    /// Limits of registrations.
    pub registrations: RegistrationLimits,
    /// Most bytes of a log of who took which alias when, in the data directory; see `narthex log`. Default: none is kept.
    pub registration_log: Option<u64>,
    /// The scrapers that share the table with this one, where no store names them. Default none.
    #[doc(hidden)]
    pub members: Option<Members>,
    /// The store of the table, if other scrapers share it. All of them must have the same secrets. Default: none, the table
    /// is on this scraper's disk alone.
    #[cfg(feature = "nats")]
    pub store: Option<SharedStore>,
    /// A group of lobbyd's hosts, whose hosts and those of this scraper's lobby list each other. Default none.
    #[cfg(feature = "nats")]
    pub lobby_nats: Option<LobbyNats>,
}

/// The NATS over which hosts of `lobbyd` tell each other which labels they have.
#[cfg(feature = "nats")]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LobbyNats {
    /// The servers; the path of the URL is the subject, `lobby.discovery` without one.
    pub nats: NatsConfig,
    /// How long a host is listed after its last hi, 20 s at least: the `TTL` of the group. Default 30 s.
    pub ttl: Duration,
}

#[cfg(feature = "nats")]
impl LobbyNats {
    /// lobbyd's own time to live, and the default of [`Self::ttl`].
    pub const TTL: Duration = Duration::from_secs(30);

    /// The group at these servers.
    pub fn new(nats: NatsConfig) -> Self {
        Self { nats, ttl: Self::TTL }
    }

    pub(super) async fn connect(&self) -> Result<Bus, ScraperError> {
        Bus::connect(&self.nats, self.ttl).await.map_err(ScraperError::LobbyNats)
    }
}

/// A store that several scrapers share: a key-value bucket of NATS JetStream, which is made where it is missing.
#[cfg(feature = "nats")]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SharedStore {
    /// The servers; the path of the URL is the bucket's name, `narthex` without one.
    pub nats: NatsConfig,
    /// How long the table is listed while NATS cannot be reached; later `/sd` answers 503. Default 1 h.
    pub max_stale: Duration,
}

#[cfg(feature = "nats")]
impl SharedStore {
    /// The default of [`Self::max_stale`].
    pub const MAX_STALE: Duration = Duration::from_secs(60 * 60);

    /// A store at these servers.
    pub fn new(nats: NatsConfig) -> Self {
        Self { nats, max_stale: Self::MAX_STALE }
    }
}

impl ScraperConfig {
    /// The defaults, for a key, its secrets, and a directory for the table.
    pub fn new(key: KeyPair, secrets: Vec<SharedSecret>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            key,
            secrets: secrets.into_iter().map(NamedSecret::from).collect(),
            peers_file: None,
            registration_log: None,
            data_dir: data_dir.into(),
            http: HostPort::new("127.0.0.1", DEFAULT_HTTP_PORT).into(),
            http_socket: None,
            listen: network::default_listen(),
            listen_ws: Vec::new(),
            external: Vec::new(),
            bootstrap: Vec::new(),
            use_met_relays: false,
            mdns: false,
            registry: RegistryConfig::default(),
            http_limits: HttpConfig::default(),
            limits: NetworkLimits::default(),
            registrations: RegistrationLimits::default(),
            #[cfg(feature = "nats")]
            store: None,
            #[cfg(feature = "nats")]
            lobby_nats: None,
            members: None,
        }
    }

    pub(super) fn peer_file(&self) -> PeerFile {
        PeerFile::new(self.peers_file.clone(), &self.data_dir)
    }

    /// All that keeps a scraper with these settings from starting, as far as the settings and their files tell. No network is
    /// asked and nothing is written. Blocks.
    pub(crate) fn faults(&self) -> Vec<ScraperError> {
        let mut faults = Vec::new();
        let mut take = |checked: Result<(), ScraperError>| faults.extend(checked.err());
        take(self.peer_file().read().map(drop).map_err(Into::into));
        take(network::check_bootstrap(self.key.public(), &self.bootstrap).map_err(Into::into));
        let HttpConfig { file_sd, on_change, registration_api, lobby_api, .. } = &self.http_limits;
        let registration_token = registration_api.as_ref().map(|api| &api.token_file);
        let lobby_token = lobby_api.as_ref().and_then(|api| api.token_file.as_ref());
        for token in registration_token.into_iter().chain(lobby_token) {
            take(TokenFile::new(token.clone()).check().map_err(Into::into));
        }
        take(self.check_security());
        if let Some(path) = file_sd {
            take(FileSd::check(path).map_err(|source| ScraperError::FileSd { path: path.clone(), source }));
        }
        if let Some(hook) = on_change {
            take(hook.command.check().map_err(Into::into));
        }
        #[cfg(feature = "nats")]
        for nats in self.store.iter().map(|store| &store.nats).chain(self.lobby_nats.iter().map(|lobby| &lobby.nats)) {
            take(nats.check().map_err(Into::into));
        }
        faults
    }

    /// A name's address shows when it is listened on.
    fn check_security(&self) -> Result<(), ScraperError> {
        let security = &self.http_limits.security;
        let gate = Gate::open(security.clone())?;
        let is_meant = security.insecure || !gate.is_open();
        let is_local = |addr: &HostPort| addr.ip().is_none_or(|ip| ip.to_canonical().is_loopback());
        match self.http.tcp() {
            Some(addr) if !is_meant && !is_local(addr) => Err(ScraperError::Insecure(addr.clone())),
            _ => Ok(()),
        }
    }
}

/// Limits of registrations: how many exchanges of the register protocol a scraper has under way, and of whom. *At once* are
/// those whose first message is whole.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RegistrationLimits {
    /// Registrations a second of one peer. Default 10.
    pub per_second: NonZeroU32,
    /// Longest handshake, with the request after it. Default 5 s.
    pub handshake_timeout: Duration,
    /// Registrations at once of peers that hold an alias, and of strangers, who hold none. Beyond it, the source with most
    /// gives one up for a source that has clearly fewer, and so does a peer for another at its source. Default 512.
    pub in_all: usize,
    /// Registrations at once of peers that hold an alias from one source: a public IPv4 /24 or IPv6 /48, a private address,
    /// or a relay. Default 384, three quarters of all.
    pub per_address: usize,
    /// Registrations at once of one peer that holds an alias; a stranger has one. A client needs one. Default 4.
    pub per_peer: usize,
    /// Registrations at once of strangers from one public IPv4 /24 or IPv6 /48. Default 8.
    pub strangers_per_address: usize,
    /// As [`Self::strangers_per_address`], from one private address or through one relay, which many peers may share.
    /// Default 384, as many as of peers that hold an alias.
    pub strangers_per_shared_address: usize,
    /// Streams whose first message is not whole, of peers that hold an alias, and of strangers. For a newcomer the oldest of
    /// the source with most is reset. Default 512.
    pub waiting: usize,
}

impl Default for RegistrationLimits {
    fn default() -> Self {
        Self {
            per_second: NonZeroU32::new(10).expect("ten is not zero"),
            handshake_timeout: Duration::from_secs(5),
            in_all: 512,
            per_address: 384,
            per_peer: 4,
            strangers_per_address: 8,
            strangers_per_shared_address: 384,
            waiting: 512,
        }
    }
}

/// Settings of a scraper's HTTP API.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpConfig {
    /// The address to scrape in http_sd. Default: the `Host` of Prometheus's request, which is right unless Prometheus
    /// reads `/sd` by one way and scrapes by another.
    pub advertise: Option<HostPort>,
    /// A file kept as `/sd` would answer, for `file_sd_configs`. Its address to scrape is `advertise`, or else the
    /// address listened on. Default: none.
    pub file_sd: Option<PathBuf>,
    /// A command that gets what `/sd` would answer, once the table is loaded and at each change; its address to scrape is
    /// that of `file_sd`. Default: none.
    pub on_change: Option<Hook>,
    /// Most answers of `/sd`, `/api/v1/aliases` and `/metrics/aliases` being sent at once, of 6 lists at most. For a further
    /// one the reader that has taken nothing for the longest time is cut off. While all go on reading, a request waits for
    /// up to 5 s, then gets 503 with `Retry-After`. Default 64.
    pub max_sd_readers: usize,
    /// How many connections may be open.
    pub connections: HttpLimits,
    /// Names by which browsers may ask, besides `localhost`, IP addresses and the host of `advertise`; as a reverse proxy
    /// passes them on. Default none.
    pub allowed_hosts: Vec<String>,
    /// The registration API, if there is to be one. Default none.
    pub registration_api: Option<RegistrationApi>,
    /// Lobby's API for the group that agents form, if there is to be one. Default none.
    pub lobby_api: Option<LobbyApi>,
    /// Whether `POST /-/reload` asks for the settings to be read again. Default not.
    pub lifecycle: bool,
    /// Settings of scrapes.
    pub scrape: ScrapeConfig,
    /// TLS, users and rights. Default: none of these, and so no address but of this host alone.
    pub security: WebSecurity,
}

impl HttpConfig {
    /// The address to scrape in a list that nobody asks for by an address: `advertise`, or `local`, the one of TCP that is
    /// listened on.
    pub(super) fn target(&self, local: Option<SocketAddr>) -> Result<String, ScraperError> {
        match (&self.advertise, local) {
            (Some(advertise), _) => Ok(advertise.to_string()),
            (None, Some(local)) if !local.ip().is_unspecified() => Ok(local.to_string()),
            (None, local) => Err(ScraperError::NoTarget { local }),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            advertise: None,
            file_sd: None,
            on_change: None,
            max_sd_readers: 64,
            connections: HttpLimits::default(),
            allowed_hosts: Vec::new(),
            registration_api: None,
            lobby_api: None,
            lifecycle: false,
            scrape: ScrapeConfig::default(),
            security: WebSecurity::default(),
        }
    }
}

/// Settings of the registration API: the one of the Dynamic Target Registration Server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RegistrationApi {
    /// Where callers ask.
    pub listen: HostPort,
    /// The file of the token that they show. Read for every request.
    pub token_file: PathBuf,
    /// True to answer a kind that never had a beacon as the original does, with an error. Default: with an empty list.
    pub strict: bool,
}

impl RegistrationApi {
    /// With an empty list for an unknown kind.
    pub fn new(listen: HostPort, token_file: impl Into<PathBuf>) -> Self {
        Self { listen, token_file: token_file.into(), strict: false }
    }
}

/// Settings of Lobby's API.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LobbyApi {
    /// Where callers ask.
    pub listen: HostPort,
    /// The file of the token that they show, read for every request. Default: nobody need show one.
    pub token_file: Option<PathBuf>,
}

impl LobbyApi {
    /// Without a token.
    pub fn new(listen: HostPort) -> Self {
        Self { listen, token_file: None }
    }

    pub(super) async fn bind(&self) -> Result<LobbyListener, ScraperError> {
        let token = self.token_file.clone().map(TokenFile::new);
        let token = token.map_or(LobbyToken::Nothing, LobbyToken::File);
        LobbyListener::bind(&self.listen, token, NODE_EXPORTER_PORT).await.map_err(ScraperError::BindLobbyApi)
    }
}

/// Settings of scrapes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScrapeConfig {
    /// Time for a pull if the request states none (`X-Prometheus-Scrape-Timeout-Seconds`). Default 10 s.
    pub timeout_default: Duration,
    /// Longest time that a request may ask for. Default 2 min.
    pub timeout_max: Duration,
    /// How much sooner than Prometheus the scraper gives up, so that its 504 arrives before Prometheus's own timeout;
    /// never more than a tenth of the timeout. Default 500 ms.
    pub margin: Duration,
    /// Most bytes of an exposition, as it travels. A longer one is cut. Default 64 MiB.
    pub max_body: u64,
    /// Headers of a scrape that are passed on to peers beside Prometheus's own (`Accept`, `Accept-Encoding`, `User-Agent`,
    /// `X-Prometheus-*`, `traceparent`, `tracestate`). Default: none. `Authorization`, `Cookie`, `Host` and those of a
    /// connection or a body are never passed on.
    pub request_headers: Vec<HeaderName>,
    /// Most scrapes at once; beyond, the peer with most gives one up for a peer with clearly fewer, and else the new one is
    /// answered 503. Fewer than the connections of one address, so that Prometheus has one left for `/sd` and for other
    /// peers even when many peers hang. Default 3072.
    pub max_concurrent: usize,
    /// Most pulls of one peer at once, at most 64; beyond, the alias with most gives one up for an alias with clearly fewer,
    /// and else the new one waits, and is answered 503 when its time is over. Default 64.
    pub max_pulls_per_peer: usize,
    /// Most pulls of one alias at once, at most those of its peer; further ones wait, and are answered 503 when their time
    /// is over. Fewer than those of a peer, so that readers of one alias who stall leave the peer's others the rest. Default 32.
    pub max_pulls_per_alias: usize,
}

impl Default for ScrapeConfig {
    fn default() -> Self {
        Self {
            timeout_default: Duration::from_secs(10),
            timeout_max: Duration::from_secs(120),
            margin: Duration::from_millis(500),
            max_body: 64 << 20,
            request_headers: Vec::new(),
            max_concurrent: 3072,
            max_pulls_per_peer: MAX_PULL_STREAMS,
            max_pulls_per_alias: 32,
        }
    }
}

/// Why a scraper could not start, or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScraperError {
    /// The tickets in the data directory cannot be read.
    #[error(transparent)]
    Tickets(#[from] TicketFileError),
    /// The rules of peers cannot be read.
    #[error(transparent)]
    Peers(#[from] PeerFileError),
    /// The HTTP address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Others could ask over HTTP, and nobody would have to show who they are.
    #[error(
        "HTTP on {0} is for everybody who reaches it: set passwords, tokens or client certificates, listen on 127.0.0.1, or say \
         that it is meant"
    )]
    Insecure(HostPort),
    /// The files of TLS, users and rights cannot be used.
    #[error(transparent)]
    Security(#[from] WebSecurityError),
    /// A list for a file or a command is wanted of a scraper that listens on every address and advertises none.
    #[error(
        "a list for a file or a command needs an advertised address: nobody can scrape {}", shown(*.local)
    )]
    NoTarget {
        /// The address of TCP listened on, which is every address of this host; none for a Unix socket.
        local: Option<SocketAddr>,
    },
    /// The address of the registration API cannot be listened on.
    #[error("the registration API cannot be served")]
    BindRegistrationApi(#[source] BindError),
    /// The address of the lobby API cannot be listened on.
    #[error("the lobby API cannot be served")]
    BindLobbyApi(#[source] BindError),
    /// The token of the registration API, or of the lobby's, cannot be used.
    #[error(transparent)]
    Token(#[from] SecretFileError),
    /// The file of the list cannot be written: its directory is missing, or not ours to write.
    #[error("cannot write {}", path.display())]
    FileSd {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The command at changes cannot be run.
    #[error(transparent)]
    OnChange(#[from] UnusableProgram),
    /// A file of the settings for a NATS cannot be used.
    #[cfg(feature = "nats")]
    #[error(transparent)]
    NatsFile(#[from] NatsFileError),
    /// The settings for the lobby's NATS cannot be used.
    #[cfg(feature = "nats")]
    #[error("the lobby's NATS cannot be used")]
    LobbyNats(#[source] io::Error),
    /// The network could not start.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The table's store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry stopped.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A task ended that should have run for ever.
    #[error("the {0} ended unexpectedly")]
    TaskEnded(&'static str),
}

fn shown(local: Option<SocketAddr>) -> String {
    local.map_or_else(|| "a Unix socket".to_owned(), |local| format!("{local}, which is every address"))
}
