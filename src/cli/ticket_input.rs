//! How a role gets its ticket: from a file, from standard input, or from the environment.

use std::{
    convert::Infallible,
    fmt,
    io::{self, Read},
    path::PathBuf,
    str::FromStr,
};

use anyhow::Context;
use zeroize::Zeroizing;

use super::keys;
use crate::{
    identity,
    wire::{Ticket, TicketError},
};

/// Most bytes of a ticket's file: the longest ticket, and comments.
const MAX_LEN: u64 = 64 * 1024;

/// A ticket instead of a scraper and a secret.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct TicketFlags {
    /// Join by the ticket in this file, as narthex ticket create prints it, instead of by --scraper and --secret-file; - for
    /// standard input. NARTHEX_TICKET may hold the ticket itself. With --scraper, which adds a scraper to those of the ticket
    #[arg(long, value_name = "FILE", conflicts_with_all = ["secret_file", "ticket"])]
    pub(super) ticket_file: Option<PathBuf>,
    /// The ticket itself, in the environment alone
    #[arg(long, value_name = "TICKET", hide = true, conflicts_with = "secret_file")]
    ticket: Option<TicketText>,
}

/// The text of a ticket, which is a secret.
#[derive(Clone)]
struct TicketText(Zeroizing<String>);

impl FromStr for TicketText {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl fmt::Debug for TicketText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketText(..)")
    }
}

impl TicketFlags {
    pub(super) fn is_given(&self) -> bool {
        self.ticket_file.is_some() || self.ticket.is_some()
    }

    /// Reads the ticket, if one is given. Blocks.
    pub(super) fn read(&self) -> anyhow::Result<Option<Ticket>> {
        let (from, text) = match (&self.ticket_file, &self.ticket) {
            (Some(file), _) if file.as_os_str() == "-" => ("standard input".to_owned(), standard_input()?),
            (Some(file), _) => {
                keys::refuse_bare_secret(file)?;
                (file.display().to_string(), identity::read_private(file, MAX_LEN)?)
            }
            (None, Some(TicketText(text))) => ("NARTHEX_TICKET".to_owned(), text.clone()),
            (None, None) => return Ok(None),
        };
        parse(&text).with_context(|| format!("the ticket of {from}")).map(Some)
    }
}

/// The line of a ticket file that is no comment.
fn parse(text: &str) -> Result<Ticket, TicketError> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    Zeroizing::new(lines.collect::<Vec<_>>().join("\n")).parse()
}

fn standard_input() -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    io::stdin().lock().take(MAX_LEN).read_to_string(&mut text).context("cannot read a ticket from standard input")?;
    Ok(text)
}

/// The flag of a ticket that stands on the command line, where others on this host can read it.
pub(super) fn exposed(matches: &clap::ArgMatches) -> Option<&'static str> {
    let source = matches.try_contains_id("ticket").ok().and_then(|_| matches.value_source("ticket"))?;
    (source != clap::parser::ValueSource::EnvVariable)
        .then_some("a ticket on a command line or in a --config file is for others to read: use --ticket-file FILE or NARTHEX_TICKET")
}
