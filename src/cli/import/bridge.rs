//! The `targets.json` of a hyperdht-prometheus-bridge, for the move of its services.
//!
//! Nothing of the file is written into a table: its keys are those of the bridge's clients, which have proved nothing here,
//! and a table has no alias without holder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::Path,
    time::SystemTime,
};

use anyhow::{Context, bail};
use serde::Deserialize;

use super::super::{
    data_dir::{self, DirState},
    export,
};
use crate::{
    identity::PublicKey,
    registry::{Lease, backup},
    telemetry::escaped,
    wire::{Alias, Target},
};

/// The start of the printed targets.
const HEAD: &str = "# Each agent gets the targets of its host. Write the port and path of each service into its URL.\n";

/// A group of Prometheus's file_sd. The bridge writes one.
#[derive(Deserialize)]
struct Group {
    targets: Vec<String>,
}

/// An alias of the bridge.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moving {
    hostname: String,
    alias: Alias,
    service: String,
}

/// All aliases, by host; or a line for each bad entry, with its place.
pub(super) fn read(json: &str) -> Result<Vec<Moving>, Vec<String>> {
    let groups: Vec<Group> = serde_json::from_str(json)
        .map_err(|error| vec![format!("is not the list of targets that a bridge writes: {error}")])?;
    let (mut targets, mut bad, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (group, Group { targets: entries }) in groups.iter().enumerate() {
        for (entry, text) in entries.iter().enumerate() {
            match Moving::read(text) {
                Ok(target) if names.insert(target.alias.clone()) => targets.push(target),
                outcome => {
                    let reason = match outcome {
                        Ok(target) => format!("alias {} is there twice", target.alias),
                        Err(reason) => format!("{reason:#}"),
                    };
                    bad.push(format!("group {}, target {}: {reason}", group + 1, entry + 1));
                }
            }
        }
    }
    targets.sort();
    if bad.is_empty() { Ok(targets) } else { Err(bad) }
}

impl Moving {
    /// Reads `alias:key:hostname:service`. The bridge lets no colon into the last three.
    fn read(text: &str) -> anyhow::Result<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let [alias, key, hostname, service] = parts[..] else {
            bail!("has {} parts between colons; alias:key:hostname:service has 4", parts.len());
        };
        key.parse::<PublicKey>()?;
        Target::check_name("hostname", hostname)?;
        Target::check_name("service", service)?;
        Ok(Self { hostname: hostname.to_owned(), alias: alias.parse()?, service: service.to_owned() })
    }

    /// How far the alias has come, as one line says it.
    fn progress(&self, lease: Option<&Lease>, now: SystemTime) -> String {
        let Some(lease) = lease else { return "not registered".to_owned() };
        let other = [("service", &lease.service, &self.service), ("hostname", &lease.hostname, &self.hostname)];
        let other = other.iter().filter(|(_, here, there)| here != there);
        other.fold(lease.state(now).as_str().to_owned(), |text, (what, here, there)| {
            format!("{text}, {what} {here:?} rather than {there:?}")
        })
    }
}

/// `[[target]]` tables for the agents, by host.
pub(super) fn targets(moving: &[Moving]) -> String {
    let mut text = HEAD.to_owned();
    for of_host in moving.chunk_by(|a, b| a.hostname == b.hostname) {
        let _ = writeln!(text, "\n# {}", escaped(&of_host[0].hostname));
        for Moving { alias, service, .. } in of_host {
            // Without control characters JSON's text is TOML's, too.
            let service = serde_json::Value::from(service.as_str());
            let url = "http://127.0.0.1:PORT/metrics";
            let _ = writeln!(text, "[[target]]\nalias = \"{alias}\"\nurl = \"{url}\"\nservice = {service}");
        }
    }
    text
}

/// A line for each alias that says how far it has come, and how many are active as in the file.
pub(super) async fn compare(moving: &[Moving], data_dir: Option<&Path>) -> anyhow::Result<String> {
    let (path, state) = data_dir::look(data_dir, "scraper")?;
    if matches!(state, DirState::Missing) {
        bail!("there is no directory {}; see --data-dir", path.display());
    }
    let lines = export::table(&path).await?;
    let table = backup::read(&lines[..]).ok().context("the scraper's table is of another version of narthex")?;
    let leases: BTreeMap<_, _> = table.leases.iter().map(|lease| (&lease.alias, &**lease)).collect();
    let now = SystemTime::now();
    let (mut text, mut moved) = (String::new(), 0);
    for target in moving {
        let progress = target.progress(leases.get(&target.alias).copied(), now);
        moved += usize::from(progress == "active");
        let _ = writeln!(text, "{}: {progress}", target.alias);
    }
    let _ = writeln!(text, "{moved} of {} are registered as in the file", moving.len());
    Ok(text)
}
