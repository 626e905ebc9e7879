//! `narthex targets`: what a running scraper lists, as tables for people, or its aliases as JSON.

use std::time::Duration;

use anyhow::Context;
use http::Method;
use serde::Deserialize;

use super::{output, polling::Group, scraper_api::ScraperApi};
use crate::{
    registry::{KEY_LABEL, KIND_LABEL},
    telemetry::log::escaped,
};

/// Headings of the table of aliases.
const ALIASES: [&str; 7] = ["ALIAS", "STATE", "PATH", "SERVICE", "HOSTNAME", "PEER", "LEFT"];
/// Headings of the table of targets that callers of the registration API have.
const BEACONS: [&str; 4] = ["KIND", "KEY", "TARGETS", "LABELS"];

/// List the targets of a running scraper
///
/// First the aliases of its clients, then the targets that were registered by the registration API, if there are some.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  narthex targets\n  narthex targets --json | jq -r '.[].alias'")]
pub(super) struct Args {
    /// Print the API's JSON rather than a table; of the aliases only
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    scraper: ScraperApi,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let read = |path| self.scraper.within(self.scraper.read(Method::GET, path));
        let json = read("/api/v1/aliases").await?;
        if self.json {
            output::print(json.trim_ascii_end())?;
            return output::print(b"\n");
        }
        let aliases: Vec<ListedAlias> = serde_json::from_slice(&json)
            .context("the answer is not a scraper's list of aliases; is --url the address of a narthex scraper?")?;
        output::print(table(ALIASES, aliases.iter().map(ListedAlias::cells)).as_bytes())?;
        let listed = read("/sd").await.and_then(|json| Ok(serde_json::from_slice::<Vec<Group>>(&json)?));
        // The aliases are there also while /sd gives no list: after damage of the table, for instance.
        let listed = listed.unwrap_or_else(|error| {
            tracing::warn!(
                error = format!("{error:#}"),
                "/sd gives no list, so targets of the registration API are missing here"
            );
            Vec::new()
        });
        let beacons: Vec<_> = listed.iter().filter_map(beacon_cells).collect();
        match beacons.is_empty() {
            true => Ok(()),
            false => output::print(format!("\n{}", table(BEACONS, beacons)).as_bytes()),
        }
    }
}

/// The printed part of an alias in the JSON of the API.
#[derive(Debug, Deserialize)]
struct ListedAlias {
    alias: String,
    state: String,
    path: String,
    service: String,
    hostname: String,
    peer: String,
    expires_in_seconds: u64,
    /// Missing at a scraper of an earlier version, which lists every alias.
    #[serde(default = "listed")]
    listed: bool,
}

impl ListedAlias {
    fn cells(&self) -> [String; ALIASES.len()] {
        let texts = [&self.alias, &self.state, &self.path, &self.service, &self.hostname, &self.peer];
        let [alias, mut state, path, service, hostname, peer] = texts.map(|text| cell(text));
        if !self.listed {
            state += ", unlisted";
        }
        [alias, state, path, service, hostname, peer, left(self.expires_in_seconds)]
    }
}

fn listed() -> bool {
    true
}

/// The cells of a group that is a beacon's. Labels that a scrape is made with may be secret, and are not shown.
fn beacon_cells(Group { targets, labels }: &Group) -> Option<[String; BEACONS.len()]> {
    let shown = labels.iter().filter(|(name, _)| !name.starts_with("__"));
    let shown: Vec<String> = shown.map(|(name, value)| format!("{name}={value}")).collect();
    Some([
        cell(labels.get(KIND_LABEL)?),
        cell(labels.get(KEY_LABEL)?),
        cell(&targets.join(" ")),
        cell(&shown.join(" ")),
    ])
}

fn cell(text: &str) -> String {
    match text {
        "" => "-".to_owned(),
        text => escaped(text).into_owned(),
    }
}

/// Columns as wide as their widest cell, two spaces between them.
fn table<const N: usize>(heads: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = std::iter::once(heads.map(str::to_owned)).chain(rows).collect();
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default());
    rows.iter().fold(String::new(), |table, row| {
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
        table + line.trim_end() + "\n"
    })
}

/// How long the lease still runs; `-` once it has lapsed.
fn left(seconds: u64) -> String {
    match seconds {
        0 => "-".to_owned(),
        left => humantime::format_duration(Duration::from_secs(left)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(alias: &str, hostname: &str) -> ListedAlias {
        ListedAlias {
            alias: alias.into(),
            state: "active".into(),
            path: "direct".into(),
            service: String::new(),
            hostname: hostname.into(),
            peer: "ybn".into(),
            expires_in_seconds: 541,
            listed: true,
        }
    }

    #[test]
    fn the_table_is_aligned_and_shows_no_control_characters() {
        let unlisted = ListedAlias { listed: false, ..target("probe", "h") };
        let rows = [target("a", "h\n\x1b[31m"), target("longer", "h"), unlisted].map(|target| target.cells());
        let table = table(ALIASES, rows);
        assert_eq!(
            table,
            "ALIAS   STATE             PATH    SERVICE  HOSTNAME           PEER  LEFT\n\
             a       active            direct  -        h\\u000a\\u001b[31m  ybn   9m 1s\n\
             longer  active            direct  -        h                  ybn   9m 1s\n\
             probe   active, unlisted  direct  -        h                  ybn   9m 1s\n"
        );
    }
}
