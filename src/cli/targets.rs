//! `narthex targets`: what a running scraper lists, as tables for people, or its aliases as JSON.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use http::Method;
use serde::Deserialize;

use super::{output, polling::Group, scraper_api::ScraperApi};
use crate::{
    registry::{KEY_LABEL, KIND_LABEL},
    telemetry::{escaped, short_duration, short_key},
};

/// Headings of the table of aliases. The last ones are left out if there is nothing below them.
const ALIASES: [&str; 11] =
    ["ALIAS", "STATE", "PATH", "SERVICE", "HOSTNAME", "PEER", "LEFT", "LAST", "TOOK", "SIZE", "ERROR"];
/// A cell with nothing in it.
const NOTHING: &str = "-";
/// How many of the headings are always there.
const ALWAYS: usize = 7;
/// Headings of the table of targets that callers of the registration API have.
const BEACONS: [&str; 4] = ["KIND", "KEY", "TARGETS", "LABELS"];

/// List the targets of a running scraper
///
/// First the aliases of its clients, then the targets that were registered by the registration API, if there are some. LAST is
/// when an alias was last scraped, TOOK and SIZE are that scrape's, and ERROR is why the last one failed that did; PEER is
/// the begin of the key. --json has everything.
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
        let now = SystemTime::now();
        let rows = aliases.iter().map(|alias| alias.cells(now)).collect();
        output::print(table(&ALIASES, ALWAYS, rows).as_bytes())?;
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
            false => output::print(format!("\n{}", table(&BEACONS, BEACONS.len(), beacons)).as_bytes()),
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
    last_scrape: Option<ListedScrape>,
    last_error: Option<ListedError>,
}

#[derive(Debug, Deserialize)]
struct ListedScrape {
    at: String,
    duration_seconds: f64,
    bytes: u64,
}

#[derive(Debug, Deserialize)]
struct ListedError {
    at: String,
    reason: String,
}

impl ListedAlias {
    fn cells(&self, now: SystemTime) -> [String; ALIASES.len()] {
        let texts = [&self.alias, &self.state, &self.path, &self.service, &self.hostname];
        let [alias, mut state, path, service, hostname] = texts.map(|text| cell(text));
        if !self.listed {
            state += ", unlisted";
        }
        let last = self.last_scrape.as_ref();
        let of_last = |show: fn(&ListedScrape) -> String| last.map_or_else(|| cell(""), show);
        let when = last.map_or_else(|| cell(""), |last| ago(&last.at, now));
        let took =
            of_last(|last| short_duration(Duration::try_from_secs_f64(last.duration_seconds).unwrap_or_default()));
        let size = of_last(|last| size(last.bytes));
        let error = self.last_error.as_ref();
        let error =
            error.map_or_else(|| cell(""), |error| format!("{}, {}", escaped(&error.reason), ago(&error.at, now)));
        let (peer, left) = (cell(short_key(&self.peer)), left(self.expires_in_seconds));
        [alias, state, path, service, hostname, peer, left, when, took, size, error]
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
        "" => NOTHING.to_owned(),
        text => escaped(text).into_owned(),
    }
}

/// Columns as wide as their widest cell, two spaces between them. From the column `always` on, those with nothing in them are
/// left out.
pub(super) fn table<const N: usize>(heads: &[&str; N], always: usize, rows: Vec<[String; N]>) -> String {
    let shown = |column: &usize| *column < always || rows.iter().any(|row| row[*column] != NOTHING);
    let columns: Vec<usize> = (0..N).filter(shown).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = columns.iter().map(|column| width(*column).max(heads[*column].len())).collect();
    let line = |cells: &[&str; N]| {
        let cells = columns.iter().zip(&widths).map(|(column, width)| format!("{:width$}  ", cells[*column]));
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    let lines = rows.iter().map(|row| line(&row.each_ref().map(String::as_str)));
    std::iter::once(line(heads)).chain(lines).collect()
}

/// How long ago an instant of the API was, as `12s ago`.
fn ago(at: &str, now: SystemTime) -> String {
    let Ok(at) = humantime::parse_rfc3339(at) else { return cell("") };
    let seconds = now.duration_since(at).unwrap_or_default().as_secs();
    format!("{} ago", short_duration(Duration::from_secs(seconds)))
}

/// Bytes, as `3.4 KB`.
fn size(bytes: u64) -> String {
    let of = |unit: u64| bytes as f64 / unit as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} KB", of(1_000)),
        _ => format!("{:.1} MB", of(1_000_000)),
    }
}

/// How long the lease still runs; `-` once it has lapsed.
fn left(seconds: u64) -> String {
    match seconds {
        0 => NOTHING.to_owned(),
        left => humantime::format_duration(Duration::from_secs(left)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

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
            last_scrape: None,
            last_error: None,
        }
    }

    #[test]
    fn what_the_last_scrapes_brought_has_columns_if_there_were_some() {
        let (at, now) = ("1970-01-01T00:01:00Z".to_owned(), UNIX_EPOCH + Duration::from_secs(200));
        let (mut scraped, mut failed) = (target("a", "h"), target("b", "h"));
        scraped.last_scrape = Some(ListedScrape { at: at.clone(), duration_seconds: 0.012_345, bytes: 70_300 });
        let rows = vec![scraped.cells(now), failed.cells(now)];
        assert_eq!(
            table(&ALIASES, ALWAYS, rows),
            "ALIAS  STATE   PATH    SERVICE  HOSTNAME  PEER  LEFT   LAST        TOOK    SIZE\n\
             a      active  direct  -        h         ybn   9m 1s  2m 20s ago  12.3ms  70.3 KB\n\
             b      active  direct  -        h         ybn   9m 1s  -           -       -\n"
        );
        failed.last_error = Some(ListedError { at, reason: "status=401".into() });
        let table = table(&ALIASES, ALWAYS, vec![failed.cells(now)]);
        assert!(table.starts_with("ALIAS  STATE   PATH    SERVICE  HOSTNAME  PEER  LEFT   ERROR\n"), "{table}");
        assert!(table.ends_with("  status=401, 2m 20s ago\n"), "{table}");
    }

    #[test]
    fn the_table_is_aligned_and_shows_no_control_characters() {
        let unlisted = ListedAlias { listed: false, ..target("probe", "h") };
        let rows = [target("a", "h\n\x1b[31m"), target("longer", "h"), unlisted].map(|target| target.cells(UNIX_EPOCH));
        let table = table(&ALIASES, ALWAYS, rows.into());
        assert_eq!(
            table,
            "ALIAS   STATE             PATH    SERVICE  HOSTNAME           PEER  LEFT\n\
             a       active            direct  -        h\\u000a\\u001b[31m  ybn   9m 1s\n\
             longer  active            direct  -        h                  ybn   9m 1s\n\
             probe   active, unlisted  direct  -        h                  ybn   9m 1s\n"
        );
    }
}
