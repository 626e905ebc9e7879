//! `narthex agent`: registers unmodified exporters, and answers a scraper's pulls for them.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    fs, future,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::broadcast,
    task::{self, JoinSet},
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    ConfigFile,
    check_config::{CheckConfig, Findings},
    data_dir::{self, DataDir},
    keys, link, lobby,
    output::shortened,
    service_manager, signals,
    ticket_input::TicketFlags,
    value::{self, Label, TargetUrl},
};
use crate::{
    Client,
    agent::{Inventory, TargetSpec},
    client::{self, Event, EventKind, MAX_TARGETS},
    identity::{KeyPair, PeerAddr, PublicKey, SharedSecret, load_or_create_key},
    telemetry::Chain,
    wire::{Labels, TargetError},
};

/// The error of an agent without any target.
const NOTHING: &str = "there is nothing to register: give --target ALIAS=URL, --targets-dir DIR, or [[target]] tables in \
                       the --config file";

/// The error of an agent without a scraper.
const NOBODY: &str = "give --ticket-file FILE, or --scraper PEER and --secret-file FILE";

/// The ways to say with whom the agent registers.
const USAGE: &str = "\
narthex agent [OPTIONS] --ticket-file <FILE> --target <ALIAS=URL>
       narthex agent [OPTIONS] --scraper <PEER> --secret-file <FILE> --target <ALIAS=URL>
       narthex agent [OPTIONS] --config <FILE>";

/// The end of the help: what a user copies first.
const EXAMPLES: &str = "\
Examples:
  narthex agent --ticket-file ticket --target host-1=http://127.0.0.1:9100
  narthex agent --scraper KEY@scraper.example.org:19961 --secret-file fleet.secret \\
      --target host-1=http://127.0.0.1:9100/metrics --service node --label region=eu
  narthex agent --scraper KEY --bootstrap NODEKEY@node.example.org:19961 \\
      --secret-file fleet.secret --target host-1=http://127.0.0.1:9100 --target db-1=http://127.0.0.1:9187
  narthex agent --config /etc/narthex/agent.toml --targets-dir /etc/narthex/targets
  narthex agent --config /etc/narthex/agent.toml

The last one's file:
  scraper = [\"KEY@scraper.example.org:19961\"]
  secret-file = \"/etc/narthex/fleet.secret\"
  label = [\"region=eu\"]

  [[target]]
  alias = \"host-1\"
  url = \"http://127.0.0.1:9100\"

  [[target]]
  alias = \"db-1\"
  url = \"https://127.0.0.1:9187\"
  service = \"postgres\"
  ca_file = \"ca.pem\"

PEER is <public key> or <public key>@<host>:<port>.
ALIAS is 1 to 128 of A-Z a-z 0-9 . _ -, unique at the scraper.";

/// Run an agent: register exporters under aliases and answer the scraper's pulls
///
/// The agent asks only the URLs given here, and answers only the scrapers given here and those that they name as members of
/// their group. SIGTERM and Ctrl-C release the
/// aliases, so that Prometheus drops the targets at once and without an alert. SIGHUP re-reads the [[target]] tables of
/// the --config file and the directories of --targets-dir.
///
/// The agent dials out. With --bootstrap it also listens for hole punching, on TCP and UDP ports of the kernel's choice
/// on every address, and lets in only its scrapers; without --bootstrap it listens nowhere.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = USAGE)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    check_config: CheckConfig,
    /// Public key of a scraper, and the address to try first; repeatable, the agent registers every target with all of them
    #[arg(long, value_name = "PEER", value_parser = value::peer)]
    scraper: Vec<PeerAddr>,
    /// The secret shared with the scrapers, as narthex secret writes it
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) ticket: TicketFlags,
    /// An alias and the URL of its exporter; a URL without a path means /metrics; repeatable
    ///
    /// The URL is http://, https:// or unix:/run/x.sock:/metrics. A table [[target]] of the --config file, or a file of
    /// --targets-dir, can set more for a target.
    #[arg(long, value_name = "ALIAS=URL")]
    target: Vec<TargetUrl>,
    /// A directory of target files (*.toml, *.json, Prometheus's file_sd too), read again and again; repeatable
    #[arg(long, value_name = "DIR")]
    targets_dir: Vec<PathBuf>,
    /// How often the agent reads the directories of --targets-dir
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = value::duration)]
    targets_refresh: Duration,
    /// Label service of each target that sets no service itself
    #[arg(long, value_name = "NAME", default_value = "", value_parser = value::service, hide_default_value = true)]
    service: String,
    /// A label of each target that does not set this label itself; repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<Label>,
    /// Label hostname of each target [default: this host's name]
    #[arg(long, value_name = "NAME", value_parser = value::hostname)]
    hostname: Option<String>,
    /// The agent's own key [default: agent.key in the data directory, made at the first start]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Where the agent keeps its key and known addresses [default: $STATE_DIRECTORY, else ~/.local/state/narthex/agent]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Register with the given scrapers alone, and not with others that they name as members of their group
    ///
    /// Scrapers that keep one table together name each other. An agent that was given one of them links and registers with
    /// another, too, so that its targets stay scraped when one dies; it remembers the group in the data directory.
    #[arg(long, env = "NARTHEX_ONLY_GIVEN_SCRAPERS")]
    only_given_scrapers: bool,
    /// A node through which the agent finds scrapers by their keys; repeatable
    #[arg(long, value_name = "PEER", value_parser = value::bootstrap)]
    bootstrap: Vec<PeerAddr>,
    /// Find scrapers on the same local network by their keys, if the scrapers run with --mdns too
    #[arg(long, env = "NARTHEX_MDNS")]
    mdns: bool,
    #[command(flatten)]
    pub(super) link: link::Flags,
    #[command(flatten)]
    lobby: lobby::LobbyFlags,
}

impl Args {
    /// Checks what no single value shows.
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_flags()?;
        if self.inventory().map_err(|error| format!("{error:#}"))?.is_empty() {
            return Err(NOTHING.into());
        }
        Ok(())
    }

    /// Checks the flags together, without the files that they name.
    pub(super) fn check_flags(&self) -> Result<(), String> {
        if let Some(alias) = value::duplicate(self.target.iter().map(|target| &target.alias)) {
            return Err(format!("alias {alias} is given to two targets"));
        }
        if let Some(own) = &self.link.self_alias
            && self.target.iter().any(|target| target.alias == *own)
        {
            return Err(format!("alias {own} is given to a target and to --self-alias"));
        }
        if self.target.len() > MAX_TARGETS {
            return Err(format!("{} targets are too many for one agent: limit is {MAX_TARGETS}", self.target.len()));
        }
        if let Some(name) = value::duplicate(self.label.iter().map(|label| &label.name)) {
            return Err(format!("label {name} is given twice"));
        }
        if !self.ticket.is_given() && (self.scraper.is_empty() || self.secret_file.is_none()) {
            return Err(NOBODY.into());
        }
        if let Some(key) = value::duplicate(self.scraper.iter().map(|scraper| scraper.key)) {
            return Err(format!("scraper {} is given twice", shortened(&key)));
        }
        self.lobby.check()?;
        match self.scraper.iter().find(|scraper| scraper.hint.is_none()) {
            Some(scraper) if self.bootstrap.is_empty() && !self.mdns => Err(format!(
                "scraper {} cannot be found by its key alone: add @<host>:<port> to it, or give --bootstrap or --mdns",
                shortened(&scraper.key)
            )),
            _ => Ok(()),
        }
    }

    /// Reads the files that the flags name. The data directory is the agent's until it is dropped.
    pub(super) fn settings(mut self) -> anyhow::Result<(client::ClientBuilder, DataDir)> {
        let secret = self.join()?;
        let data_dir = DataDir::take(self.data_dir.as_deref(), "agent")?;
        let key = match &self.key {
            Some(path) => keys::load_key(path)?,
            None => load_or_create_key(&data_dir.path().join("agent.key"))?,
        };
        let path = data_dir.path().to_owned();
        Ok((self.builder(secret, key, &path)?, data_dir))
    }

    /// The secret to prove. A ticket also says where the scrapers are.
    fn join(&mut self) -> anyhow::Result<SharedSecret> {
        if let Some(ticket) = self.ticket.read()? {
            self.ticket = TicketFlags::default(); // standard input is read once
            self.scraper.splice(..0, ticket.scrapers().iter().cloned());
            self.bootstrap.extend(ticket.bootstrap().iter().cloned());
            return Ok(ticket.secret().clone());
        }
        keys::load_secret(self.secret_file.as_deref().context(NOBODY)?)
    }

    fn builder(self, secret: SharedSecret, key: KeyPair, data_dir: &Path) -> anyhow::Result<client::ClientBuilder> {
        let mut scrapers = self.scraper.into_iter();
        let first = scrapers.next().context("no scraper is given")?;
        let mut builder =
            Client::builder(first, secret).key(key).bootstrap(self.bootstrap).mdns(self.mdns).data_dir(data_dir);
        for scraper in scrapers {
            builder = builder.scraper(scraper);
        }
        builder = self.link.apply(builder.learn_group(!self.only_given_scrapers), &self.label);
        if let Some(hostname) = self.hostname {
            builder = builder.hostname(hostname);
        }
        Ok(builder)
    }

    /// Reads the files that the flags name and those of the targets, and puts the client together without starting it.
    fn check_files(mut self) -> anyhow::Result<()> {
        let mut found = Findings::default();
        let secret = found.take(self.join());
        let kept = data_dir::kept(self.data_dir.as_deref(), "agent", "agent.key");
        let key = match self.key.clone().or(kept) {
            Some(path) => found.take(keys::load_key(&path)),
            None => Some(KeyPair::generate()),
        };
        let data_dir = found.take(data_dir::check(self.data_dir.as_deref(), "agent"));
        found.take(self.lobby.clone().settings(self.hostname.as_deref()));
        let unread = self.targets_dir.iter().filter(|dir| found.take(read_targets_dir(dir)).is_none());
        let unread: Vec<String> = unread.map(|dir| format!("cannot read {}:", dir.display())).collect();
        let (targets, problems) = self.inventory()?.survey();
        for problem in problems.into_iter().filter(|problem| !unread.iter().any(|dir| problem.starts_with(dir))) {
            found.take(Err::<(), _>(anyhow::Error::msg(problem)));
        }
        let targets: Vec<_> = targets.iter().map(TargetSpec::rehearse).collect();
        if let (Some(secret), Some(key), Some(data_dir)) = (secret, key, data_dir) {
            let builder = self.builder(secret, key, &data_dir)?.targets_later();
            let builder = targets.iter().fold(builder, |builder, (target, _)| builder.target(target.clone()));
            found.take(builder.verify());
        }
        for unusable in targets.into_iter().flat_map(|(_, unusable)| unusable) {
            found.take(Err::<(), _>(unusable));
        }
        found.conclude()
    }

    /// The targets as far as they are known. `--target` beats the file, as each flag does.
    pub(super) fn inventory(&self) -> anyhow::Result<Inventory> {
        let spec = |target: &TargetUrl| TargetSpec::new(target.alias.clone(), target.url.clone());
        let mut inventory = Inventory::default();
        inventory.fixed = self.target.iter().map(spec).collect();
        inventory.fixed_origin = "--target".into();
        inventory.service = self.service.clone();
        inventory.labels = labels(&self.label)?;
        inventory.reserved = self.link.self_alias.clone();
        if self.target.is_empty()
            && let Some(path) = &self.config.config
        {
            inventory = inventory.config(path.clone())?;
        }
        Ok(self.targets_dir.iter().cloned().fold(inventory, Inventory::directory))
    }

    /// The file whose `[[target]]` tables `--target` beats.
    fn unused_tables(&self) -> Option<&Path> {
        let path = self.config.config.as_deref().filter(|_| !self.target.is_empty())?;
        Inventory::default().config(path.to_owned()).is_ok_and(|inventory| !inventory.is_empty()).then_some(path)
    }
}

/// Runs until a signal comes, or until every scraper has refused the targets for good.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    if args.check_config.asked {
        return args.check_files();
    }
    let (stop, hang_ups) = (signals::stop()?, signal(SignalKind::hangup())?);
    args.targets_dir.iter().try_for_each(|dir| read_targets_dir(dir))?;
    if let Some(path) = args.unused_tables() {
        tracing::warn!(file = %path.display(), "its [[target]] tables are not used: --target beats them");
    }
    let mut inventory = args.inventory()?;
    let refresh = args.targets_refresh;
    let lobby = args.lobby.clone().settings(args.hostname.as_deref())?;
    let (builder, data_dir) = args.settings()?;
    let scrapers: BTreeSet<PublicKey> = builder.scrapers().collect();
    let targets = inventory.read().unwrap_or_default();
    let count = targets.len();
    let client = targets.into_iter().fold(builder.targets_later(), client::ClientBuilder::target).start().await?;
    let mut events = client.events();
    let (mut part, leave) = (JoinSet::new(), CancellationToken::new());
    if let Some(lobby) = lobby {
        part.spawn(lobby.bind(&client).await?.keep(leave.clone()));
    }
    tracing::info!(key = %client.public_key(), scrapers = scrapers.len(), targets = count, %data_dir, "agent runs");
    let outcome = tokio::select! {
        () = stop.cancelled() => Ok(()),
        refusal = refused_by_all(&mut events, &scrapers) => Err(refusal),
        Some(_) = part.join_next() => Err(anyhow::anyhow!("the agent's part in the lobby ended unexpectedly")),
        failure = keep_up(inventory, refresh, hang_ups, &client) => failure.map(|never| match never {}),
        never = service_manager::keep_told(future::ready(())) => match never {},
    };
    service_manager::stopping();
    leave.cancel();
    while part.join_next().await.is_some() {}
    client.shutdown().await;
    tracing::info!("agent ended");
    outcome
}

fn read_targets_dir(dir: &Path) -> anyhow::Result<()> {
    let read =
        fs::read_dir(dir).with_context(|| format!("cannot read the directory {} of --targets-dir", dir.display()));
    read.map(drop)
}

/// Re-reads the directories at an interval, and all targets at SIGHUP. The client gets the changed targets.
async fn keep_up(
    mut inventory: Inventory,
    refresh: Duration,
    mut hang_ups: Signal,
    client: &Client,
) -> anyhow::Result<Infallible> {
    let mut polls = time::interval(refresh);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refused = false;
    loop {
        client.set_target_problems(inventory.problems().len() + usize::from(refused));
        let reload = tokio::select! {
            _ = polls.tick(), if inventory.has_directories() => false,
            Some(()) = hang_ups.recv() => true,
            else => future::pending().await,
        };
        let read = task::spawn_blocking(move || {
            if reload {
                inventory.reload_config();
            }
            let targets = inventory.read();
            (inventory, targets)
        });
        let targets;
        (inventory, targets) = read.await.context("targets could not be read")?;
        let count = targets.as_ref().map(Vec::len);
        let taken = targets.map(|targets| client.set_targets(targets));
        refused = taken.as_ref().map_or(refused, Result::is_err);
        match taken {
            Some(Ok(())) => tracing::info!(targets = count, "targets have changed"),
            Some(Err(error)) => tracing::error!(error = %Chain(&error), "the changed targets cannot be registered"),
            None if reload => tracing::info!("re-read the targets: nothing has changed"),
            None => {}
        }
    }
}

/// Returns once every given scraper has refused the agent for a reason that only a changed setting mends, and none has registered it.
/// A scraper that registered the agent once is tried for ever, because its setting may be about to change.
async fn refused_by_all(events: &mut broadcast::Receiver<Event>, given: &BTreeSet<PublicKey>) -> anyhow::Error {
    let mut refused = BTreeSet::new();
    loop {
        match events.recv().await.map(|event| event.kind) {
            Ok(EventKind::RegisterFailed { scraper, error, .. }) if error.needs_operator() => {
                refused.insert(scraper);
                if refused.is_superset(given) {
                    return anyhow::Error::new(error).context("the registration was refused");
                }
            }
            Ok(EventKind::Registered { .. }) => break,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => break,
        }
    }
    future::pending().await
}

fn labels(given: &[Label]) -> Result<Labels, TargetError> {
    let mut labels = Labels::default();
    for Label { name, value } in given {
        labels.insert(name, value)?;
    }
    Ok(labels)
}
