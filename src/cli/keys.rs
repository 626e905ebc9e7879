//! `narthex keygen`, `secret` and `key`, and how the roles read key and secret files.

use std::{
    ffi::OsStr,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use super::key_rotation::Rotate;
use super::{advice::Advised, output};
use crate::{
    access::NamedSecret,
    identity::{self, KeyFileError, KeyPair, PublicKey, SharedSecret},
    private_file::quoted,
};

/// Write a new key to a file and print its public key
///
/// The file holds the private key (one line, mode 0600). The printed key is public, and is all that clients need to
/// know of a scraper. An existing file is never overwritten.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  narthex keygen --out /etc/narthex/scraper.key")]
pub(super) struct Keygen {
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "keys/scraper.key")]
    out: PathBuf,
}

impl Keygen {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let key = KeyPair::generate();
        identity::create_key(&self.out, &key)?;
        output::print(format!("{}\n", key.public()).as_bytes())
    }
}

/// Write a new shared secret to a file
///
/// 32 random bytes (one line of text, mode 0600) that a scraper and its clients share. Copy the file to both; narthex
/// never prints the secret, and never overwrites an existing file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  narthex secret --out /etc/narthex/fleet.secret")]
pub(super) struct Secret {
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "keys/fleet.secret")]
    out: PathBuf,
}

impl Secret {
    pub(super) fn run(self) -> anyhow::Result<()> {
        identity::create_secret(&self.out, &SharedSecret::generate())?;
        writeln!(io::stderr(), "wrote a shared secret to {}", self.out.display()).context("stderr")
    }
}

/// Print the public key of a key file
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  narthex key keys/scraper.key\n  narthex key rotate --key keys/scraper.key",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(super) struct Key {
    /// A file that narthex keygen wrote
    #[arg(value_name = "FILE", required = true)]
    file: Option<PathBuf>,
    /// Print 64 hex digits rather than 52 characters of z-base-32
    #[arg(long)]
    hex: bool,
    #[command(subcommand)]
    action: Option<KeyAction>,
}

#[derive(Debug, clap::Subcommand)]
enum KeyAction {
    Rotate(Rotate),
}

impl Key {
    pub(super) fn run(self) -> anyhow::Result<()> {
        if let Some(KeyAction::Rotate(rotate)) = self.action {
            return rotate.run();
        }
        let key: PublicKey = load_key(&self.file.context("give a file")?)?.public();
        let text = if self.hex { key.to_hex() } else { key.to_string() };
        output::print(format!("{text}\n").as_bytes())
    }
}

/// The key pair in a file that the user named. The error of a missing file names the command that makes one.
pub(super) fn load_key(path: &Path) -> anyhow::Result<KeyPair> {
    refuse_bare_secret(path)?;
    identity::load_key(path).map_err(|error| with_command(error, &format!("narthex keygen --out {}", quoted(path))))
}

/// The secret in a file that the user named.
pub(super) fn load_secret(path: &Path) -> anyhow::Result<SharedSecret> {
    refuse_bare_secret(path)?;
    identity::load_secret(path)
        .map_err(|error| with_command(error, &format!("narthex secret --out {} (or copy the scraper's)", quoted(path))))
}

/// The secrets in files that the user named. Each is called as its file is, without what follows the last dot.
pub(super) fn load_secrets(paths: &[PathBuf]) -> anyhow::Result<Vec<NamedSecret>> {
    let mut secrets: Vec<NamedSecret> = Vec::with_capacity(paths.len());
    for path in paths {
        let secret = load_secret(path)?;
        if secrets.iter().any(|other| other.secret == secret) {
            bail!("{} holds a secret that another --secret-file has given already", path.display());
        }
        let name = path.file_stem().and_then(OsStr::to_str).and_then(|stem| stem.parse().ok());
        secrets.push(match name {
            Some(name) => NamedSecret::new(name, secret),
            None => secret.into(),
        });
    }
    Ok(secrets)
}

/// A missing file's error with the command that makes the file.
fn with_command(error: KeyFileError, command: &str) -> anyhow::Error {
    match &error {
        KeyFileError::Io { source, path, .. } if source.kind() == io::ErrorKind::NotFound => {
            let what = format!("there is no file {}", path.display());
            Advised { what, advice: format!("make it with: {command}") }.into()
        }
        _ => error.into(),
    }
}

/// Refuses a key or secret where a file name belongs, before the text gets into an error and from there into a journal.
pub(super) fn refuse_bare_secret(path: &Path) -> anyhow::Result<()> {
    if path.to_str().is_some_and(output::may_be_secret) && !path.exists() {
        let what = "expected a file, got what looks like a key or secret itself".to_owned();
        return Err(Advised { what, advice: "write it to a file of mode 0600".to_owned() }.into());
    }
    Ok(())
}
