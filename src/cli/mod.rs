//! The command line: one file per subcommand, from flags to a running role or a printed answer.
//!
//! Flags beat the environment (`NARTHEX_*`), which beats `--config FILE.toml`; see `precedence`. Results go to stdout, one
//! line of error to stderr, logs to stderr. Exit 0 for success, 1 for failure, 2 for bad usage; see `output`.

mod advice;
mod agent;
mod alias;
mod check_config;
mod control;
mod data_dir;
mod defaults;
mod demo;
mod doctor;
mod environment;
mod export;
mod file_sd;
mod files;
mod help;
mod hints;
mod http_config;
mod http_connections;
mod import;
mod key_rotation;
mod keys;
mod link;
mod listeners;
mod lobby;
mod managed_files;
mod node;
mod on_change;
mod output;
mod peer;
mod peers;
mod polling;
mod precedence;
#[cfg(test)]
mod reference;
mod registration_log;
mod render;
mod scrape;
mod scraper;
mod scraper_api;
mod scraper_url;
mod secret_tables;
mod service_manager;
mod signals;
mod targets;
mod template;
mod ticket;
mod ticket_input;
mod value;
mod web;

use std::{ffi::OsString, future::Future, path::PathBuf, time::Duration};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use output::report;

pub use crate::telemetry::log;
use crate::telemetry::{
    LONG_VERSION,
    log::{LogFilter, LogFormat},
};

/// Longest wait for blocked threads at the end.
const LEFTOVERS: Duration = Duration::from_secs(2);
/// Heading of the flags that all commands have.
const LOGGING: &str = "Logging";

/// The end of the help: what a user copies first.
const EXAMPLES: &str = "\
Examples:
  narthex demo                                      see it work, on this machine alone
  narthex keygen && narthex secret                  beside Prometheus: a key and a secret, in keys/
  narthex scraper --key keys/scraper.key --secret-file keys/fleet.secret
  narthex agent --scraper KEY@scraper.example.org:19961 --secret-file fleet.secret \\
      --target host-1=http://127.0.0.1:9100/metrics
  narthex targets                                   what the scraper beside you lists
  narthex doctor --help                             when it does not work: find out why

A flag that takes a value is also a variable: --data-dir is NARTHEX_DATA_DIR.
'narthex help COMMAND' has details.";

/// Prometheus scrapes services that have no reachable address.
///
/// A service registers an alias with a scraper by the scraper's public key and a shared secret. The scraper, beside
/// Prometheus, pulls the metrics over an encrypted peer-to-peer link and lists the service by http_sd. No port of the
/// service has to be reachable, and nobody keeps a list of targets by hand.
#[derive(Debug, Parser)]
#[command(name = "narthex", version = LONG_VERSION, propagate_version = true, arg_required_else_help = false, after_help = EXAMPLES)]
pub struct Cli {
    /// What narthex logs to stderr: off, error, warn, info, debug, trace, or a list such as info,narthex::registry=debug
    #[arg(long, default_value = "info", value_name = "LEVEL", global = true, help_heading = LOGGING)]
    pub log_level: LogFilter,
    /// The format of log lines
    #[arg(long, default_value = "logfmt", value_name = "FORMAT", global = true, help_heading = LOGGING)]
    pub log_format: LogFormat,
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands, each with the help of its arguments.
#[derive(Debug, Subcommand)]
#[expect(private_interfaces, reason = "main passes a command on and looks into none")]
pub enum Command {
    Keygen(keys::Keygen),
    Secret(keys::Secret),
    Key(keys::Key),
    Scraper(Box<scraper::Args>),
    Agent(Box<agent::Args>),
    Node(node::Args),
    Demo(demo::Args),
    Targets(targets::Args),
    Scrape(scrape::Args),
    Alias(alias::Args),
    Export(export::Args),
    Import(import::Args),
    Doctor(doctor::Args),
    FileSd(file_sd::Args),
    Template(template::Args),
    Ticket(Box<ticket::Args>),
    Peer(peer::Args),
    Log(registration_log::Args),
}

/// Reads flags, environment and `--config` file.
///
/// # Errors
/// An error for [`report`]: help on stdout, or a line on stderr and exit 2.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<Cli> {
    let line = precedence::CommandLine::read(command(), args.into_iter().collect());
    let usage = |message: String| output::usage(&message, &line.words);
    if !line.words.is_empty() {
        environment::check(&command()).map_err(usage)?;
    }
    let (command, origins, secrets) = precedence::apply(help::readable(command()), &line).map_err(usage)?;
    let cli = command
        .try_get_matches_from(&line.args)
        .and_then(|mut matches| {
            let exposed = matches.subcommand().and_then(|(_, inner)| ticket_input::exposed(inner));
            Ok((Cli::from_arg_matches_mut(&mut matches)?, exposed))
        })
        .map_err(|error| output::from_clap(error, &line.words, &line.args, &origins))?;
    let (mut cli, exposed) = cli;
    if let Some(exposed) = exposed {
        return Err(usage(exposed.to_owned()));
    }
    match &mut cli.command {
        Command::Scraper(args) => {
            args.secret_tables = secrets;
            args.check()
        }
        Command::Agent(args) => args.check(),
        Command::Node(args) => args.check(),
        Command::Doctor(args) => args.check(),
        _ => Ok(()),
    }
    .map_err(usage)?;
    Ok(cli)
}

/// The commands that ask the scraper beside them, often in the environment of that scraper, whose variables are not meant for
/// them. The data directory is.
const ASKING: [&str; 4] = ["ticket", "peer", "log", "key"];

/// The command, in which each flag that takes a value is also a variable: `--data-dir` is `NARTHEX_DATA_DIR`.
fn command() -> clap::Command {
    fn with_variables(command: clap::Command, is_asking: bool) -> clap::Command {
        let is_asking = is_asking || ASKING.contains(&command.get_name());
        let with_variable = |arg: clap::Arg| match arg.get_long().filter(|_| arg.get_action().takes_values()) {
            Some(flag) if !is_asking || flag == "data-dir" => {
                let name = format!("{}{}", environment::PREFIX, flag.to_uppercase().replace(['-', '.'], "_"));
                arg.env(name)
            }
            _ => arg,
        };
        command.mut_args(with_variable).mut_subcommands(|inner| with_variables(inner, is_asking))
    }
    with_variables(Cli::command(), false)
}

/// Runs a subcommand to its end.
///
/// # Errors
/// The failure of the subcommand, with its causes.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Keygen(args) => args.run(),
        Command::Secret(args) => args.run(),
        Command::Key(args) => args.run(),
        Command::Scraper(args) => {
            let http_socket = service_manager::passed_socket()?;
            block_on(scraper::run(*args, http_socket))
        }
        Command::Agent(args) => block_on(agent::run(*args)),
        Command::Node(args) => block_on(node::run(args)),
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Targets(args) => block_on(args.run()),
        Command::Scrape(args) => block_on(args.run()),
        Command::Alias(args) => block_on(args.run()),
        Command::Export(args) => block_on(export::run(args)),
        Command::Import(args) => args.run(),
        Command::Doctor(args) => block_on(doctor::run(args)),
        Command::FileSd(args) => block_on(file_sd::run(args)),
        Command::Template(args) => block_on(template::run(args)),
        Command::Ticket(args) => block_on(args.run()),
        Command::Peer(args) => block_on(args.run()),
        Command::Log(args) => args.run(),
    }
}

/// `--config`, the same for every role. Read by [`precedence`] before the rest is parsed.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// TOML file whose keys are these flags (data-dir = "/var/lib/narthex"); a repeated flag is an array
    ///
    /// Flags beat the environment, the environment beats the file. A list replaces the other list completely. An
    /// unknown key is an error. In the environment commas separate the items of a list. Relative paths in the file start at
    /// the file's directory.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    // A read from a dead file server, or a look-up of a name, may block its thread for long, and its result is not needed.
    runtime.shutdown_timeout(LEFTOVERS);
    outcome
}

#[cfg(test)]
mod tests {
    use clap::ArgAction;

    use super::*;

    #[test]
    fn every_subcommand_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_a_variable_and_a_line_of_help() {
        fn visit(command: &clap::Command, is_asking: bool) {
            let is_asking = is_asking || ASKING.contains(&command.get_name());
            for arg in command.get_arguments().filter(|arg| arg.get_long().is_some()) {
                let id = format!("{} --{}", command.get_name(), arg.get_id());
                assert!(arg.get_help().is_some(), "{id} has no help");
                assert!(
                    arg.get_env().is_some_and(|name| name.to_string_lossy().starts_with("NARTHEX_"))
                        || matches!(arg.get_action(), ArgAction::SetTrue)
                        || is_asking,
                    "{id} has no variable"
                );
            }
            command.get_subcommands().for_each(|inner| visit(inner, is_asking));
        }
        visit(&command(), false);
    }
}
