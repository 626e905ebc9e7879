//! The command's output: results on stdout, and one line of error on stderr with its exit code.

use std::{
    borrow::Cow,
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use clap::error::{ContextKind, ContextValue};

use super::{
    advice, command,
    hints::{Hint, hint},
    precedence::Origins,
};
use crate::{
    identity::PublicKey,
    telemetry::{escaped, log},
};

/// Bad usage: flags, variables or a file that make no sense. Exit 2; every other failure has exit 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// Prints the outcome, and gives the exit code: 0, 1 for failure, 2 for bad usage.
pub fn report(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else {
        log::finish("");
        return ExitCode::SUCCESS;
    };
    if let Some(help) = error.downcast_ref::<clap::Error>() {
        return help.print().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    log::finish(&line(&error));
    if error.is::<UsageError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// Prints an error that is not the last one.
pub(super) fn complain(error: &anyhow::Error) {
    // Nobody to tell if stderr is gone.
    let _ = io::stderr().write_all(line(error).as_bytes());
}

/// The error with its causes and what to do about it. A chain may hold texts from elsewhere, and an error is one line.
fn line(error: &anyhow::Error) -> String {
    let advice = advice::advice(error).map(|advice| format!("; {advice}")).unwrap_or_default();
    format!("error: {}\n", escaped(&format!("{error:#}{advice}")))
}

/// Writes a result to stdout. A reader that has gone away (`| head`) is no failure.
pub(super) fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(anyhow::Error::new(error).context("stdout")),
        _ => Ok(()),
    }
}

/// An error for exit 2, pointing to the help of the subcommand.
pub(super) fn usage(message: &str, words: &[String]) -> anyhow::Error {
    let command = [&["narthex".to_owned()], words].concat().join(" ");
    UsageError(format!("{}; see '{command} --help'", masked(message))).into()
}

/// Clap's error as [`usage`], with the origin of the value. Help and version stay unchanged.
pub(super) fn from_clap(error: clap::Error, words: &[String], args: &[OsString], origins: &Origins) -> anyhow::Error {
    if !error.use_stderr() {
        return error.into();
    }
    let mut message = one_line(&error.render().to_string());
    match hint(&error, &command(), words, args) {
        Some(Hint::Instead(hint)) => return usage(&hint, words),
        Some(Hint::Beside(hint)) => message = format!("{message}; {hint}"),
        None => {}
    }
    if let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg)
        && let Some(origin) = arg.split(' ').next().and_then(|flag| origins.get(flag))
    {
        message = format!("{message} (from {origin})");
    }
    usage(&message, words)
}

/// Clap's paragraphs without the usage and the pointer to help: `message; tip; tip`.
fn one_line(rendered: &str) -> String {
    let paragraphs = rendered.trim().split("\n\n").filter_map(|paragraph| {
        let paragraph = paragraph.trim().trim_start_matches("error: ").trim_start_matches("tip: ");
        let dropped = paragraph.starts_with("Usage: ") || paragraph.starts_with("For more information");
        let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
        let (first, rest) = lines.split_first()?;
        let text = if rest.is_empty() { (*first).to_owned() } else { format!("{first} {}", rest.join(", ")) };
        (!dropped).then_some(text)
    });
    paragraphs.collect::<Vec<_>>().join("; ")
}

/// The start of a key, enough to recognise it.
pub(super) fn shortened(key: &PublicKey) -> String {
    format!("{:.8}..", key.to_string())
}

/// True for a run of letters and digits about as long as a key, which may be a misplaced secret or most of one.
pub(super) fn may_be_secret(text: &str) -> bool {
    text.len() >= 40 && text.bytes().all(|c| c.is_ascii_alphanumeric())
}

/// The message with each possible secret cut short: an error repeats parts of the command line, and ends up in
/// journals.
fn masked(message: &str) -> String {
    let mut masked = String::with_capacity(message.len());
    for word in message.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let key = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        if may_be_secret(key) {
            masked.extend([&key[..4], "..", &word[key.len()..]]);
        } else {
            masked.push_str(word);
        }
    }
    masked.split_inclusive([' ', '\'', '"']).map(without_password).collect()
}

/// A word without the `user:password@` of a URL, or of what was meant to be one.
fn without_password(word: &str) -> Cow<'_, str> {
    let (scheme, rest) = word.split_once("://").map_or((None, word), |(scheme, rest)| (Some(scheme), rest));
    // The servers of NATS are several, each with a password perhaps; whose slashes may not be encoded.
    let is_nats = scheme.is_none_or(|scheme| scheme.ends_with("nats") || scheme.ends_with("tls"));
    let parts = if is_nats { rest.rsplit_once('@') } else { rest.split_once('@') };
    let is_user = |user: &str| match scheme {
        Some(_) => is_nats || !user.contains('/'),
        None => user.contains(':'),
    };
    match parts {
        Some((user, rest)) if is_user(user) => {
            Cow::Owned(scheme.map_or_else(|| format!("..@{rest}"), |scheme| format!("{scheme}://..@{rest}")))
        }
        _ => Cow::Borrowed(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_of_clap_become_one_line() {
        let rendered = "error: the following required arguments were not provided:\n  --key <FILE>\n  --out <FILE>\n\n\
                        Usage: narthex x --key <FILE>\n\nFor more information, try '--help'.\n";
        assert_eq!(
            one_line(rendered),
            "the following required arguments were not provided: --key <FILE>, --out <FILE>"
        );
        let rendered = "error: unexpected argument '--kez' found\n\n  tip: a similar argument exists: '--key'\n\n\
                        Usage: narthex x\n";
        assert_eq!(one_line(rendered), "unexpected argument '--kez' found; a similar argument exists: '--key'");
    }

    #[test]
    fn what_may_be_a_secret_is_cut() {
        let secret = crate::identity::SharedSecret::from_bytes([7; 32]);
        let printed = masked(&format!("unexpected argument '{}' found", *secret.expose_text()));
        assert!(printed.contains("..' found") && !printed.contains(&secret.expose_text()[..8]), "{printed}");
        assert_eq!(masked("bad 'a=http://u:p@host/x' here"), "bad 'a=http://..@host/x' here");
        assert_eq!(masked("bad 'a=http://host/x@y' here"), "bad 'a=http://host/x@y' here");
        assert_eq!(masked("'u:p@host:1' for '--lobby-nats <URL>': no"), "'..@host:1' for '--lobby-nats <URL>': no");
        assert_eq!(masked("'nats://a:p/q@h:1,b:p@i/s' no"), "'nats://..@i/s' no");
        assert_eq!(masked("http://u:p@a and http://u:p@b"), "http://..@a and http://..@b");
        assert_eq!(masked("no scraper key@host:1 there"), "no scraper key@host:1 there");
    }
}
