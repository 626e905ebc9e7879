//! `narthex peer`: which keys may register at the scraper beside it, and what each may hold.

use bytes::Bytes;
use http::Method;

use super::{control::OwnScraper, output, targets::table};
use crate::{
    access::AliasGlob,
    identity::PublicKey,
    scraper::{Changed, PEERS_PATH, RuleText, Rules},
};

const EXAMPLES: &str = "\
Examples:
  narthex peer list
  narthex peer block KEY                            release its aliases, cut its links, refuse it from now on
  narthex peer allow KEY --alias 'db-*'             from the first allow on, keys without a rule are refused

The rules are lines of a text file: the one of --peers, or peers in the scraper's data directory. It may be edited by hand, with
'allow * [PATTERN..]' for all other keys; SIGHUP makes the scraper read it again.";

/// List, allow and block the keys that may register
///
/// A client proves a secret, and by its key who it is. Rules for keys bound what a secret allows. Asks the scraper that runs
/// on this host, as the user that runs it, by the socket in its data directory.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = false, after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the rules
    List {
        /// Print JSON rather than a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        scraper: OwnScraper,
    },
    /// Let a key register; with a first allow, keys without a rule are refused
    Allow {
        /// The client's public key, as narthex targets prints it
        #[arg(value_name = "KEY")]
        key: PublicKey,
        /// Aliases that it may hold: * stands for any characters, ? for one; repeatable [default: all]
        #[arg(long, value_name = "PATTERN")]
        alias: Vec<AliasGlob>,
        #[command(flatten)]
        scraper: OwnScraper,
    },
    /// Refuse a key: its aliases are released and its links are cut at once
    Block {
        /// The client's public key, as narthex targets prints it
        #[arg(value_name = "KEY")]
        key: PublicKey,
        #[command(flatten)]
        scraper: OwnScraper,
    },
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self.action {
            Action::List { json, scraper } => list(json, &scraper).await,
            Action::Allow { key, alias, scraper } => {
                let Changed { released } = change(&scraper, &key, &RuleText::Allow(alias)).await?;
                output::print(format!("allowed {key}{}\n", of(released)).as_bytes())
            }
            Action::Block { key, scraper } => {
                let Changed { released } = change(&scraper, &key, &RuleText::Block(())).await?;
                output::print(format!("blocked {key}{}\n", of(released)).as_bytes())
            }
        }
    }
}

async fn change(scraper: &OwnScraper, key: &PublicKey, rule: &RuleText) -> anyhow::Result<Changed> {
    scraper.ask(Method::PUT, &format!("{PEERS_PATH}/{key}"), serde_json::to_vec(rule)?.into()).await
}

fn of(released: usize) -> String {
    match released {
        0 => String::new(),
        released => format!(": released {released} aliases"),
    }
}

async fn list(json: bool, scraper: &OwnScraper) -> anyhow::Result<()> {
    let rules: Rules = scraper.ask(Method::GET, PEERS_PATH, Bytes::new()).await?;
    if json {
        return output::print(format!("{}\n", serde_json::to_string(&rules)?).as_bytes());
    }
    let all = |globs: &[AliasGlob]| match globs {
        [] => "all".to_owned(),
        globs => globs.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    };
    let row = |key: String, rule: &RuleText| match rule {
        RuleText::Allow(globs) => [key, "allow".to_owned(), all(globs)],
        RuleText::Block(()) => [key, "block".to_owned(), "-".to_owned()],
    };
    let mut rows: Vec<_> = rules.peers.iter().map(|peer| row(peer.key.to_string(), &peer.rule)).collect();
    rows.push(match (rules.others, rules.is_allow_list) {
        (Some(globs), _) => row("all others".to_owned(), &RuleText::Allow(globs)),
        (None, true) => row("all others".to_owned(), &RuleText::Block(())),
        (None, false) => row("all others".to_owned(), &RuleText::Allow(Vec::new())),
    });
    output::print(table(&["KEY", "RULE", "ALIASES"], 3, rows).as_bytes())
}
