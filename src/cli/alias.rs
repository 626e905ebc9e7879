//! `narthex alias release ALIAS`: an operator takes an alias out of the table.

use http::Method;

use super::{output, scraper_api::ScraperApi};
use crate::wire::Alias;

/// Change the alias table of a running scraper
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = false)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Take an alias out of the table, whoever holds it
    ///
    /// It leaves /sd at once and is free for any key with a valid secret; Prometheus drops it at its next refresh. A
    /// client that still runs takes it again when it renews, within seconds if it is scraped: stop that one first.
    #[command(after_help = "Example:\n  narthex alias release host-1")]
    Release {
        /// The alias, as narthex targets lists it
        alias: Alias,
        #[command(flatten)]
        scraper: ScraperApi,
    },
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Action::Release { alias, scraper } = self.action;
        scraper.within(scraper.ask(Method::DELETE, &format!("/api/v1/aliases/{alias}"))).await?;
        output::print(format!("released {alias}\n").as_bytes())
    }
}
