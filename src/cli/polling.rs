//! A list of targets, asked for again and again: for `narthex file-sd` and `narthex template`.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use http::Method;
use serde::{Deserialize, Serialize};
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{http_config::Credentials, scraper_api::ScraperApi, scraper_url::ScraperUrl, value};

/// Whom to ask, and when.
#[derive(Debug, clap::Args)]
pub(super) struct Polling {
    /// The scraper, or a part of its list: http://HOST:PORT/sd?label=env:prod
    #[arg(long, value_name = "URL")]
    pub(super) from: ScraperUrl,
    /// How often narthex asks the scraper
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = value::duration)]
    pub(super) interval: Duration,
    /// Longest wait for the whole answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = value::duration)]
    timeout: Duration,
    #[command(flatten)]
    credentials: Credentials,
    /// Ask once, then exit: 0 if everything is up to date
    #[arg(long)]
    pub(super) once: bool,
}

impl Polling {
    /// Calls `update` with each answer until `stop` fires, and `tell` with what it gives, and with true after a failure.
    /// `failing` is the text for the log while it fails: once, and again only with another reason.
    ///
    /// # Errors
    /// With `--once` any failure.
    pub(super) async fn keep<T>(
        &self,
        stop: &CancellationToken,
        failing: &'static str,
        mut update: impl AsyncFnMut(Vec<Group>) -> anyhow::Result<T>,
        tell: impl Fn(T, bool),
    ) -> anyhow::Result<()> {
        let source = Source::new(self.from.clone(), self.timeout, self.credentials.clone());
        let mut ticks = time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut logged = None;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let updated = match stop.run_until_cancelled(source.list()).await {
                // A signal during the only question is no failure.
                None => break,
                Some(Ok(list)) => update(list).await,
                Some(Err(error)) => Err(error),
            };
            match updated {
                updated if self.once => return updated.map(drop),
                Ok(updated) => tell(updated, logged.take().is_some()),
                Err(error) => {
                    let error = format!("{error:#}");
                    if logged.as_ref() != Some(&error) {
                        tracing::warn!(error, "{failing}");
                        logged = Some(error);
                    }
                }
            }
        }
        Ok(())
    }
}

/// A group of the list. An unknown key is an error here, because Prometheus refuses a list with one.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub(super) targets: Vec<String>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
}

struct Source {
    scraper: ScraperApi,
    path: String,
}

impl Source {
    /// A URL without a path means `/sd`.
    fn new(from: ScraperUrl, timeout: Duration, credentials: Credentials) -> Self {
        let (url, path) = from.split();
        let path = if path == "/" { "/sd" } else { path.as_str() }.to_owned();
        Self { scraper: ScraperApi::at(url, timeout, credentials, "--from"), path }
    }

    async fn list(&self) -> anyhow::Result<Vec<Group>> {
        let json = self.scraper.within(self.scraper.read(Method::GET, &self.path)).await?;
        serde_json::from_slice(&json).context("the answer is no http_sd list; is --from the /sd of a narthex scraper?")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_path_means_slash_sd() {
        for (from, path) in [
            ("http://h:1", "/sd"),
            ("http://h:1/", "/sd"),
            ("http://h:1/sd?service=a", "/sd?service=a"),
            ("http://h:1/behind/sd", "/behind/sd"),
        ] {
            let source = Source::new(from.parse().expect("a URL"), Duration::from_secs(1), Credentials::default());
            assert_eq!(source.path, path, "{from}");
        }
    }
}
