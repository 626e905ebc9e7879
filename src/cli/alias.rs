//! `narthex alias release`: an operator takes an alias out of the table, or all those of a peer or a secret.

use anyhow::Context;
use http::Method;
use serde::Deserialize;

use super::{output, scraper_api::ScraperApi};
use crate::{
    identity::{PublicKey, SecretId},
    wire::Alias,
};

/// Change the alias table of a running scraper
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = false)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Take an alias out of the table, whoever holds it; or all the aliases of a peer, or of a shared secret
    ///
    /// It leaves /sd at once and is free for any key with a valid secret; Prometheus drops it at its next refresh. A
    /// client that still runs takes it again when it renews, within seconds if it is scraped: stop that one first.
    #[command(after_help = "Examples:\n  narthex alias release host-1\n  narthex alias release --peer KEY")]
    Release {
        /// The alias, as narthex targets lists it
        #[arg(required_unless_present_any = ["peer", "secret"])]
        alias: Option<Alias>,
        /// All aliases of the peer with this public key
        #[arg(long, value_name = "KEY", conflicts_with_all = ["alias", "secret"])]
        peer: Option<PublicKey>,
        /// All aliases that were registered with the secret of this id, as the scraper's log and its API name secrets
        #[arg(long, value_name = "ID", conflicts_with = "alias")]
        secret: Option<SecretId>,
        #[command(flatten)]
        scraper: ScraperApi,
    },
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Action::Release { alias, peer, secret, scraper } = self.action;
        if let Some(alias) = alias {
            scraper.within(scraper.ask(Method::DELETE, &format!("/api/v1/aliases/{alias}"))).await?;
            return output::print(format!("released {alias}\n").as_bytes());
        }
        let peer = peer.map(|key| format!("peer={key}"));
        let holders = peer.or(secret.map(|id| format!("secret={id}"))).context("give an alias, --peer or --secret")?;
        let answer = scraper.within(scraper.read(Method::DELETE, &format!("/api/v1/aliases?{holders}"))).await?;
        let Released { released } = serde_json::from_slice(&answer).context("the scraper's answer is none")?;
        output::print(format!("released {released} aliases\n").as_bytes())
    }
}

/// The scraper's answer.
#[derive(Deserialize)]
struct Released {
    released: usize,
}
