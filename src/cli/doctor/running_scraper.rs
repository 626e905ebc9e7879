//! The running scraper, asked over HTTP.

use std::time::Duration;

use anyhow::{Context, ensure};
use http::{Method, header};
use serde::Deserialize;

use super::{
    super::{http_config::Credentials, scraper_api::ScraperApi, scraper_url::ScraperUrl},
    report::{Check, Checks},
};
use crate::wire::Alias;

/// Advice for a scraper that answers 503.
const NOT_LOADED: &str =
    "wait until the scraper has loaded its table; if it stays so, its log has the reason (disk full?)";

/// The HTTP side of a scraper.
pub(super) struct RunningScraper {
    http: ScraperApi,
    url: ScraperUrl,
}

/// The checked part of an alias in the JSON of the API.
#[derive(Debug, Deserialize)]
struct ListedAlias {
    alias: Alias,
    path: String,
}

/// True if the scraper answers, and not to us.
fn is_denied(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    ["(401)", "(403)"].iter().any(|status| text.contains(status))
}

impl RunningScraper {
    pub(super) fn at(url: ScraperUrl, wait: Duration, credentials: Credentials) -> Self {
        Self { http: ScraperApi::at(url.clone(), wait, credentials, "--http"), url }
    }

    /// Whether a scraper answers at the address.
    pub(super) async fn healthy(&self) -> Check {
        let name = "healthy";
        if let Err(error) = self.read("/-/healthy").await {
            let advice = "start the scraper, or give the --http HOST:PORT that it was started with";
            return Check::failed(name, format!("{error:#}"), advice);
        }
        // Nodes are healthy too.
        match self.metric("narthex_table_loaded").await {
            Err(error) if is_denied(&error) => {
                Check::failed(name, format!("{error:#}"), "give the file of a user with the rights api and sd")
            }
            Ok(_) => Check::ok(name, format!("a scraper answers at {}", self.url)),
            Err(error) => Check::failed(
                name,
                format!("what answers at {} is no scraper ({error:#})", self.url),
                "give the --http HOST:PORT that the scraper was started with; a node's is another",
            ),
        }
    }

    /// The answers that Prometheus needs.
    pub(super) fn checks(&self) -> Vec<Checks<'_>> {
        vec![
            Box::pin(async { vec![self.ready().await] }),
            Box::pin(async { vec![self.sd().await] }),
            Box::pin(async { vec![self.duplicate_keys().await] }),
        ]
    }

    async fn ready(&self) -> Check {
        match self.read("/-/ready").await {
            Ok(_) => Check::ok("ready", "the table of aliases is loaded"),
            Err(error) => Check::failed("ready", format!("{error:#}"), NOT_LOADED),
        }
    }

    async fn sd(&self) -> Check {
        let asked = self.http.within(async {
            let answer = self.http.ask(Method::GET, "/sd").await?;
            let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
            ensure!(
                kind.as_ref().is_some_and(|kind| kind == "application/json"),
                "/sd has the content type {kind:?}, which Prometheus refuses: is there a proxy in between?"
            );
            Ok(())
        });
        match asked.await {
            Ok(()) => Check::ok("/sd", "Prometheus gets its list of targets"),
            Err(error) => Check::failed("/sd", format!("{error:#}"), NOT_LOADED),
        }
    }

    /// Whether two processes share a key.
    async fn duplicate_keys(&self) -> Check {
        let name = "duplicate keys";
        match self.metric("narthex_duplicate_keys").await {
            Ok(0) => Check::ok(name, "each key is used by one process"),
            Ok(count) => Check::failed(
                name,
                format!("another process uses the key of a linked peer, and is refused: {count} keys"),
                "the scraper's log names the keys; remove agent.key on the copied machine and restart its agent, and \
                 leave the file out of machine images",
            ),
            Err(error) => Check::skipped(name, format!("{error:#}")),
        }
    }

    /// The number of the running scraper's relays.
    pub(super) async fn relays(&self) -> anyhow::Result<u64> {
        self.metric("narthex_relays").await
    }

    /// The value of a metric of the scraper, a whole number.
    async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let metrics = self.read("/metrics").await?;
        let metrics = String::from_utf8_lossy(&metrics);
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse().ok()).with_context(|| format!("no {name} in /metrics"))
    }

    /// Checks the paths of all aliases, and pulls the named aliases, or else one that is linked.
    pub(super) async fn aliases(&self, named: &[Alias]) -> Vec<Check> {
        let listed = match self.listed().await {
            Ok(listed) => listed,
            Err(error) => return vec![Check::failed("aliases", format!("{error:#}"), NOT_LOADED)],
        };
        let count = |path| listed.iter().filter(|alias| alias.path == path).count();
        let [direct, relayed, none] = ["direct", "relayed", "none"].map(count);
        let counts =
            format!("{} in the table: {direct} direct, {relayed} relayed, {none} without a link", listed.len());
        let lost = !listed.is_empty() && none == listed.len();
        let mut checks = vec![if lost {
            let advice =
                "are the agents running, and do they reach this scraper? Run narthex doctor --scraper beside one";
            Check::failed("aliases", format!("{counts}: nobody is linked"), advice)
        } else {
            Check::ok("aliases", counts)
        }];
        let linked = listed.iter().find(|listed| listed.path != "none").map(|listed| &listed.alias);
        let pulled: Vec<&Alias> = if named.is_empty() { linked.into_iter().collect() } else { named.iter().collect() };
        if pulled.is_empty() {
            checks.push(Check::skipped("pull", "no alias is linked"));
        }
        checks.extend(futures::future::join_all(pulled.into_iter().map(|alias| self.pull(alias))).await);
        checks
    }

    async fn listed(&self) -> anyhow::Result<Vec<ListedAlias>> {
        Ok(serde_json::from_slice(&self.read("/api/v1/aliases").await?)?)
    }

    async fn pull(&self, alias: &Alias) -> Check {
        let name = format!("pull {alias}");
        match self.read(&format!("/scrape/{alias}/metrics")).await {
            Ok(body) => Check::ok(name, format!("{} bytes, as Prometheus would get them", body.len())),
            Err(error) => {
                let advice = "run narthex doctor --scraper .. --target .. beside the agent; its log has the reason";
                Check::failed(name, format!("{error:#}"), advice)
            }
        }
    }

    async fn read(&self, path: &str) -> anyhow::Result<bytes::Bytes> {
        self.http.within(self.http.read(Method::GET, path)).await
    }
}
