//! `narthex doctor`: goes through the chain step by step, with the code that the roles run, and says what is wrong.
//!
//! A check is a function that gives a [`Check`](report::Check); `client_side` and `scraper_side` put them in order. It
//! dials under a key of its own that is thrown away, claims nothing, and leaves nothing behind.

mod client_side;
mod clock;
mod exporter;
mod files;
mod link;
mod lookup;
mod nat;
mod node;
mod place;
mod presence;
mod registering;
mod report;
mod running;
mod scraper_side;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context;
use http::Uri;

use super::{
    ConfigFile, data_dir,
    value::{self, TargetUrl},
};
use crate::{
    agent::{self, TargetSpec},
    identity::{HostPort, PeerAddr, PublicKey},
    wire::Alias,
};

use client_side::ClientSide;
use report::Report;
use scraper_side::ScraperSide;

/// Find out what is wrong: go through the chain step by step, beside an exporter or beside Prometheus
///
/// With --scraper it looks from an agent's or a service's place: files, exporters, nodes, NAT, the look-up of the
/// scraper, the link, the secret, the aliases. Without, from the scraper's: files, HTTP side, ports, nodes, relays,
/// announcement, a pull. Give it the flags, or the --config file, of what does not work. It may be run beside a
/// running agent or scraper: it takes no alias and changes nothing.
///
/// One line per check: ok, failed with the reason and what to do, or skipped. Exit code 0 if nothing failed, else 1.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Look from a client's place: the scraper that it should register with; repeatable
    #[arg(long, env = "NARTHEX_SCRAPER", value_name = "PEER", value_parser = value::peer)]
    scraper: Vec<PeerAddr>,
    /// The shared secret; at a scraper repeatable
    #[arg(long, env = "NARTHEX_SECRET_FILE", value_name = "FILE")]
    secret_file: Vec<PathBuf>,
    /// The key: the scraper's, or the agent's [default: the agent's in its data directory]
    #[arg(long, env = "NARTHEX_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Where the agent or the scraper keeps its data [default: as they do]
    #[arg(long, env = "NARTHEX_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A node through which scrapers are found by their keys; repeatable
    #[arg(long, env = "NARTHEX_BOOTSTRAP", value_name = "PEER", value_parser = value::bootstrap)]
    bootstrap: Vec<PeerAddr>,
    /// Find the scrapers on the local network too, as the agent does
    #[arg(long, env = "NARTHEX_MDNS")]
    mdns: bool,
    /// An alias: is it free for the client, or can it be pulled by the scraper; repeatable [default: those of the targets]
    #[arg(long, env = "NARTHEX_ALIAS", value_name = "ALIAS")]
    alias: Vec<Alias>,
    /// What the agent registers: is the exporter there; repeatable
    #[arg(long, env = "NARTHEX_TARGET", value_name = "ALIAS=URL")]
    target: Vec<TargetUrl>,
    /// HTTP side of the running scraper, as HOST:PORT or URL
    #[arg(
        long, env = "NARTHEX_HTTP", value_name = "HOST:PORT", default_value = "127.0.0.1:19960",
        value_parser = value::http_side
    )]
    http: Uri,
    /// Where the scraper listens for peers; repeatable
    #[arg(long, env = "NARTHEX_LISTEN", value_name = "HOST:PORT", default_values = ["0.0.0.0:19961", "[::]:19961"])]
    listen: Vec<HostPort>,
    /// Longest wait for each answer
    #[arg(
        long, env = "NARTHEX_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = value::duration
    )]
    timeout: Duration,
    /// Print one JSON document at the end: an array of {check, status, detail, advice}
    #[arg(long)]
    json: bool,
}

impl Args {
    /// What no single value can tell.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.secret_file.is_empty() {
            return Err("--secret-file FILE is needed".into());
        }
        if self.scraper.is_empty() {
            return match (&self.key, self.target.is_empty()) {
                (Some(_), true) => Ok(()),
                (Some(_), false) => {
                    Err("--target is an agent's: say with --scraper which scraper it registers with".into())
                }
                (None, _) => Err("give --scraper PEER beside an exporter, or --key FILE beside the scraper".into()),
            };
        }
        if self.secret_file.len() > 1 {
            return Err("a client has one --secret-file".into());
        }
        match self.scraper.iter().find(|scraper| scraper.hint.is_none()) {
            Some(scraper) if self.bootstrap.is_empty() && !self.mdns => Err(format!(
                "scraper {} cannot be found by its key alone: add @<host>:<port> to it, or give --bootstrap or --mdns",
                short(&scraper.key)
            )),
            _ => Ok(()),
        }
    }

    fn client_side(self) -> anyhow::Result<ClientSide> {
        let targets = self.targets()?;
        let aliases = match self.alias.is_empty() {
            true => targets.iter().map(|target| target.target.alias.clone()).collect(),
            false => self.alias,
        };
        let key_file = self.key.or_else(|| data_dir::kept(self.data_dir.as_deref(), "agent", "agent.key"));
        let secret_file = self.secret_file.into_iter().next().context("no secret file is given")?;
        let wait = self.timeout;
        Ok(ClientSide {
            wait,
            scrapers: self.scraper,
            nodes: self.bootstrap,
            mdns: self.mdns,
            secret_file,
            key_file,
            targets,
            aliases,
        })
    }

    /// As the agent has them: `--target` beats the tables of the file.
    fn targets(&self) -> anyhow::Result<Vec<TargetSpec>> {
        if self.target.is_empty()
            && let Some(path) = &self.config.config
        {
            return Ok(agent::parse_config(path, &fs::read_to_string(path)?)?);
        }
        Ok(self.target.iter().map(|target| TargetSpec::new(target.alias.clone(), target.url.clone())).collect())
    }

    fn scraper_side(self) -> anyhow::Result<ScraperSide> {
        Ok(ScraperSide {
            wait: self.timeout,
            key_file: self.key.context("no key is given")?,
            secret_files: self.secret_file,
            data_dir: self.data_dir,
            http: self.http,
            listen: self.listen,
            nodes: self.bootstrap,
            aliases: self.alias,
        })
    }
}

/// Makes every check; an error if one fails.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let mut report = Report::new(args.json);
    if args.scraper.is_empty() {
        args.scraper_side()?.examine(&mut report).await?;
    } else {
        args.client_side()?.examine(&mut report).await?;
    }
    report.end()
}

/// Enough of a key to tell which one is meant.
fn short(key: &PublicKey) -> String {
    format!("{:.8}..", key.to_string())
}

const EXAMPLES: &str = "\
Examples:
  an agent does not register:
    narthex doctor --scraper KEY@scraper.example.org:19961 --secret-file fleet.secret \\
        --target host-1=http://127.0.0.1:9100/metrics
  the scraper is to be found by its key:
    narthex doctor --scraper KEY --bootstrap NODEKEY@node.example.org:19961 --secret-file fleet.secret
  with what the agent itself was given:
    narthex doctor --config /etc/narthex/agent.toml
  Prometheus gets nothing, or agents do not find the scraper:
    narthex doctor --key keys/scraper.key --secret-file keys/fleet.secret --bootstrap NODEKEY@node.example.org:19961
  for a program:
    narthex doctor --config /etc/narthex/agent.toml --json | jq -r '.[] | select(.status == \"failed\") | .advice'

PEER is <public key> or <public key>@<host>:<port>. Start it as the user that runs the agent or the scraper.";
