//! `narthex scrape ALIAS`: the metrics that Prometheus would get for an alias now.

use anyhow::Context;
use http::Method;
use http_body_util::BodyExt;

use super::{output, scraper_api::ScraperApi};
use crate::wire::Alias;

/// Print the metrics of one alias, pulled now through a running scraper
///
/// The body goes to stdout as it comes. If the pull fails, the scraper's reason goes to stderr and the exit code is 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  narthex scrape host-1 | grep node_load1")]
pub(super) struct Args {
    /// The alias, as narthex targets lists it
    alias: Alias,
    #[command(flatten)]
    scraper: ScraperApi,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        self.scraper
            .within(async {
                let answer = self.scraper.ask(Method::GET, &format!("/scrape/{}/metrics", self.alias)).await?;
                let mut body = answer.into_body();
                while let Some(frame) = body.frame().await {
                    if let Ok(bytes) = frame.context("the exposition was cut")?.into_data() {
                        output::print(&bytes)?;
                    }
                }
                Ok(())
            })
            .await
    }
}
