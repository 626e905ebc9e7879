//! `narthex node`: a public helper through which peers find each other by key. It knows no secret and sees no metrics.

use std::{future, num::NonZeroU32, path::PathBuf, time::Duration};

use super::{
    ConfigFile,
    check_config::{CheckConfig, Findings},
    data_dir::{self, DataDir},
    defaults, files,
    http_connections::HttpConnections,
    keys,
    peers::{Connections, Reachable},
    service_manager, signals, value,
};
use crate::{
    Node, NodeConfig, NodeError,
    identity::{HostPort, PublicKey, load_or_create_key},
    network::{self, DialBackLimits, NetworkLimits, RelayLimits},
};

/// The end of the help: what a user copies first.
const EXAMPLES: &str = "\
Examples:
  narthex node
  narthex node --relay --http 127.0.0.1:19962
  narthex node --relay --key /etc/narthex/node.key --external node.example.org:19961

The first line of its log has its public key.
To others it is --bootstrap <public key>@<host>:19961.";

/// Run a public node, through which peers find each other by key
///
/// Scrapers leave signed records of their addresses at a node, agents and clients look them up. With --relay the node
/// also carries links between peers that cannot reach each other. One node on a public address is enough to begin
/// with; several know each other by --bootstrap.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    check_config: CheckConfig,
    /// The node's key [default: node.key in the data directory, made at the first start]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Where the node keeps its key [default: $STATE_DIRECTORY, else ~/.local/state/narthex/node]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    reachable: Reachable,
    /// Carry links between peers that cannot reach each other directly; the node sees only ciphertext
    #[arg(long, env = "NARTHEX_RELAY")]
    relay: bool,
    /// The key of a scraper that others may reach through --relay, and then no other peer; repeatable
    #[arg(long, value_name = "KEY")]
    relay_for: Vec<PublicKey>,
    /// Dial peers back at private addresses too, if they ask whether they can be reached: for a lab, or a network of your own
    #[arg(long, env = "NARTHEX_ALLOW_PRIVATE_DIAL_BACK")]
    allow_private_dial_back: bool,
    /// The address of metrics, /-/healthy and /-/ready, without authentication [default: none]
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<HostPort>,
    #[command(flatten)]
    relay_limits: Relay,
    #[command(flatten)]
    connections: Connections,
    #[command(flatten)]
    http_connections: HttpConnections,
    #[command(flatten)]
    own_limits: Own,
}

/// Limits that only a node has.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
struct Own {
    /// Most announcements kept from one network (IPv4: /24, IPv6: /48); those whose owners are gone give way first
    #[arg(
        long, value_name = "N", value_parser = value::count,
        default_value_t = NetworkLimits::default().announcements_per_network
    )]
    max_announcements_per_network: usize,
    /// Most times a minute that the node dials peers back, which ask whether they can be reached
    #[arg(long, value_name = "N", value_parser = value::rate, default_value_t = DialBackLimits::default().per_minute)]
    max_dial_backs: NonZeroU32,
    /// Most times a minute that the node dials one peer back
    #[arg(
        long, value_name = "N", value_parser = value::rate,
        default_value_t = DialBackLimits::default().per_minute_of_peer
    )]
    max_dial_backs_per_peer: NonZeroU32,
}

/// Limits of the relay. They are options because a limit without --relay is bad usage.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Limits of --relay")]
struct Relay {
    #[arg(
        long, value_name = "N", value_parser = value::count,
        help = defaults::help("Most peers that others reach through this node at once", RelayLimits::default().reservations)
    )]
    relay_reservations: Option<usize>,
    #[arg(
        long, value_name = "N", value_parser = value::count,
        help = defaults::help("Most circuits at once, of all peers", RelayLimits::default().circuits)
    )]
    relay_circuits: Option<usize>,
    #[arg(
        long, value_name = "N", value_parser = value::count,
        help = defaults::help("Most circuits at once that one peer opens", RelayLimits::default().circuits_per_peer)
    )]
    relay_circuits_per_peer: Option<usize>,
    #[arg(
        long, value_name = "DURATION", value_parser = value::duration,
        help = defaults::help(
            "Longest life of a circuit; its ends then build another",
            defaults::duration(RelayLimits::default().circuit_duration)
        )
    )]
    relay_circuit_duration: Option<Duration>,
    #[arg(
        long, value_name = "BYTES", value_parser = value::circuit_bytes,
        help = defaults::help(
            "Most bytes of a circuit, both directions together, at least 64KiB; its ends then build another",
            defaults::bytes(RelayLimits::default().circuit_bytes)
        )
    )]
    relay_circuit_bytes: Option<u64>,
}

impl Relay {
    /// The flag of a limit that was given.
    fn given(&self) -> Option<&'static str> {
        let flags = [
            ("--relay-reservations", self.relay_reservations.is_some()),
            ("--relay-circuits", self.relay_circuits.is_some()),
            ("--relay-circuits-per-peer", self.relay_circuits_per_peer.is_some()),
            ("--relay-circuit-duration", self.relay_circuit_duration.is_some()),
            ("--relay-circuit-bytes", self.relay_circuit_bytes.is_some()),
        ];
        flags.into_iter().find_map(|(flag, given)| given.then_some(flag))
    }
}

impl From<Relay> for RelayLimits {
    fn from(relay: Relay) -> Self {
        let usual = Self::default();
        Self {
            reservations: relay.relay_reservations.unwrap_or(usual.reservations),
            circuits: relay.relay_circuits.unwrap_or(usual.circuits),
            circuits_per_peer: relay.relay_circuits_per_peer.unwrap_or(usual.circuits_per_peer),
            circuit_duration: relay.relay_circuit_duration.unwrap_or(usual.circuit_duration),
            circuit_bytes: relay.relay_circuit_bytes.unwrap_or(usual.circuit_bytes),
        }
    }
}

impl Args {
    /// Checks what no single value shows.
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.relay_for.is_empty() && !self.relay {
            return Err("--relay-for restricts --relay, which is not given".to_owned());
        }
        match self.relay_limits.given() {
            Some(flag) if !self.relay => Err(format!("{flag} is a limit of --relay, which is not given")),
            _ => self.reachable.check(&[("--http", self.http.as_ref())]),
        }
    }

    /// Reads the files that [`settings`](Self::settings) would.
    fn check_files(&self) -> anyhow::Result<()> {
        let mut found = Findings::default();
        let kept = data_dir::kept(self.data_dir.as_deref(), "node", "node.key");
        if let Some(path) = self.key.clone().or(kept)
            && let Some(key) = found.take(keys::load_key(&path))
        {
            found.take(network::check_bootstrap(key.public(), &self.reachable.bootstrap).map_err(NodeError::from));
        }
        found.take(data_dir::check(self.data_dir.as_deref(), "node"));
        found.conclude()
    }

    /// Reads or makes the key. The data directory is the node's until it is dropped.
    pub(super) fn settings(self) -> anyhow::Result<(NodeConfig, DataDir)> {
        let data_dir = DataDir::take(self.data_dir.as_deref(), "node")?;
        let key = match &self.key {
            Some(path) => keys::load_key(path)?,
            None => load_or_create_key(&data_dir.path().join("node.key"))?,
        };
        let config = NodeConfig {
            key,
            listen: self.reachable.listen,
            listen_ws: self.reachable.listen_ws,
            bootstrap: self.reachable.bootstrap,
            external: self.reachable.external,
            relay: self.relay.then(|| self.relay_limits.into()),
            relay_for: self.relay_for,
            dial_back: DialBackLimits {
                per_minute: self.own_limits.max_dial_backs,
                per_minute_of_peer: self.own_limits.max_dial_backs_per_peer,
                private: self.allow_private_dial_back,
            },
            http: self.http,
            http_limits: self.http_connections.into(),
            limits: NetworkLimits {
                announcements_per_network: self.own_limits.max_announcements_per_network,
                ..self.connections.into()
            },
        };
        Ok((config, data_dir))
    }
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    if args.check_config.asked {
        return args.check_files();
    }
    let stop = signals::stop()?;
    signals::ignore_hangup()?;
    let (mut config, data_dir) = args.settings()?;
    let open_files = files::raise_limit();
    if config.http.is_some() {
        files::fit(open_files, &config.limits, &mut config.http_limits);
    }
    let mut node = Node::start(config).await?;
    let http = node.http_addr().map(tracing::field::display);
    tracing::info!(key = %node.public_key(), listen = ?node.listening(), http, %data_dir, open_files, "node runs");
    tokio::select! {
        () = stop.cancelled() => {}
        () = node.failed() => anyhow::bail!("the network task ended unexpectedly"),
        never = service_manager::keep_told(future::ready(())) => match never {},
    }
    service_manager::stopping();
    node.shutdown().await;
    tracing::info!("node ended");
    Ok(())
}
