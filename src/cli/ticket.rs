//! `narthex ticket`: makes, lists and revokes the tickets of the scraper beside it.

use std::{
    collections::BTreeMap,
    iter,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    control::OwnScraper,
    keys, output,
    targets::table,
    value::{self, Label},
};
use crate::{
    access::{AliasGlob, IssuedTicket},
    atomic_file,
    identity::{DialAddress, PeerAddr, PublicKey},
    scraper::{Made, TICKETS_PATH, Wanted},
    telemetry::{short_duration, short_key},
    wire::{MAX_ADDRESSES, Ticket},
};

const EXAMPLES: &str = "\
Examples:
  narthex ticket create laptop
  narthex ticket create databases --alias 'db-*' --label tenant=a --expires 24h --uses 1 --out databases.ticket
  narthex agent --ticket-file databases.ticket --target db-1=http://127.0.0.1:9187
  narthex ticket list
  narthex ticket revoke laptop";

/// Headings of the list.
const HEADINGS: [&str; 8] = ["TICKET", "SECRET", "ALIASES", "LABELS", "MOST", "KEYS", "JOIN", "MADE"];

/// Make, list and revoke tickets: one line with which a client joins
///
/// A ticket has all that an agent or a service needs: the scraper's key, where it is found, and a secret of its own. Whoever
/// has the line can register what the ticket allows, so treat it as a password. Asks the scraper that runs on this host, as
/// the user that runs it, by the socket in its data directory.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = false, after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a ticket and print its line
    #[command(after_help = EXAMPLES)]
    Create(Box<Create>),
    /// List the tickets, without their secrets
    List {
        /// Print JSON rather than a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        scraper: OwnScraper,
    },
    /// End a ticket: its aliases are released and its clients are cut off at once
    Revoke {
        /// The ticket's name, as narthex ticket list prints it
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        scraper: OwnScraper,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// A name for it, for narthex ticket list and revoke
    #[arg(value_name = "NAME", required_unless_present = "offline")]
    name: Option<String>,
    /// Aliases that may be registered with it: * stands for any characters, ? for one; repeatable [default: all]
    #[arg(long, value_name = "PATTERN")]
    alias: Vec<AliasGlob>,
    /// A label of every target that is registered with it, whatever its client says; repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<Label>,
    /// Most aliases that are registered with it at once
    #[arg(long, value_name = "N", value_parser = value::count)]
    most_aliases: Option<usize>,
    /// How long clients may join by it; those that have joined stay until it is revoked [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    expires: Option<Duration>,
    /// How many clients may join by it, each known by its key [default: any number]
    #[arg(long, value_name = "N", value_parser = value::count32)]
    uses: Option<u32>,
    /// Where clients dial the scraper; repeatable [default: its --external, else what it listens on]
    #[arg(long, value_name = "ADDRESS")]
    address: Vec<DialAddress>,
    /// A further key by which clients know the scraper, at the same addresses: its next one, as narthex key rotate makes it;
    /// repeatable
    #[arg(long, value_name = "KEY")]
    also: Vec<PublicKey>,
    /// Write the ticket to a new file of mode 0600 instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Make it of a key file and a secret file, for a scraper that does not run yet; it may do all that the secret may
    #[arg(
        long, requires_all = ["key", "secret_file"],
        conflicts_with_all = ["name", "alias", "label", "most_aliases", "expires", "uses", "data_dir"]
    )]
    offline: bool,
    /// The scraper's key, for --offline
    #[arg(long, value_name = "FILE", requires = "offline")]
    key: Option<PathBuf>,
    /// The scraper's secret, for --offline
    #[arg(long, value_name = "FILE", requires = "offline")]
    secret_file: Option<PathBuf>,
    /// A node through which clients find the scraper by its key, for --offline; repeatable
    #[arg(long, value_name = "PEER", value_parser = value::bootstrap, requires = "offline")]
    bootstrap: Vec<PeerAddr>,
    #[command(flatten)]
    scraper: OwnScraper,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self.action {
            Action::Create(create) => create.run().await,
            Action::List { json, scraper } => list(json, &scraper).await,
            Action::Revoke { name, scraper } => {
                let Revoked { released } = revoke(&scraper, &name).await?;
                output::print(format!("revoked {name}: released {released} aliases\n").as_bytes())
            }
        }
    }
}

impl Create {
    async fn run(self) -> anyhow::Result<()> {
        let line = match self.offline {
            true => self.offline()?.expose_text(),
            false => self.online().await?,
        };
        let written = match &self.out {
            None => output::print(Zeroizing::new(format!("{}\n", *line)).as_bytes()),
            Some(file) => {
                let content = Zeroizing::new(format!("# narthex ticket\n{}\n", *line));
                atomic_file::create(file, content.as_bytes(), atomic_file::PRIVATE)
                    .with_context(|| format!("cannot write {}; give another --out", file.display()))
            }
        };
        // Nobody has seen the line.
        if let (Err(_), Some(name)) = (&written, self.name.as_deref().filter(|_| !self.offline))
            && let Err(error) = revoke(&self.scraper, name).await
        {
            tracing::warn!(name, error = format!("{error:#}"), "the ticket stays, and nobody has it: revoke it");
        }
        written
    }

    fn offline(&self) -> anyhow::Result<Ticket> {
        let key = keys::load_key(self.key.as_deref().context("give --key FILE")?)?.public();
        let secret = keys::load_secret(self.secret_file.as_deref().context("give --secret-file FILE")?)?;
        if self.address.len() > MAX_ADDRESSES || self.bootstrap.len() > MAX_ADDRESSES {
            bail!("a ticket has {MAX_ADDRESSES} addresses and {MAX_ADDRESSES} nodes at most");
        }
        let keys = iter::once(key).chain(self.also.iter().copied());
        let scrapers = keys.flat_map(|key| PeerAddr::at_each(key, &self.address)).collect();
        Ticket::new(scrapers, self.bootstrap.clone(), secret)
            .map_err(|_| anyhow!("nobody could find the scraper: give --address HOST:PORT or --bootstrap PEER"))
    }

    async fn online(&self) -> anyhow::Result<Zeroizing<String>> {
        if self.address.len() > MAX_ADDRESSES {
            bail!("a ticket has {MAX_ADDRESSES} addresses at most");
        }
        if let Some(label) = value::duplicate(self.label.iter().map(|label| &label.name)) {
            bail!("label {label} is given twice");
        }
        let wanted = Wanted {
            name: self.name.clone().unwrap_or_default(),
            aliases: self.alias.iter().map(ToString::to_string).collect(),
            labels: self
                .label
                .iter()
                .map(|label| (label.name.clone(), label.value.clone()))
                .collect::<BTreeMap<_, _>>(),
            max_aliases: self.most_aliases,
            expires_in: self.expires.map(|expires| expires.as_secs().max(1)),
            uses: self.uses,
            addresses: self.address.iter().map(ToString::to_string).collect(),
            also: self.also.clone(),
        };
        let json = serde_json::to_vec(&wanted)?.into();
        let Made { ticket, scrapers, .. } = self.scraper.ask(Method::POST, TICKETS_PATH, json).await?;
        let ticket = Zeroizing::new(ticket);
        if scrapers.iter().all(|scraper| is_at_loopback(scraper)) {
            tracing::warn!("the ticket leads to loopback alone: clients of other hosts need --address HOST:PORT");
        }
        Ok(ticket)
    }
}

fn is_at_loopback(scraper: &str) -> bool {
    let hint = scraper.parse::<PeerAddr>().ok().and_then(|scraper| scraper.hint);
    hint.is_some_and(|hint| hint.host_port().ip().is_some_and(|ip| ip.is_loopback()))
}

async fn list(json: bool, scraper: &OwnScraper) -> anyhow::Result<()> {
    let tickets: Vec<IssuedTicket> = scraper.ask(Method::GET, TICKETS_PATH, Bytes::new()).await?;
    if json {
        return output::print(format!("{}\n", serde_json::to_string(&tickets)?).as_bytes());
    }
    let now = SystemTime::now();
    output::print(
        table(&HEADINGS, HEADINGS.len(), tickets.iter().map(|ticket| cells(ticket, now)).collect()).as_bytes(),
    )
}

/// The scraper's answer.
#[derive(Deserialize)]
struct Revoked {
    released: usize,
}

async fn revoke(scraper: &OwnScraper, name: &str) -> anyhow::Result<Revoked> {
    let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
    scraper.ask(Method::DELETE, &format!("{TICKETS_PATH}/{name}"), Bytes::new()).await
}

fn cells(ticket: &IssuedTicket, now: SystemTime) -> [String; HEADINGS.len()] {
    let or = |text: String, nothing: &str| if text.is_empty() { nothing.to_owned() } else { text };
    let aliases: Vec<String> = ticket.aliases.iter().map(ToString::to_string).collect();
    let labels: Vec<String> = ticket.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let keys = match (ticket.uses, ticket.keys.as_slice()) {
        (None, []) => "any".to_owned(),
        (None, keys) => format!("{}", keys.len()),
        (Some(1), [key]) => short_key(&key.to_string()).to_owned(),
        (Some(uses), keys) => format!("{}/{uses}", keys.len()),
    };
    let join = match ticket.expires_at.as_deref().map(humantime::parse_rfc3339) {
        Some(Ok(at)) => {
            at.duration_since(now).map_or("over".to_owned(), |left| format!("{} left", short_duration(left)))
        }
        _ => "open".to_owned(),
    };
    [
        ticket.name.clone(),
        ticket.secret.clone(),
        or(aliases.join(","), "all"),
        or(labels.join(","), "-"),
        ticket.max_aliases.map_or("-".to_owned(), |most| most.to_string()),
        keys,
        join,
        ticket.created_at.clone(),
    ]
}
