//! `narthex import`: takes what `narthex export` wrote into the table of a scraper that does not run.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

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
#[command(after_help = "Example:\n  narthex import --data-dir /var/lib/narthex-scraper --dry-run aliases.jsonl")]
pub(super) struct Args {
    /// What narthex export wrote; - for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The scraper's data directory [default: $STATE_DIRECTORY, else ~/.local/state/narthex/scraper]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Check the file, say what would be done, and change nothing
    #[arg(long, env = "NARTHEX_DRY_RUN")]
    dry_run: bool,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let imported = match self.file.to_str() {
            Some("-") => read("stdin", io::stdin().lock())?,
            _ => {
                let name = self.file.display().to_string();
                let file = File::open(&self.file).with_context(|| format!("cannot read {name}"))?;
                read(&name, BufReader::new(file))?
            }
        };
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
}

fn import(data_dir: &Path, imported: Contents) -> anyhow::Result<Merge> {
    let mut store = SledStore::open(data_dir::prepare(Some(data_dir), "scraper")?.join(TABLE))?;
    let loaded = store.load()?;
    if let Some(failure) = loaded.failure {
        return Err(failure.into());
    }
    let merge = backup::merge(&loaded.contents, imported);
    store.commit(&merge.changes)?;
    Ok(merge)
}

/// What an export holds. Each bad line is a line on stderr.
fn read(name: &str, from: impl BufRead) -> anyhow::Result<Contents> {
    let bad = match backup::read(from) {
        Ok(contents) => return Ok(contents),
        Err(bad) => bad,
    };
    let mut stderr = io::stderr().lock();
    for line in bad.iter().take(SHOWN) {
        writeln!(stderr, "{name}: {line}").context("stderr")?;
    }
    bail!("{name} has {} bad lines, of which the first are above; nothing was imported", bad.len())
}
