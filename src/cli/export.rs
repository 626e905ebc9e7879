//! `narthex export`: the table of aliases as text, for a backup.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, bail};

use super::{
    control,
    data_dir::{self, DataDir, DirState},
    output,
};
use crate::{
    atomic_file,
    registry::{backup, read_only},
    scraper::{EXPORT_PATH, TABLE},
};

/// Links that are followed, as Linux does.
const MAX_LINKS: usize = 40;

/// Write the table of aliases as JSON lines, for a backup
///
/// Of a scraper that runs, or of the data directory of one that has ended; to be run by the same user. The first line names
/// the format and counts the others; each of those is an alias, with its peer, labels and times. There is no secret of
/// narthex in them; what callers of the registration API gave is as they gave it. narthex import reads them back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  narthex export --data-dir /var/lib/narthex-scraper --output aliases.jsonl")]
pub(super) struct Args {
    /// The scraper's data directory [default: $STATE_DIRECTORY, else ~/.local/state/narthex/scraper]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The file to write, with mode 0600; - for stdout. A link is followed, and what is no file (/dev/null, a FIFO) is written to
    /// [default: stdout]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let (path, state) = data_dir::look(args.data_dir.as_deref(), "scraper")?;
    if matches!(state, DirState::Missing) {
        bail!("there is no directory {}; see --data-dir", path.display());
    }
    let lines = table(&path).await?;
    match args.output {
        Some(file) if file.as_os_str() != "-" => {
            write(&file, &lines).with_context(|| format!("cannot write {}", file.display()))
        }
        _ => output::print(&lines),
    }
}

/// The table as lines, of the scraper that runs in the data directory, or of the one that has ended.
pub(super) async fn table(data_dir: &Path) -> anyhow::Result<Vec<u8>> {
    match control::ask(data_dir, EXPORT_PATH).await? {
        Some(lines) => Ok(lines.to_vec()),
        None => stored(DataDir::take(Some(data_dir), "scraper")?),
    }
}

/// Replaces the file as a whole, beside itself if a link leads there. A device, FIFO or the like is written to.
fn write(file: &Path, lines: &[u8]) -> io::Result<()> {
    match fs::metadata(file) {
        Ok(there) if !there.is_file() => File::options().write(true).open(file)?.write_all(lines),
        _ => atomic_file::replace(&target(file)?, lines, atomic_file::PRIVATE),
    }
}

/// Where links lead from this file, whether or not a file is there.
fn target(file: &Path) -> io::Result<PathBuf> {
    let mut path = file.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(to) = fs::read_link(&path) else { return Ok(path) };
        path = path.parent().unwrap_or(Path::new("")).join(to);
    }
    Err(io::Error::other("too many links"))
}

/// The table of a scraper that does not run. A damaged one is refused: a backup must not be replaced by less.
fn stored(data_dir: DataDir) -> anyhow::Result<Vec<u8>> {
    let (contents, is_damaged) = read_only(&data_dir.path().join(TABLE))?;
    if is_damaged {
        bail!(
            "the table in {data_dir} is damaged, and {} entries can be read: start the scraper, which mends it, and export then",
            contents.len()
        );
    }
    let mut lines = Vec::new();
    backup::write(&contents, SystemTime::now(), &mut lines)?;
    Ok(lines)
}
