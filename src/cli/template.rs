//! `narthex template`: a configuration file made of a scraper's list, and a reload when it changes.

use std::{
    fs, iter,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::task;

use super::{
    ConfigFile, defaults,
    polling::{Group, Polling},
    render::render,
    signals, value,
};
use crate::{
    atomic_file,
    hook::{self, Ending, Hook, HookCommand, RunOutcome},
    telemetry::short_duration,
};

/// How long a reload may go on after a signal.
const RELOAD_GRACE: Duration = Duration::from_secs(10);

/// The end of the help: what a user copies first.
const EXAMPLES: &str = "\
Examples:
  narthex template --from http://scraper.example:19960 --template nginx.conf.j2 --out /etc/nginx/conf.d/narthex.conf \\
      --reload 'nginx -s reload'
  narthex template --from 'http://127.0.0.1:19960/sd?service=web' --template hosts.j2 --out hosts --once

A template is in the language of Jinja2, and has

  targets   all targets: each has .target (host:port) and .labels (.labels.instance, .labels.service, ..)
  groups    the list as it is: each has .targets and .labels

and the filters of minijinja (sort, unique, groupby, selectattr, map, join, default, replace, tojson, ..), host and port
(the parts of host:port), and ident (every character but A-Z, a-z, 0-9 becomes _). Clients choose their labels: what
has a meaning in the file needs ident or tojson. examples/template/nginx.conf.j2 in the repository is an example.";

/// Render a file from a template when the list changes, then run a reload command
///
/// Asks the scraper (or any other http_sd URL) at an interval. The file is replaced as a whole, and only if its content
/// changes; the command runs only then. While the scraper does not answer, or the template has a fault, the file stays as it
/// is. A changed template is read again. A reload that fails is tried again at the next interval.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    polling: Polling,
    /// The template
    #[arg(long, value_name = "FILE")]
    template: PathBuf,
    /// The file to write; its folder must exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// A command that runs after each change of the file. No shell runs it: words are split as in a shell, 'two words' are
    /// one, and $HOME, |, > and ; mean nothing
    #[arg(long, value_name = "COMMAND", value_parser = value::command)]
    reload: Option<HookCommand>,
    /// Longest run of --reload; the command and its children get SIGTERM then, and SIGKILL 5 s later
    #[arg(
        long, value_name = "DURATION", value_parser = value::duration,
        default_value = defaults::duration(Hook::TIMEOUT)
    )]
    reload_timeout: Duration,
}

/// Runs until a signal comes. The file stays.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let end = Ending { stop: signals::stop()?, grace: RELOAD_GRACE };
    let Polling { from, interval, once, .. } = &args.polling;
    if !once {
        tracing::info!(%from, out = %args.out.display(), interval = short_duration(*interval), "template runs");
    }
    let mut reload_due = false;
    let update = async |list: Vec<Group>| {
        let (template, out) = (args.template.clone(), args.out.clone());
        let written = task::spawn_blocking(move || update(&template, &out, &list)).await;
        let written = written.context("rendering the template").flatten()?;
        reload_due |= written;
        if let Some(command) = args.reload.as_ref().filter(|_| reload_due) {
            match hook::run(command, args.reload_timeout, iter::empty(), &end).await {
                RunOutcome::Ok => {}
                _ => bail!("--reload {command} did not succeed"),
            }
        }
        reload_due = false;
        Ok(written)
    };
    let tell = |written, again| {
        if written || again {
            tracing::info!(written, "the file is up to date");
        }
    };
    args.polling.keep(&end.stop, "the file, or what reads it, may be out of date", update, tell).await?;
    if !once {
        tracing::info!("template ended");
    }
    Ok(())
}

/// Writes what the template makes of the list, if that is not there already. True if it was written.
fn update(template: &Path, out: &Path, list: &[Group]) -> anyhow::Result<bool> {
    let text =
        fs::read_to_string(template).with_context(|| format!("cannot read the template {}", template.display()))?;
    let content = render(template, &text, list)?;
    if fs::read(out).is_ok_and(|there| there == content.as_bytes()) {
        return Ok(false);
    }
    // Who may read the file stays as it was.
    let mode = fs::metadata(out).map_or(atomic_file::SHARED, |there| there.permissions().mode() & 0o777);
    atomic_file::replace(out, content.as_bytes(), mode).with_context(|| format!("cannot write {}", out.display()))?;
    Ok(true)
}
