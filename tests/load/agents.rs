//! Agents whose targets stand in watched files, all at one exporter.

use std::{fmt::Display, fs, path::PathBuf};

use serde_json::{Value, json};

use crate::support::{
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper, text},
    process::Process,
    replace_file,
};

/// An agent process and its directory of target files.
pub(crate) struct Agent {
    name: String,
    targets: PathBuf,
    pub(crate) process: Process,
}

impl Agent {
    /// Starts with the targets `aliases` at `exporter`.
    pub(crate) fn start(
        fleet: &Fleet,
        scraper: &Scraper,
        exporter: &Exporter,
        name: String,
        aliases: impl IntoIterator<Item: Display>,
    ) -> Self {
        let targets = fleet.path().join(format!("{name}-targets"));
        fs::create_dir(&targets).expect("makes");
        write(&targets, "first.json", exporter, aliases);
        let process = spawn(fleet, scraper, &name, &text(&targets));
        Self { name, targets, process }
    }

    /// Starts another process with the same key and targets; the last one must have ended.
    pub(crate) fn restart(&mut self, fleet: &Fleet, scraper: &Scraper) {
        assert!(self.process.exited().is_some(), "{} has ended", self.name);
        self.process = spawn(fleet, scraper, &self.name, &text(&self.targets));
    }

    /// Writes or replaces one of its files of targets.
    pub(crate) fn serve(&self, file: &str, exporter: &Exporter, aliases: impl IntoIterator<Item: Display>) {
        write(&self.targets, file, exporter, aliases);
    }
}

/// Closes each connection: a thousand kept ones may be more than a process may have open.
pub(crate) fn exporter() -> Exporter {
    let headers = vec![("Content-Type", "text/plain; version=0.0.4"), ("Connection", "close")];
    Exporter::start([("/metrics", Reply::Whole { status: "200 OK", headers, body: b"m 1\n".to_vec() })])
}

/// A scrape of each target each `interval_s` seconds, of a list asked for each second.
pub(crate) fn scrape_config(scraper: &Scraper, interval_s: u32) -> String {
    format!(
        "  - job_name: narthex\n    scrape_interval: {interval_s}s\n    scrape_timeout: {interval_s}s\n    \
         http_sd_configs:\n      - url: http://{}/sd\n        refresh_interval: 1s\n",
        scraper.http
    )
}

fn write(directory: &std::path::Path, file: &str, exporter: &Exporter, aliases: impl IntoIterator<Item: Display>) {
    let target = |alias: String| json!({"alias": alias, "url": exporter.url("/metrics")});
    let targets: Value = aliases.into_iter().map(|alias| target(alias.to_string())).collect();
    replace_file(&directory.join(file), &targets.to_string());
}

fn spawn(fleet: &Fleet, scraper: &Scraper, name: &str, directory: &str) -> Process {
    let peer = scraper.peer().to_string();
    fleet.agent(name, &["--scraper", &peer, "--targets-dir", directory, "--targets-refresh", "1s"])
}
