//! `narthex log`: shows the registration log, and says whether it is as it was written.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};

use super::{data_dir, output, scraper::KEY_FILE, value};
use crate::{
    access::AliasGlob,
    identity::{PublicKey, load_key},
    registration_log::{Entry, Hash, LOG_DIR, LogFiles, Verified, VerifyError, What, each_line, verify},
    telemetry::escaped,
};

const EXAMPLES: &str = "\
Examples:
  narthex log show --since 24h --alias 'db-*'
  narthex log verify                                prints the last head: keep it elsewhere
  narthex log verify --head 530:HASH                is that head still in the log?
  narthex log verify /backup/registrations --scraper-key KEY

The log is kept with narthex scraper --registration-log, in registrations of its data directory. docs/security.md has its format.";

/// Show and check the registration log: who took which alias when, and why it ended
///
/// Each line of the log has the hash of the one before, and the scraper's key signs it every few seconds. Reads the files alone: the
/// scraper may run, or be elsewhere.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = false, after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print the entries
    Show {
        #[command(flatten)]
        log: Log,
        /// Of these aliases alone: * stands for any characters, ? for one
        #[arg(long, value_name = "PATTERN")]
        alias: Option<AliasGlob>,
        /// Those of the last time alone, such as 24h
        #[arg(long, value_name = "TIME", value_parser = value::duration)]
        since: Option<Duration>,
        /// Print the lines of the log as they are
        #[arg(long)]
        json: bool,
    },
    /// Check that no line was changed, left out, added or moved, and print the last head
    Verify {
        #[command(flatten)]
        log: Log,
        /// The scraper's public key, which must have signed each head; repeatable, where it was changed. Without it the
        /// key in the data directory must have signed some; with DIR any key that the log itself names
        #[arg(long, value_name = "KEY")]
        scraper_key: Vec<PublicKey>,
        /// An entry and its hash, as verify has printed them before, which must be there
        #[arg(long, value_name = "NUMBER:HASH", value_parser = pinned)]
        head: Option<(u64, Hash)>,
    },
}

#[derive(Debug, clap::Args)]
struct Log {
    /// The directory of the log [default: registrations in the data directory]
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The scraper's data directory [default: $STATE_DIRECTORY, else ~/.local/state/narthex/scraper]
    #[arg(long, value_name = "DIR", conflicts_with = "dir")]
    data_dir: Option<PathBuf>,
}

fn pinned(text: &str) -> Result<(u64, Hash), String> {
    let (seq, hash) = text.split_once(':').ok_or("expected NUMBER:HASH, as narthex log verify prints it")?;
    Ok((seq.parse().map_err(|_| "expected a number before the colon")?, hash.parse()?))
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self.action {
            Action::Show { log, alias, since, json } => show(&log.files()?, alias.as_ref(), since, json),
            Action::Verify { log, scraper_key, head } => {
                let own = log.own_keys()?;
                let verified = verify(&log.files()?, &scraper_key, head)?;
                let is_given = !scraper_key.is_empty();
                if !is_given && !own.is_empty() && !verified.keys.iter().any(|key| own.contains(key)) {
                    bail!(
                        "no head is signed by the scraper's key in this data directory: it is another scraper's log; \
                           give its --scraper-key if that is meant"
                    );
                }
                output::print(said(&verified).as_bytes())?;
                if !is_given && own.is_empty() {
                    return output::print(b"not checked against the scraper's key: give it by --scraper-key\n");
                }
                Ok(())
            }
        }
    }
}

impl Log {
    /// The keys of the scraper whose data directory this is, as far as they are in it and may be read.
    fn own_keys(&self) -> anyhow::Result<Vec<PublicKey>> {
        if self.dir.is_some() {
            return Ok(Vec::new());
        }
        let key = data_dir::path(self.data_dir.as_deref(), "scraper")?.join(KEY_FILE);
        let files = [key.clone(), key.with_extension("old.key")];
        Ok(files.iter().filter_map(|file| load_key(file).ok()).map(|key| key.public()).collect())
    }

    fn files(self) -> anyhow::Result<LogFiles> {
        let dir = match self.dir {
            // Whoever pastes a ticket here must not read it in a log afterwards.
            Some(dir) if dir.as_os_str().as_encoded_bytes().starts_with(b"nx1") => bail!("a ticket is no directory"),
            Some(dir) => dir,
            None => data_dir::path(self.data_dir.as_deref(), "scraper")?.join(LOG_DIR),
        };
        Ok(LogFiles(dir))
    }
}

/// Prints the entries, also of a log that is broken; what is no entry is named.
fn show(files: &LogFiles, alias: Option<&AliasGlob>, since: Option<Duration>, json: bool) -> anyhow::Result<()> {
    let since = since.and_then(|since| SystemTime::now().checked_sub(since));
    let since = since.map(|since| humantime::format_rfc3339_millis(since).to_string());
    let mut out = io::BufWriter::new(io::stdout().lock());
    let (mut failed, mut count) = (None, 0_u64);
    each_line(files, |file, number, line, entry| {
        count += 1;
        let Some(entry) = entry else {
            tracing::error!(file = %file.path.display(), line = number, "this line is no entry; see narthex log verify");
            return;
        };
        let is_meant = alias.is_none_or(|glob| about(&entry.what).is_some_and(|alias| glob.fits(alias)))
            && since.as_ref().is_none_or(|since| entry.at >= *since);
        if is_meant && failed.is_none() {
            let written = match json {
                true => writeln!(out, "{line}"),
                false => writeln!(out, "{}", shown(&entry)),
            };
            failed = written.err();
        }
    })
    .with_context(|| format!("cannot read {}", files.0.display()))?;
    if count == 0 {
        return Err(VerifyError::Empty { path: files.0.clone() }.into());
    }
    match failed.map_or_else(|| out.flush(), Err) {
        // Who reads has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

fn about(what: &What) -> Option<&str> {
    match what {
        What::Registered(by) | What::SecretChanged(by) | What::Returned(by) | What::TakenOver { by, .. } => {
            Some(&by.alias)
        }
        What::Lapsed { alias, .. } | What::Gone { alias, .. } | What::Released { alias, .. } => Some(alias),
        What::Started { .. } | What::Lost { .. } | What::Head { .. } => None,
    }
}

/// One line for people; texts of a file that somebody else may have written are escaped.
fn shown(entry: &Entry) -> String {
    let value = serde_json::to_value(&entry.what).unwrap_or_default();
    let fields = value.as_object().into_iter().flatten().filter(|(name, value)| *name != "event" && !value.is_null());
    let event = value["event"].as_str().unwrap_or_default();
    let mut line = format!("{} {} {event}", escaped(&entry.at), entry.seq);
    for (name, value) in fields {
        let text = value.as_str().map_or_else(|| value.to_string(), |text| escaped(text).into_owned());
        line += &format!(" {name}={text}");
    }
    line
}

fn said(verified: &Verified) -> String {
    let Verified { first, last, heads, keys, head, is_torn, lost } = verified;
    let mut text = format!("ok: entries {first} to {last} belong together\n");
    if *first > 1 {
        text += &format!("entries before {first} are not here: older files are dropped\n");
    }
    for key in keys {
        text += &format!("signed by {key}\n");
    }
    match head {
        Some((seq, hash, at)) => {
            text += &format!("{heads} heads; {} entries after the last one, of {}\n", last - seq, escaped(at));
            text += &format!("head {seq}:{hash}\n");
        }
        None => text += "no head: nothing is signed\n",
    }
    if *lost > 0 {
        text += &format!("{lost} entries could not be written, as the log says itself\n");
    }
    if *is_torn {
        text += "the last line has no end: it is being written, or the scraper has crashed\n";
    }
    text
}
