//! `narthex key rotate`: a scraper's next key, and what to do in which order so that no client loses its scraper.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::{fs::OFlags, process::geteuid};

use super::{data_dir, keys, output, scraper::KEY_FILE};
use crate::{
    identity::{self, KeyPair, PublicKey},
    private_file::quoted,
};

const EXAMPLES: &str = "\
Examples:
  narthex key rotate --key /etc/narthex/scraper.key
  narthex key rotate                                 the key that the scraper has made in its data directory

Run it again until step 3 is done: it makes no second key, and says what is left to do. After that it begins anew.";

/// Change a scraper's own key: make the next one, and say what to do in which order
///
/// Clients know a scraper by its key, so they are told the next one before the scraper takes it. The next key is written
/// beside the present one; nothing is overwritten, moved or deleted.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Rotate {
    /// The scraper's present key [default: scraper.key in the data directory]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The scraper's data directory [default: $STATE_DIRECTORY, else ~/.local/state/narthex/scraper]
    #[arg(long, value_name = "DIR", conflicts_with = "key")]
    data_dir: Option<PathBuf>,
}

/// Where the rotation is, by the files that are there.
enum Step {
    /// The next key waits for the clients to know it.
    Told { now: PublicKey, next: PublicKey },
    /// The scraper has its new key, and the old one is still there.
    Taken { now: PublicKey, old: PublicKey },
}

/// The files of a rotation: the present key, and those beside it.
struct Files {
    now: PathBuf,
    next: PathBuf,
    old: PathBuf,
}

impl Rotate {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let now = match self.key {
            Some(file) => file,
            None => data_dir::path(self.data_dir.as_deref(), "scraper")?.join(KEY_FILE),
        };
        let files = Files::beside(now)?;
        let text = match files.step()? {
            Step::Told { now, next } => files.plan(&now, &next),
            Step::Taken { now, old } => files.rest(&now, &old),
        };
        output::print(text.as_bytes())
    }
}

/// Gives a new file to the owner of another one. Root may do this in a directory of somebody else's, who must not get another file
/// by putting that, or a link to it, in the place of this one.
fn give(file: &Path, owner: &Metadata) -> io::Result<()> {
    let opened = File::options().read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(file)?;
    let ours = opened.metadata()?;
    if (ours.uid(), ours.gid()) == (owner.uid(), owner.gid()) {
        return Ok(());
    }
    if !ours.is_file() || ours.nlink() != 1 || ours.uid() != geteuid().as_raw() {
        return Err(io::Error::other("somebody has put another file in its place"));
    }
    fchown(&opened, Some(owner.uid()), Some(owner.gid()))
}

impl Files {
    fn beside(now: PathBuf) -> anyhow::Result<Self> {
        let name = now.file_stem().context("the key's file has no name")?.to_string_lossy().into_owned();
        let beside = |what: &str| now.with_file_name(format!("{name}.{what}.key"));
        Ok(Self { next: beside("next"), old: beside("old"), now })
    }

    fn step(&self) -> anyhow::Result<Step> {
        let public = |file: &Path| keys::load_key(file).map(|key| key.public());
        if !self.now.exists() && self.next.exists() && self.old.exists() {
            let [next, now] = [&self.next, &self.now].map(|file| quoted(file));
            bail!("the old key is put aside and the next one not in its place yet: mv -n {next} {now}");
        }
        let now = public(&self.now)?;
        if self.old.exists() && !self.next.exists() {
            return Ok(Step::Taken { now, old: public(&self.old)? });
        }
        if !self.next.exists() {
            identity::create_key(&self.next, &KeyPair::generate())?;
            let owner = fs::metadata(&self.now)?;
            give(&self.next, &owner).with_context(|| format!("{} is not the scraper's", self.next.display()))?;
        }
        Ok(Step::Told { now, next: public(&self.next)? })
    }

    fn plan(&self, now: &PublicKey, next: &PublicKey) -> String {
        let [now_file, next_file, old_file] = [&self.now, &self.next, &self.old].map(|file| quoted(file));
        format!(
            "\
present key   {now}   {now_file}
next key      {next}   {next_file}

1. Tell every client the next key beside the present one, and restart it:
     an agent           --scraper {next}@HOST:PORT as a further --scraper, also beside --ticket-file
     the library        .scraper(..) of ClientBuilder, with the next key
     a new ticket       narthex ticket create NAME --also {next}
   Until step 2 a client logs that the address answers with another key, and goes on. Where nodes have --relay-for, give
   them the next key, too.
2. When all have it, let the scraper take it. Its table, tickets and secrets stay; each target is away for a few seconds:
     stop the scraper
     mv -n {now_file} {old_file} && mv -n {next_file} {now_file}
     start the scraper
3. Take the old key out of the clients at their next change, and then:
     rm {old_file}
"
        )
    }

    fn rest(&self, now: &PublicKey, old: &PublicKey) -> String {
        let [now_file, old_file] = [&self.now, &self.old].map(|file| quoted(file));
        format!(
            "\
present key   {now}   {now_file}
old key       {old}   {old_file}

The scraper has its new key once it is restarted. What is left:
3. Take the old key out of the clients at their next change, and then:
     rm {old_file}
   A client that knows the old key alone is not linked: narthex targets shows who is away. The registration log has heads
   of both keys: narthex log verify --scraper-key {old} --scraper-key {now}
"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before: there was no file of that name, and the advice was to make one, which no client knows.
    #[test]
    fn a_rotation_that_was_cut_short_is_gone_on_with() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Files::beside(dir.path().join("scraper.key")).expect("a name");
        for file in [&files.old, &files.next] {
            identity::create_key(file, &KeyPair::generate()).expect("written");
        }
        let error = files.step().err().expect("it is in the midst").to_string();
        assert!(error.contains("mv -n") && error.contains("scraper.next.key"), "{error}");
    }
}
