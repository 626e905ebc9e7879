//! `narthex scraper`: keeps the alias table beside Prometheus, pulls metrics over the peers' links, answers over HTTP.

use std::{
    env,
    num::NonZeroU32,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use anyhow::{Context, bail};
use http::HeaderName;
use tokio::{
    signal::unix::{SignalKind, signal},
    task,
};

use super::{
    ConfigFile,
    check_config::{CheckConfig, Findings},
    data_dir,
    defaults::{self, SCRAPER},
    files,
    http_connections::HttpConnections,
    keys,
    on_change::OnChange,
    peers::{Connections, Reachable},
    secret_tables::SecretTables,
    service_manager, signals, value,
    web::Web,
};
use crate::{
    Scraper, ScraperConfig,
    access::{NamedSecret, SecretName},
    identity::{HostPort, KeyPair, load_or_create_key},
    registry::RegistryConfig,
    scraper::{
        AliasPolicy, HttpAddr, HttpConfig, HttpSocket, LobbyApi, LobbyNats, NatsConfig, NatsUrl, RegistrationApi,
        RegistrationLimits, Reloaded, ScrapeConfig, SharedStore,
    },
};

/// The key's file in the data directory, if no other is given.
pub(super) const KEY_FILE: &str = "scraper.key";

/// The end of the help: what a user copies first.
const EXAMPLES: &str = "\
Examples:
  narthex scraper                                   then, for each client: narthex ticket create NAME
  narthex keygen && narthex secret
  narthex scraper --key keys/scraper.key --secret-file keys/fleet.secret
  narthex scraper --config /etc/narthex/scraper.toml

In prometheus.yml:
  scrape_configs:
    - job_name: narthex
      http_sd_configs:
        - url: http://127.0.0.1:19960/sd
          refresh_interval: 15s

DURATION is 90s, 5m, 3h. PEER is <public key>@<host>:<port>. BYTES is 65536, 64KiB, 64MiB.";

/// Run the scraper: keep the alias table, pull metrics, answer Prometheus
///
/// Prometheus reads http://127.0.0.1:19960/sd and scrapes the listed targets through this process. Clients find the
/// scraper by its public key. SIGTERM and Ctrl-C end it after the scrapes in flight.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    check_config: CheckConfig,
    /// The scraper's key, as narthex keygen writes it [default: scraper.key in the data directory, made at the first start]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// A shared secret that clients may prove, beside those of tickets; several while one replaces another
    #[arg(long, value_name = "FILE")]
    secret_file: Vec<PathBuf>,
    /// The `[[secret]]` tables of the configuration file.
    #[arg(skip)]
    pub(super) secret_tables: SecretTables,
    /// Rules for keys, a line each: allow KEY [ALIAS..], allow * [ALIAS..], block KEY; read again at SIGHUP. Without this flag,
    /// peers in the data directory, if it is there
    #[arg(long, value_name = "FILE")]
    peers: Option<PathBuf>,
    /// Keep a log of who took which alias when, by which secret, and why it ended, in the data directory; see narthex log
    #[arg(long, env = "NARTHEX_REGISTRATION_LOG")]
    registration_log: bool,
    /// Most bytes of that log: the oldest of its files are dropped
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = value::log_bytes)]
    registration_log_size: u64,
    /// Where the scraper keeps the alias table [default: $STATE_DIRECTORY, else
    /// ~/.local/state/narthex/scraper]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where Prometheus asks, or a reverse proxy: unix:PATH is a socket for this user and group. An address that others
    /// reach needs --web.config.file or --web.users-file with users, or --web.insecure
    #[arg(long, value_name = "HOST:PORT", default_value_t = SCRAPER.http.clone())]
    http: HttpAddr,
    #[command(flatten)]
    web: Web,
    /// The address of the HTTP side that /sd lists [default: the address that Prometheus asked]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<HostPort>,
    /// A name by which browsers may ask, as a reverse proxy passes the name on, besides IP addresses, localhost and the host
    /// of --advertise; repeatable
    #[arg(long, value_name = "HOST", value_parser = value::host)]
    http_allowed_host: Vec<String>,
    /// A header of a scrape that every peer receives, beside Accept, Accept-Encoding, User-Agent, X-Prometheus-*, traceparent
    /// and tracestate; repeatable
    #[arg(long, value_name = "NAME", value_parser = value::request_header)]
    request_header: Vec<HeaderName>,
    /// A file with the same list as /sd, for file_sd_configs of a Prometheus on this host
    #[arg(long, value_name = "FILE")]
    file_sd: Option<PathBuf>,
    #[command(flatten)]
    registration_api: RegistrationApiArgs,
    #[command(flatten)]
    lobby_api: LobbyApiArgs,
    #[command(flatten)]
    lobby_nats: LobbyNatsArgs,
    #[command(flatten)]
    on_change: OnChange,
    #[command(flatten)]
    reachable: Reachable,
    #[command(flatten)]
    store: StoreArgs,
    /// With one --bootstrap node, be reached through a second relay that this scraper meets in the DHT; that relay sees who is
    /// linked to whom
    #[arg(long, env = "NARTHEX_USE_MET_RELAYS")]
    use_met_relays: bool,
    /// Let clients on the same local network find this scraper by its key, without a node
    #[arg(long, env = "NARTHEX_MDNS")]
    mdns: bool,
    /// Life of a registration that is not renewed; clients renew at a third of it
    #[arg(
        long, value_name = "DURATION", value_parser = value::duration,
        default_value = defaults::duration(SCRAPER.registry.lease)
    )]
    lease: Duration,
    /// How long a lapsed alias stays listed, so that up == 0 can alert
    #[arg(
        long, value_name = "DURATION", value_parser = value::duration_or_zero,
        default_value = defaults::duration(SCRAPER.registry.retention)
    )]
    retention: Duration,
    /// When another key, with a valid secret, may take an alias that is held
    #[arg(long, value_name = "POLICY", value_parser = value::alias_policy(), default_value_t = SCRAPER.registry.policy)]
    alias_policy: AliasPolicy,
    /// How long a holder must be away until another key may take its alias under the policy live: without a link, or,
    /// of an agent or another client that keeps its key, past the end of its lease
    #[arg(
        long, value_name = "DURATION", value_parser = value::duration_or_zero,
        default_value = defaults::duration(SCRAPER.registry.takeover_grace)
    )]
    takeover_grace: Duration,
    /// How long holders count as linked after a start, before they have reconnected
    #[arg(
        long, value_name = "DURATION", value_parser = value::duration_or_zero,
        default_value = defaults::duration(SCRAPER.registry.start_grace)
    )]
    start_grace: Duration,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    connections: Connections,
    #[command(flatten)]
    http_connections: HttpConnections,
}

/// The API of the Dynamic Target Registration Server.
#[derive(Clone, Debug, clap::Args)]
struct RegistrationApiArgs {
    /// Where callers /register, /unregister and /list by HTTP, as with the Dynamic Target Registration Server; what names
    /// targets is in /sd, too
    #[arg(long, value_name = "HOST:PORT", requires = "registration_token_file")]
    registration_api: Option<HostPort>,
    /// The token that those callers show in Authorization; read for every request
    #[arg(long, value_name = "FILE", requires = "registration_api")]
    registration_token_file: Option<PathBuf>,
    /// Answer /list of a kind that never had an entry with an error, as the original does, and not with an empty list
    #[arg(long, env = "NARTHEX_REGISTRATION_STRICT", requires = "registration_api")]
    registration_strict: bool,
}

/// A table that several scrapers share.
#[derive(Debug, clap::Args)]
pub(super) struct StoreArgs {
    /// NATS with JetStream, in which several scrapers share one table: nats://HOST:PORT or tls://.., further servers after
    /// commas, then a slash and the name of the bucket (narthex without one), which is made if it is missing. All
    /// scrapers need the same secrets. The data directory has a copy
    #[arg(long, env = "NARTHEX_STORE", value_name = "URL")]
    store: Option<NatsUrl>,
    /// The credentials for that NATS, as nsc writes them
    #[arg(long, value_name = "FILE", requires = "store")]
    store_credentials_file: Option<PathBuf>,
    /// The authorities by which that NATS's certificates are checked, PEM, instead of the system's
    #[arg(long, value_name = "FILE", requires = "store")]
    store_ca_file: Option<PathBuf>,
    /// How long the table is listed while that NATS cannot be reached; later /sd answers 503
    #[arg(
        long, value_name = "DURATION", value_parser = value::duration,
        default_value = defaults::duration(SharedStore::MAX_STALE)
    )]
    store_stale: Duration,
}

impl StoreArgs {
    fn config(self) -> Option<SharedStore> {
        let max_stale = self.store_stale;
        let mut shared = SharedStore::new(self.nats()?);
        shared.max_stale = max_stale;
        Some(shared)
    }

    /// Where the table is.
    pub(super) fn nats(self) -> Option<NatsConfig> {
        let mut nats = NatsConfig::new(self.store?);
        (nats.credentials_file, nats.ca_file) = (self.store_credentials_file, self.store_ca_file);
        Some(nats)
    }
}

/// Lobby's API.
#[derive(Clone, Debug, clap::Args)]
struct LobbyApiArgs {
    /// Where callers ask for the hosts of the lobby by HTTP, as with lobbyd; hosts come by narthex agent --lobby
    #[arg(long, value_name = "HOST:PORT")]
    lobby_api: Option<HostPort>,
    /// The token that those callers show in Authorization; without it none is asked for
    #[arg(long, value_name = "FILE", requires = "lobby_api")]
    lobby_token_file: Option<PathBuf>,
}

impl LobbyApiArgs {
    fn config(self) -> Option<LobbyApi> {
        let mut api = LobbyApi::new(self.lobby_api?);
        api.token_file = self.lobby_token_file;
        Some(api)
    }
}

/// The bus of lobbyd's.
#[derive(Debug, clap::Args)]
struct LobbyNatsArgs {
    /// List the hosts of lobbyd's that talk over this NATS, and list ours to them: lobbyd's NATS_URL, nats://HOST:PORT, with further
    /// servers after commas, and after a slash the subject (lobby.discovery without one)
    #[arg(long, env = "NARTHEX_LOBBY_NATS", value_name = "URL")]
    lobby_nats: Option<NatsUrl>,
    /// How long a host of that NATS is listed after it was last heard of, 20s or more: the TTL of lobbyd's hosts
    #[arg(
        long, value_name = "DURATION", value_parser = value::duration,
        default_value = defaults::duration(LobbyNats::TTL)
    )]
    lobby_nats_ttl: Duration,
}

impl LobbyNatsArgs {
    fn config(self) -> Option<LobbyNats> {
        let mut nats = LobbyNats::new(NatsConfig::new(self.lobby_nats?));
        nats.ttl = self.lobby_nats_ttl;
        Some(nats)
    }
}

impl RegistrationApiArgs {
    fn config(self) -> Option<RegistrationApi> {
        let api = RegistrationApi::new(self.registration_api?, self.registration_token_file?);
        Some(RegistrationApi { strict: self.registration_strict, ..api })
    }
}

/// Limits of pulls and of the table.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
struct Limits {
    /// Longest pull, if the request has no X-Prometheus-Scrape-Timeout-Seconds
    #[arg(
        long, value_name = "DURATION", value_parser = value::duration,
        default_value = defaults::duration(SCRAPER.http_limits.scrape.timeout_default)
    )]
    pull_timeout: Duration,
    /// Largest exposition, as it travels; the scraper cuts a longer one, which fails the scrape
    #[arg(
        long, value_name = "BYTES", value_parser = value::bytes,
        default_value = defaults::bytes(SCRAPER.http_limits.scrape.max_body)
    )]
    max_body: u64,
    /// Most pulls of one peer at once, 64 or fewer; the alias with most makes room for others; else further ones wait, then
    /// get 503
    #[arg(
        long, value_name = "N", value_parser = value::count,
        default_value_t = SCRAPER.http_limits.scrape.max_pulls_per_peer
    )]
    max_pulls_per_peer: usize,
    /// Most pulls of one alias at once, at most those of its peer; further ones wait, then get 503
    #[arg(
        long, value_name = "N", value_parser = value::count,
        default_value_t = SCRAPER.http_limits.scrape.max_pulls_per_alias
    )]
    max_pulls_per_alias: usize,
    /// Most scrapes at once; the peer with most makes room for others; else further ones get 503
    #[arg(long, value_name = "N", value_parser = value::count, default_value_t = SCRAPER.http_limits.scrape.max_concurrent)]
    max_scrapes: usize,
    /// Most aliases in the table; the scraper refuses a further one
    #[arg(long, value_name = "N", value_parser = value::count, default_value_t = SCRAPER.registry.max_targets)]
    max_aliases: usize,
    /// Most aliases of one peer
    #[arg(long, value_name = "N", value_parser = value::count, default_value_t = SCRAPER.registry.max_per_peer)]
    max_aliases_per_peer: usize,
    /// Most aliases registered with one shared secret; the scraper refuses a further one [default: --max-aliases divided by
    /// the number of secrets; the token of --registration-api counts as one]
    #[arg(long, value_name = "N", value_parser = value::count)]
    max_aliases_per_secret: Option<usize>,
    /// Most bytes of one alias in /sd, where labels are listed twice
    #[arg(
        long, value_name = "BYTES", value_parser = value::bytes,
        default_value = defaults::bytes(SCRAPER.registry.max_alias_bytes)
    )]
    max_alias_bytes: u64,
    /// Most bytes of one peer's aliases in /sd
    #[arg(
        long, value_name = "BYTES", value_parser = value::bytes,
        default_value = defaults::bytes(SCRAPER.registry.max_peer_bytes)
    )]
    max_peer_bytes: u64,
    /// Most bytes in /sd of the aliases registered with one shared secret [default: --max-table-bytes divided by the number of
    /// secrets; the token of --registration-api counts as one]
    #[arg(long, value_name = "BYTES", value_parser = value::bytes)]
    max_secret_bytes: Option<u64>,
    /// Most bytes of all aliases in /sd; the scraper holds them in memory
    #[arg(
        long, value_name = "BYTES", value_parser = value::bytes,
        default_value = defaults::bytes(SCRAPER.registry.max_table_bytes)
    )]
    max_table_bytes: u64,
    /// Most answers of /sd, /api/v1/aliases and /metrics/aliases being sent; a further one cuts off a reader that has stalled,
    /// or waits, and then gets 503
    #[arg(long, value_name = "N", value_parser = value::count, default_value_t = SCRAPER.http_limits.max_sd_readers)]
    max_sd_readers: usize,
    /// Most registrations a second of one peer; the scraper asks a faster one to slow down
    #[arg(long, value_name = "N", value_parser = value::rate, default_value_t = SCRAPER.registrations.per_second)]
    max_registration_rate: NonZeroU32,
    /// Most registrations at once of peers that hold an alias, and as many of strangers; beyond it, the source with most gives
    /// one up
    #[arg(long, value_name = "N", value_parser = value::count, default_value_t = SCRAPER.registrations.in_all)]
    max_registrations: usize,
    /// Most registrations at once of peers that hold an alias from one public network (IPv4 /24, IPv6 /48), from one
    /// private address, or through one relay
    #[arg(long, value_name = "N", value_parser = value::count, default_value_t = SCRAPER.registrations.per_address)]
    max_registrations_per_ip: usize,
    /// Most registrations at once of one peer that holds an alias; a stranger has one
    #[arg(long, value_name = "N", value_parser = value::count, default_value_t = SCRAPER.registrations.per_peer)]
    max_registrations_per_peer: usize,
    /// Most registrations whose first message is not whole, of peers that hold an alias, and as many of strangers
    #[arg(long, value_name = "N", value_parser = value::count, default_value_t = SCRAPER.registrations.waiting)]
    max_waiting_registrations: usize,
    /// Most registrations at once of strangers from one public network (IPv4 /24, IPv6 /48)
    #[arg(long, value_name = "N", value_parser = value::count, default_value_t = SCRAPER.registrations.strangers_per_address)]
    max_strangers_per_ip: usize,
    /// Most registrations at once of strangers from one private address, or through one relay
    #[arg(long, value_name = "N", value_parser = value::count, default_value_t = SCRAPER.registrations.strangers_per_shared_address)]
    max_strangers_per_shared_ip: usize,
    /// Longest register handshake
    #[arg(
        long, value_name = "DURATION", value_parser = value::duration,
        default_value = defaults::duration(SCRAPER.registrations.handshake_timeout)
    )]
    handshake_timeout: Duration,
}

impl Args {
    /// Checks what no single value shows.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(file) = value::duplicate(&self.secret_file) {
            return Err(format!("--secret-file {} is given twice", file.display()));
        }
        let unreachable = match &self.http {
            HttpAddr::Tcp(addr) if addr.ip().is_some_and(|ip| ip.is_unspecified()) => Some("every address"),
            HttpAddr::Tcp(_) => None,
            HttpAddr::Unix(_) => Some("a socket"),
        };
        let pushed = [("--file-sd", self.file_sd.is_some()), ("--on-change", self.on_change.is_given())];
        let pushed = pushed.iter().find(|(_, given)| *given);
        if let (Some((flag, _)), None, Some(what)) = (pushed, &self.advertise, unreachable) {
            return Err(format!(
                "{flag} needs --advertise HOST:PORT here: --http {} is {what}, which nobody can scrape",
                self.http
            ));
        }
        self.reachable.check(&[
            ("--http", self.http.tcp()),
            ("--lobby-api", self.lobby_api.lobby_api.as_ref()),
            ("--registration-api", self.registration_api.registration_api.as_ref()),
        ])
    }

    /// Reads the files that the flags name, as [`settings`](Self::settings) and the scraper would. A key or secret that cannot be
    /// read is no reason to leave the others unread.
    fn check_files(self) -> anyhow::Result<()> {
        let mut found = Findings::default();
        let kept = data_dir::kept(self.data_dir.as_deref(), "scraper", KEY_FILE);
        let key = self.key.clone().or(kept).and_then(|path| found.take(keys::load_key(&path)));
        let key = key.unwrap_or_else(KeyPair::generate);
        let secrets = found.take(self.secrets());
        let data_dir = found.take(data_dir::check(self.data_dir.as_deref(), "scraper")).unwrap_or_default();
        let config = self.config(key, secrets.unwrap_or_default(), data_dir);
        for fault in config.faults() {
            found.take(Err::<(), _>(fault));
        }
        found.conclude()
    }

    /// Reads the files that the flags name, and makes the data directory.
    pub(super) fn settings(self) -> anyhow::Result<ScraperConfig> {
        let given = self.key.as_deref().map(keys::load_key).transpose()?;
        let secrets = self.secrets()?;
        let data_dir = data_dir::prepare(self.data_dir.as_deref(), "scraper")?;
        let key = given.map_or_else(|| own_key(&data_dir.join(KEY_FILE)), Ok)?;
        Ok(self.config(key, secrets, data_dir))
    }

    /// The secrets of the flags and of the configuration, read from their files.
    fn secrets(&self) -> anyhow::Result<Vec<NamedSecret>> {
        let mut secrets = keys::load_secrets(&self.secret_file)?;
        let from_flags: Vec<SecretName> = secrets.iter().map(|secret| secret.name.clone()).collect();
        for table in self.secret_tables.read()? {
            if let Some(other) = secrets.iter().find(|other| other.secret == table.secret) {
                bail!("secret {} is the same as secret {}: make another with narthex secret", table.name, other.name);
            }
            if let Some(other) = from_flags.iter().find(|name| **name == table.name) {
                bail!("[[secret]] {other:?} has the name of a --secret-file, which is its file's: give another name");
            }
            secrets.push(table);
        }
        Ok(secrets)
    }

    fn config(self, key: KeyPair, secrets: Vec<NamedSecret>, data_dir: PathBuf) -> ScraperConfig {
        ScraperConfig {
            secrets,
            peers_file: self.peers,
            registration_log: self.registration_log.then_some(self.registration_log_size),
            http: self.http,
            listen: self.reachable.listen,
            listen_ws: self.reachable.listen_ws,
            external: self.reachable.external,
            bootstrap: self.reachable.bootstrap,
            use_met_relays: self.use_met_relays,
            mdns: self.mdns,
            registry: RegistryConfig {
                lease: self.lease,
                retention: self.retention,
                policy: self.alias_policy,
                max_targets: self.limits.max_aliases,
                max_per_peer: self.limits.max_aliases_per_peer,
                max_per_secret: self.limits.max_aliases_per_secret,
                takeover_grace: self.takeover_grace,
                max_alias_bytes: self.limits.max_alias_bytes,
                max_peer_bytes: self.limits.max_peer_bytes,
                max_secret_bytes: self.limits.max_secret_bytes,
                max_table_bytes: self.limits.max_table_bytes,
                start_grace: self.start_grace,
                ..RegistryConfig::default()
            },
            http_limits: HttpConfig {
                advertise: self.advertise,
                file_sd: self.file_sd,
                on_change: self.on_change.into(),
                max_sd_readers: self.limits.max_sd_readers,
                connections: self.http_connections.into(),
                allowed_hosts: self.http_allowed_host,
                registration_api: self.registration_api.config(),
                lobby_api: self.lobby_api.config(),
                lifecycle: self.web.enable_lifecycle,
                security: self.web.into(),
                scrape: ScrapeConfig {
                    timeout_default: self.limits.pull_timeout,
                    max_body: self.limits.max_body,
                    max_pulls_per_alias: self.limits.max_pulls_per_alias,
                    max_pulls_per_peer: self.limits.max_pulls_per_peer,
                    max_concurrent: self.limits.max_scrapes,
                    request_headers: self.request_header,
                    ..ScrapeConfig::default()
                },
            },
            limits: self.connections.into(),
            registrations: RegistrationLimits {
                per_second: self.limits.max_registration_rate,
                handshake_timeout: self.limits.handshake_timeout,
                in_all: self.limits.max_registrations,
                per_address: self.limits.max_registrations_per_ip,
                per_peer: self.limits.max_registrations_per_peer,
                strangers_per_address: self.limits.max_strangers_per_ip,
                strangers_per_shared_address: self.limits.max_strangers_per_shared_ip,
                waiting: self.limits.max_waiting_registrations,
            },
            store: self.store.config(),
            lobby_nats: self.lobby_nats.config(),
            ..ScraperConfig::new(key, Vec::new(), data_dir)
        }
    }
}

/// Reads the command line's files again. Logged; the error is one line.
async fn reload(scraper: &Scraper) -> Result<(), String> {
    match reread(scraper).await {
        Ok(Reloaded { secrets, released, peers, .. }) => {
            tracing::info!(secrets, released, peers, "settings read again");
            Ok(())
        }
        Err(error) => {
            let error = format!("{error:#}");
            tracing::error!(error, "the settings stay as they were");
            Err(error)
        }
    }
}

async fn reread(scraper: &Scraper) -> anyhow::Result<Reloaded> {
    let secrets = task::spawn_blocking(|| match super::parse(env::args_os())?.command {
        super::Command::Scraper(args) => args.secrets(),
        _ => bail!("this is no scraper"),
    });
    Ok(scraper.reload(secrets.await??).await?)
}

pub(super) async fn run(args: Args, http_socket: Option<HttpSocket>) -> anyhow::Result<()> {
    if args.check_config.asked {
        return args.check_files();
    }
    let stop = signals::stop()?;
    let mut hangups = signal(SignalKind::hangup())?;
    let mut config = args.settings()?;
    config.http_socket = http_socket;
    let mut http = config.http.to_string();
    if let Some(socket) = &config.http_socket {
        http = socket.to_string();
        tracing::info!(at = http, "HTTP on the socket that systemd passes, and not where --http says");
    }
    let data_dir = config.data_dir.display().to_string();
    let open_files = files::raise_limit();
    files::fit(open_files, &config.limits, &mut config.http_limits.connections);
    let secrets = config.secrets.len();
    let mut scraper = Scraper::start(config).await?;
    tracing::info!(
        key = %scraper.public_key(),
        secrets,
        http = scraper.http_addr().map_or(http, |addr| addr.to_string()),
        lobby_api = scraper.lobby_api_addr().map(tracing::field::display),
        registration_api = scraper.registration_api_addr().map(tracing::field::display),
        listen = ?scraper.listening(),
        %data_dir,
        open_files,
        "scraper runs"
    );
    if secrets == 0 && scraper.tickets() == 0 {
        tracing::warn!("nobody can register yet: narthex ticket create NAME makes a ticket for a client");
    }
    let mut reloads = scraper.reload_requests().context("the requests are taken once")?;
    let mut told = pin!(service_manager::keep_told(scraper.ready()));
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            failure = scraper.failed() => return Err(failure.into()),
            Some(()) = hangups.recv() => {
                let _ = reload(&scraper).await; // it is logged
            }
            asked = reloads.next() => asked.answer(reload(&scraper).await),
            never = &mut told => match never {},
        }
    }
    service_manager::stopping();
    scraper.shutdown().await?;
    tracing::info!("scraper ended");
    Ok(())
}

/// The key in the data directory, made at the first start; not in the midst of a rotation, whose clients know another one.
fn own_key(file: &Path) -> anyhow::Result<KeyPair> {
    let beside = |what| file.with_extension(format!("{what}.key"));
    if !file.exists() && (beside("next").exists() || beside("old").exists()) {
        bail!("{} is missing, and a key of a rotation is beside it; see narthex key rotate", file.display());
    }
    Ok(load_or_create_key(file)?)
}
