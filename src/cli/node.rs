//! `narthex node`: a public helper through which peers find each other by key. It knows no secret and sees no metrics.

use std::path::PathBuf;

use super::{ConfigFile, data_dir::DataDir, files, keys, scraper::Connections, signals, value};
use crate::{
    Node, NodeConfig,
    identity::{HostPort, PeerAddr, load_or_create_key},
    network::RelayLimits,
};

/// Run a public node: the place where peers find each other by key
///
/// Scrapers leave signed records of their addresses here, agents and clients look them up. One node on a public
/// address is enough to begin with; several know each other by --bootstrap.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// The node's key [default: node.key in the data directory, made at the first start]
    #[arg(long, env = "NARTHEX_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Where the key is kept [default: $STATE_DIRECTORY, else ~/.local/state/narthex/node]
    #[arg(long, env = "NARTHEX_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where peers connect: UDP for QUIC and the same TCP port; repeatable
    #[arg(long, env = "NARTHEX_LISTEN", value_name = "HOST:PORT", default_values = ["0.0.0.0:19961", "[::]:19961"])]
    listen: Vec<HostPort>,
    /// Another node; repeatable
    #[arg(long, env = "NARTHEX_BOOTSTRAP", value_name = "PEER", value_parser = value::bootstrap)]
    bootstrap: Vec<PeerAddr>,
    /// The address that others reach this node at, where it cannot know it itself (behind a port forward); repeatable
    #[arg(long, env = "NARTHEX_EXTERNAL", value_name = "HOST:PORT", value_parser = value::external)]
    external: Vec<HostPort>,
    /// Carry links between peers that cannot reach each other directly; sees only ciphertext
    #[arg(long, env = "NARTHEX_RELAY")]
    relay: bool,
    #[command(flatten)]
    connections: Connections,
}

impl Args {
    /// Reads or makes the key. The data directory is the node's until it is dropped.
    fn settings(self) -> anyhow::Result<(NodeConfig, DataDir)> {
        let data_dir = DataDir::take(self.data_dir.as_deref(), "node")?;
        let key = match &self.key {
            Some(path) => keys::load_key(path)?,
            None => load_or_create_key(&data_dir.path().join("node.key"))?,
        };
        let limits = self.connections.limits();
        let config = NodeConfig {
            key,
            listen: self.listen,
            bootstrap: self.bootstrap,
            external: self.external,
            relay: self.relay.then(RelayLimits::default),
            limits,
        };
        Ok((config, data_dir))
    }
}

/// Runs until a signal asks for the end.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let stop = signals::stop()?;
    signals::ignore_hangup()?;
    let (config, data_dir) = args.settings()?;
    let open_files = files::raise_limit();
    let mut node = Node::start(config).await?;
    tracing::info!(key = %node.public_key(), listen = ?node.listening(), %data_dir, open_files, "node runs");
    tokio::select! {
        () = stop.cancelled() => {}
        () = node.failed() => anyhow::bail!("the network task ended unexpectedly"),
    }
    node.shutdown().await;
    tracing::info!("node ended");
    Ok(())
}

const EXAMPLES: &str = "\
Examples:
  narthex node
  narthex node --key /etc/narthex/node.key --external node.example.org:19961

Its public key stands in the first line of its log; others name it --bootstrap <public key>@<host>:19961.";
