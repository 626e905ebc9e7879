//! `narthex import`: takes what `narthex export` wrote into the table of a scraper that does not run; reads a bridge's list.

mod bridge;

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};

use super::{
    data_dir::{self, DataDir, DirState},
    output,
};
use crate::{
    registry::{
        Contents, SledStore, Store,
        backup::{self, Merge},
        read_only,
    },
    scraper::TABLE,
};

/// Bad lines that are shown.
const SHOWN: usize = 20;

/// Take the aliases of an export into the table of a scraper that does not run
///
/// Adds what the table does not have; of two leases of an alias the one that was renewed later wins, and a beacon of the
/// table stays as it is. All of the file is taken,
/// or nothing. Times are kept: what has lapsed since stays lapsed until its client registers again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  narthex import --data-dir /var/lib/narthex-scraper --dry-run aliases.jsonl\n  \
    narthex import --from-bridge targets.json > targets.toml")]
pub(super) struct Args {
    /// What narthex export wrote; - for stdin
    #[arg(value_name = "FILE", required_unless_present = "from_bridge")]
    file: Option<PathBuf>,
    /// The targets.json of a hyperdht-prometheus-bridge, of which [[target]] tables for agents are printed; - for stdin
    ///
    /// No table is changed: an alias is held by a key that has proved the secret. With --dry-run prints for each alias
    /// whether its service has registered with the scraper, which may run, and if with the same service and hostname.
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    from_bridge: Option<PathBuf>,
    /// The scraper's data directory [default: $STATE_DIRECTORY, else ~/.local/state/narthex/scraper]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Check the file, say what would be done, and change nothing
    #[arg(long, env = "NARTHEX_DRY_RUN")]
    dry_run: bool,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        if let Some(file) = &self.from_bridge {
            return self.read_bridge(file);
        }
        let (name, file) = open(&self.file.context("give a file")?)?;
        let imported = backup::read(file).map_err(|bad| refused(&name, &bad))?;
        let (path, state) = data_dir::look(self.data_dir.as_deref(), "scraper")?;
        let merge = match (self.dry_run, state) {
            (true, DirState::Missing) => backup::merge(&Contents::default(), imported),
            (true, _) => {
                let data_dir = DataDir::take(Some(&path), "scraper")?;
                let (held, _) = read_only(&data_dir.path().join(TABLE))?;
                backup::merge(&held, imported)
            }
            (false, _) => import(&path, imported)?,
        };
        let Merge { added, replaced, left, .. } = merge;
        let line = match self.dry_run {
            true => format!("would add {added}, replace {replaced}, leave {left} as they are\n"),
            false => format!("added {added}, replaced {replaced}, left {left} as they are\n"),
        };
        output::print(line.as_bytes())
    }

    fn read_bridge(&self, file: &Path) -> anyhow::Result<()> {
        let (name, mut file) = open(file)?;
        let mut json = String::new();
        file.read_to_string(&mut json).with_context(|| format!("cannot read {name}"))?;
        let moving = bridge::read(&json).map_err(|bad| refused(&name, &bad))?;
        let text = match self.dry_run {
            true => super::block_on(bridge::compare(&moving, self.data_dir.as_deref()))?,
            false => bridge::targets(&moving),
        };
        output::print(text.as_bytes())
    }
}

/// The file, or stdin for `-`, with its name for errors.
fn open(file: &Path) -> anyhow::Result<(String, Box<dyn BufRead>)> {
    if file.as_os_str() == "-" {
        return Ok(("stdin".to_owned(), Box::new(io::stdin().lock())));
    }
    let name = file.display().to_string();
    let file = File::open(file).with_context(|| format!("cannot read {name}"))?;
    Ok((name, Box::new(BufReader::new(file))))
}

fn import(data_dir: &Path, imported: Contents) -> anyhow::Result<Merge> {
    let table = data_dir::prepare(Some(data_dir), "scraper")?.join(TABLE);
    if table.with_extension("shared").exists() {
        return Err(anyhow!(
            "the table of {} is a copy of one in NATS: import into a data directory of its own, and start a scraper there with \
             --store once, which takes it over",
            data_dir.display()
        ));
    }
    let mut store = SledStore::open(table)?;
    let loaded = store.load()?;
    if let Some(failure) = loaded.failure {
        return Err(failure.into());
    }
    let merge = backup::merge(&loaded.contents, imported);
    store.commit(&merge.changes)?;
    Ok(merge)
}

/// Names each bad line or entry on stderr. Of many the first.
fn refused(name: &str, bad: &[impl fmt::Display]) -> anyhow::Error {
    let mut stderr = io::stderr().lock();
    for line in bad.iter().take(SHOWN) {
        // The error that follows says so, too, if stderr is gone.
        let _ = writeln!(stderr, "{name}: {line}");
    }
    anyhow!("{name} has {} bad lines, of which the first are above; nothing was imported", bad.len())
}
