//! `narthex targets`: the alias table of a running scraper, as a table for people or as JSON.

use std::time::Duration;

use anyhow::Context;
use http::Method;
use serde::Deserialize;

use super::{output, scraper_api::ScraperApi};
use crate::telemetry::log::escaped;

/// Number of columns.
const COLUMNS: usize = 7;
/// Their headings.
const HEADS: [&str; COLUMNS] = ["ALIAS", "STATE", "PATH", "SERVICE", "HOSTNAME", "PEER", "LEFT"];

/// List the targets of a running scraper
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  narthex targets\n  narthex targets --json | jq -r '.[].alias'")]
pub(super) struct Args {
    /// Print the API's JSON rather than a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    scraper: ScraperApi,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let json = self.scraper.within(self.scraper.read(Method::GET, "/api/v1/aliases")).await?;
        if self.json {
            output::print(json.trim_ascii_end())?;
            return output::print(b"\n");
        }
        let targets: Vec<ListedTarget> = serde_json::from_slice(&json)
            .context("the answer is not a scraper's list of aliases; is --url the address of a narthex scraper?")?;
        output::print(table(&targets).as_bytes())
    }
}

/// The printed part of an alias in the JSON of the API.
#[derive(Debug, Deserialize)]
struct ListedTarget {
    alias: String,
    state: String,
    path: String,
    service: String,
    hostname: String,
    peer: String,
    expires_in_seconds: u64,
}

impl ListedTarget {
    fn cells(&self) -> [String; COLUMNS] {
        let texts = [&self.alias, &self.state, &self.path, &self.service, &self.hostname, &self.peer];
        let [alias, state, path, service, hostname, peer] = texts.map(|text| match text.as_str() {
            "" => "-".to_owned(),
            text => escaped(text).into_owned(),
        });
        [alias, state, path, service, hostname, peer, left(self.expires_in_seconds)]
    }
}

/// Columns as wide as their widest cell, two spaces between them.
fn table(targets: &[ListedTarget]) -> String {
    let heads = HEADS.map(str::to_owned);
    let rows: Vec<_> = std::iter::once(heads).chain(targets.iter().map(|target| target.cells())).collect();
    let widths: [usize; COLUMNS] =
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

    fn target(alias: &str, hostname: &str) -> ListedTarget {
        ListedTarget {
            alias: alias.into(),
            state: "active".into(),
            path: "direct".into(),
            service: String::new(),
            hostname: hostname.into(),
            peer: "ybn".into(),
            expires_in_seconds: 541,
        }
    }

    #[test]
    fn the_table_is_aligned_and_shows_no_control_characters() {
        let table = table(&[target("a", "h\n\x1b[31m"), target("longer", "h")]);
        assert_eq!(
            table,
            "ALIAS   STATE   PATH    SERVICE  HOSTNAME           PEER  LEFT\n\
             a       active  direct  -        h\\u000a\\u001b[31m  ybn   9m 1s\n\
             longer  active  direct  -        h                  ybn   9m 1s\n"
        );
    }
}
