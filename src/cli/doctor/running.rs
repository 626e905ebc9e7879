//! The running scraper, by its HTTP side.

use std::time::Duration;

use anyhow::{Context, ensure};
use http::{Method, Uri, header};
use serde::Deserialize;

use super::{
    super::ask::RunningScraper,
    report::{Check, Checks},
};
use crate::wire::Alias;

/// Where the scraper answers HTTP.
pub(super) struct Running {
    http: RunningScraper,
    url: Uri,
}

/// An alias as the API tells it, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct ListedAlias {
    alias: Alias,
    path: String,
}

impl Running {
    pub(super) fn at(url: Uri, wait: Duration) -> Self {
        Self { http: RunningScraper::at(url.clone(), wait, "--http"), url }
    }

    /// Whether anything answers there as a scraper does.
    pub(super) async fn healthy(&self) -> Check {
        let name = "healthy";
        if let Err(error) = self.read("/-/healthy").await {
            let advice = "start the scraper, or give the --http HOST:PORT that it was started with";
            return Check::failed(name, format!("{error:#}"), advice);
        }
        // Nodes are healthy too.
        match self.metric("narthex_table_loaded").await {
            Ok(_) => Check::ok(name, format!("a scraper answers at {}", self.url)),
            Err(error) => Check::failed(
                name,
                format!("what answers at {} is no scraper ({error:#})", self.url),
                "give the --http HOST:PORT that the scraper was started with; a node's is another",
            ),
        }
    }

    /// What Prometheus needs of it.
    pub(super) fn checks(&self) -> Vec<Checks<'_>> {
        vec![Box::pin(async { vec![self.ready().await] }), Box::pin(async { vec![self.sd().await] })]
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

    /// How many relays the running scraper can be reached through.
    pub(super) async fn relays(&self) -> anyhow::Result<u64> {
        self.metric("narthex_relays").await
    }

    /// A whole number among its own metrics.
    async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let metrics = self.read("/metrics").await?;
        let metrics = String::from_utf8_lossy(&metrics);
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse().ok()).with_context(|| format!("no {name} in /metrics"))
    }

    /// The paths of all aliases, and a pull of those that were named, or of one that is linked.
    pub(super) async fn aliases(&self, named: &[Alias]) -> Vec<Check> {
        let listed = match self.listed().await {
            Ok(listed) => listed,
            Err(error) => return vec![Check::failed("aliases", format!("{error:#}"), NOT_LOADED)],
        };
        let count = |path| listed.iter().filter(|alias| alias.path == path).count();
        let [direct, relayed, none] = ["direct", "relayed", "none"].map(count);
        let told = format!("{} in the table: {direct} direct, {relayed} relayed, {none} without a link", listed.len());
        let lost = !listed.is_empty() && none == listed.len();
        let mut checks = vec![if lost {
            let advice =
                "are the agents running, and do they reach this scraper? Run narthex doctor --scraper beside one";
            Check::failed("aliases", format!("{told}: nobody is linked"), advice)
        } else {
            Check::ok("aliases", told)
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
                let advice = "run narthex doctor --scraper .. --target .. beside the agent; its log says why";
                Check::failed(name, format!("{error:#}"), advice)
            }
        }
    }

    async fn read(&self, path: &str) -> anyhow::Result<bytes::Bytes> {
        self.http.within(self.http.read(Method::GET, path)).await
    }
}

const NOT_LOADED: &str = "wait until the scraper has loaded its table; if it stays so, its log says why (disk full?)";
