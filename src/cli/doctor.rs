//! `narthex doctor`: goes through the chain step by step, with the code that the roles run, and reports what is wrong.
//!
//! A check is a function that gives a [`Check`](report::Check); `client_side` and `scraper_side` put the checks in order. The
//! doctor dials with a fresh key, claims no alias, and leaves nothing behind.

mod client_side;
mod clock;
mod expected_peer;
mod exporter;
mod files;
mod link;
mod long_packets;
mod lookup;
mod nat;
mod node;
mod presence;
mod reachability;
mod registering;
mod report;
mod running_scraper;
mod scraper_side;
mod store;
mod targets;

use std::{path::PathBuf, time::Duration};

use clap::{ArgMatches, Command, FromArgMatches};

use super::{
    ConfigFile, agent, data_dir,
    defaults::SCRAPER,
    http_config::Credentials,
    scraper,
    scraper_url::ScraperUrl,
    ticket_input::TicketFlags,
    value::{self, TargetUrl},
};
use crate::{
    identity::{HostPort, PeerAddr},
    nats::NatsConfig,
    wire::Alias,
};

use report::Report;

/// Flags of an agent that the help of the doctor lists as well.
const LISTED_FLAGS: [&str; 3] = ["ticket_file", "targets_dir", "self_alias"];

/// The end of the help: what a user copies first.
const EXAMPLES: &str = "\
Examples:
  an agent does not register:
    narthex doctor --ticket-file host-1.ticket --target host-1=http://127.0.0.1:9100/metrics
    narthex doctor --scraper KEY@scraper.example.org:19961 --secret-file fleet.secret \\
        --target host-1=http://127.0.0.1:9100/metrics
  the scraper is to be found by its key:
    narthex doctor --scraper KEY --bootstrap NODEKEY@node.example.org:19961 --secret-file fleet.secret
  with what the agent itself was given:
    narthex doctor --config /etc/narthex/agent.toml
  Prometheus gets nothing, or agents do not find the scraper:
    narthex doctor --bootstrap NODEKEY@node.example.org:19961
    narthex doctor --key keys/scraper.key --secret-file keys/fleet.secret --bootstrap NODEKEY@node.example.org:19961
  for a program:
    narthex doctor --config /etc/narthex/agent.toml --json | jq -r '.[] | select(.status == \"failed\") | .advice'

PEER is <public key> or <public key>@<host>:<port>. Start it as the user that runs the agent or the scraper.";

/// Find out what is wrong: go through the chain step by step, beside an exporter or beside Prometheus
///
/// With --ticket-file or --scraper it checks the agent's side, or a service's: files, exporters, nodes, NAT, the look-up of the
/// scraper, the link, the secret, the aliases. Without, it checks the scraper's side: files, HTTP side, ports, secret,
/// nodes, relays, announcement, a pull. Give it the flags, or the --config file, of what does not work: it takes every
/// flag of narthex agent and narthex scraper, also those that mean nothing to it and are not listed here. It may be run
/// beside a running agent or scraper: it takes no alias and changes nothing.
///
/// One line per check: ok, failed with the reason and what to do, warning (it works, but) with the same, or skipped.
/// Exit code 0 if nothing failed, else 1.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct Flags {
    #[command(flatten)]
    config: ConfigFile,
    /// Check the client's side: the scraper that it should register with; repeatable
    #[arg(long, value_name = "PEER", value_parser = value::peer)]
    scraper: Vec<PeerAddr>,
    /// The shared secret; at a scraper repeatable
    #[arg(long, value_name = "FILE")]
    secret_file: Vec<PathBuf>,
    /// The key: the scraper's, or the agent's [default: the one in the data directory]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Where the agent or the scraper keeps its data [default: as they do]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A node through which scrapers are found by their keys; repeatable
    #[arg(long, value_name = "PEER", value_parser = value::bootstrap)]
    bootstrap: Vec<PeerAddr>,
    /// Find the scrapers on the local network too, as the agent does
    #[arg(long, env = "NARTHEX_MDNS")]
    mdns: bool,
    /// An alias: is it free for the client, or can it be pulled by the scraper; repeatable [default: those of the targets]
    #[arg(long, value_name = "ALIAS")]
    alias: Vec<Alias>,
    /// What the agent registers: is the exporter there; repeatable
    #[arg(long, value_name = "ALIAS=URL")]
    target: Vec<TargetUrl>,
    /// HTTP side of the running scraper, as HOST:PORT or URL
    #[arg(long, value_name = "HOST:PORT", default_value = SCRAPER.http.to_string(), value_parser = ScraperUrl::of_http_side)]
    http: ScraperUrl,
    /// Where the scraper listens for peers; repeatable
    #[arg(long, value_name = "HOST:PORT", default_values_t = SCRAPER.listen.clone())]
    listen: Vec<HostPort>,
    /// Longest wait for each answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = value::duration)]
    timeout: Duration,
    #[command(flatten)]
    credentials: Credentials,
    /// Print one JSON document at the end: an array of {check, status, detail, advice}
    #[arg(long)]
    json: bool,
}

/// The doctor's flags, and all others of an agent and of a scraper.
#[derive(Debug)]
pub(super) struct Args {
    flags: Flags,
    /// What an agent makes of them, if they are one's.
    agent: Option<Box<agent::Args>>,
    /// Where the scraper's table is, if others share it.
    store: Option<NatsConfig>,
}

impl clap::Args for Args {
    fn augment_args(command: Command) -> Command {
        let agent = agent::Args::augment_args(Command::new("agent"));
        let scraper = scraper::Args::augment_args(Command::new("scraper"));
        let others = agent.get_arguments().chain(scraper.get_arguments());
        others.fold(Flags::augment_args(command), |command, other| {
            let id = other.get_id();
            let known = command.get_arguments().any(|arg| arg.get_id() == id);
            // What a role needs, the doctor may do without.
            let other = || other.clone().required(false).hide(!LISTED_FLAGS.contains(&id.as_str()));
            if known { command } else { command.arg(other()) }
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Args {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = Flags::from_arg_matches(matches)?;
        let ticket = TicketFlags::from_arg_matches(matches)?;
        // Without a secret file there is no agent; `check` reports that with an error of ours.
        let is_agent = ticket.is_given() || (!flags.scraper.is_empty() && !flags.secret_file.is_empty());
        let agent = is_agent.then(|| agent::Args::from_arg_matches(matches)).transpose()?;
        let store = scraper::StoreArgs::from_arg_matches(matches)?.nats();
        Ok(Self { flags, agent: agent.map(Box::new), store })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Flags {
    /// The key's file beside a scraper: the given one, or that of the data directory.
    fn scraper_key(&self) -> Option<PathBuf> {
        self.key.clone().or_else(|| data_dir::kept(self.data_dir.as_deref(), "scraper", scraper::KEY_FILE))
    }
}

impl Args {
    /// What depends on more than one value.
    pub(super) fn check(&self) -> Result<(), String> {
        let flags = &self.flags;
        if let Some(agent) = self.agent.as_ref().filter(|agent| agent.ticket.is_given()) {
            return agent.check_flags();
        }
        match &self.agent {
            Some(_) if flags.secret_file.len() > 1 => Err("a client has one --secret-file".into()),
            Some(agent) => agent.check_flags(),
            None if !flags.scraper.is_empty() => Err("--secret-file FILE is needed".into()),
            None if flags.scraper_key().is_none() => {
                Err("give --ticket-file FILE, or --scraper PEER and --secret-file FILE, \
                 beside an exporter; beside the scraper its --data-dir, or --key FILE"
                    .into())
            }
            None if !flags.target.is_empty() => {
                Err("--target is an agent's: name with --scraper the scraper that it registers with".into())
            }
            None => Ok(()),
        }
    }
}

/// Makes every check; an error if one fails.
pub(super) async fn run(Args { mut flags, agent, store }: Args) -> anyhow::Result<()> {
    let mut report = Report::new(flags.json);
    match agent {
        Some(agent) => client_side::examine(&mut flags, &agent, &mut report).await?,
        None => scraper_side::examine(&flags, store.as_ref(), &mut report).await?,
    }
    report.end()
}
