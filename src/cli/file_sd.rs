//! `narthex file-sd`: a scraper's list as files, for a Prometheus that reads no http_sd, or that must know its targets
//! while the scraper does not answer.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use http::{Method, Uri};
use serde::{Deserialize, Serialize};
use tokio::{
    task,
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    ConfigFile,
    managed_files::{ManagedFiles, Updated},
    scraper_api::ScraperApi,
    signals, value,
};

/// The end of the help: what a user copies first.
const EXAMPLES: &str = "\
Examples:
  narthex file-sd --from http://scraper.example:19960 --out /etc/prometheus/narthex
  narthex file-sd --from 'http://scraper.example:19960/sd?service=web' --out /etc/prometheus/web --once

In prometheus.yml:
  scrape_configs:
    - job_name: narthex
      file_sd_configs:
        - files: ['/etc/prometheus/narthex/narthex-*.json']";

/// Keep a scraper's targets as file_sd files, one per service, on another host
///
/// Asks the scraper for its list at an interval, writes the files that changed, and removes the files of services that
/// are gone. Other files in the directory stay. While the scraper does not answer, or does not know its list for
/// certain, all files stay. The targets are those of the list: the address that --from names, or the scraper's
/// --advertise.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// The scraper, or a part of its list: http://HOST:PORT/sd?label=env:prod
    #[arg(long, value_name = "URL", value_parser = value::http_url)]
    from: Uri,
    /// The directory of the files, made if it is missing; one process at a time may use it
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How often narthex asks the scraper
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = value::duration)]
    interval: Duration,
    /// Longest wait for the whole answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = value::duration)]
    timeout: Duration,
    /// Ask once, then exit: 0 if the files are up to date
    #[arg(long)]
    once: bool,
}

/// Runs until a signal comes. The files stay.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let stop = signals::stop()?;
    let mirror = Mirror {
        source: Source::new(&args.from, args.timeout)?,
        files: Arc::new(ManagedFiles::take(args.out.clone())?),
    };
    if args.once {
        // A signal during the only update is no failure.
        return mirror.update(&stop).await.unwrap_or(Ok(Updated::default())).map(drop);
    }
    tracing::info!(from = %args.from, out = %args.out.display(), interval = ?args.interval, "file-sd runs");
    mirror.keep(args.interval, &stop).await;
    tracing::info!("file-sd ended");
    Ok(())
}

struct Mirror {
    source: Source,
    files: Arc<ManagedFiles>,
}

impl Mirror {
    async fn keep(&self, interval: Duration, stop: &CancellationToken) {
        let mut ticks = time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut logged = None;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match self.update(stop).await {
                None => return,
                Some(Ok(Updated { written, removed })) => {
                    if logged.take().is_some() || written + removed > 0 {
                        tracing::info!(written, removed, "files are up to date");
                    }
                }
                Some(Err(error)) => {
                    // A lasting failure is logged once, and again only with another reason.
                    let error = format!("{error:#}");
                    if logged.as_ref() != Some(&error) {
                        tracing::warn!(error, "files may be out of date");
                        logged = Some(error);
                    }
                }
            }
        }
    }

    /// Updates the files from the list; `None` if `stop` fired first.
    async fn update(&self, stop: &CancellationToken) -> Option<anyhow::Result<Updated>> {
        let list = match stop.run_until_cancelled(self.source.list()).await? {
            Ok(list) => list,
            Err(error) => return Some(Err(error)),
        };
        let files = Arc::clone(&self.files);
        let updated = task::spawn_blocking(move || files.update(by_service(list)?)).await;
        Some(updated.context("writing the files").flatten())
    }
}

struct Source {
    scraper: ScraperApi,
    path: String,
}

impl Source {
    /// A URL without a path means `/sd`.
    fn new(from: &Uri, timeout: Duration) -> anyhow::Result<Self> {
        let path = match from.path_and_query().map(|path| path.as_str()) {
            None | Some("" | "/") => "/sd",
            Some(path) => path,
        };
        let authority = from.authority().context("the URL has no host")?.clone();
        let url = Uri::builder().scheme("http").authority(authority).path_and_query("/").build()?;
        Ok(Self { scraper: ScraperApi::at(url, timeout, "--from"), path: path.to_owned() })
    }

    async fn list(&self) -> anyhow::Result<Vec<Group>> {
        let json = self.scraper.within(self.scraper.read(Method::GET, &self.path)).await?;
        serde_json::from_slice(&json).context("the answer is no http_sd list; is --from the /sd of a narthex scraper?")
    }
}

/// A group of the list. An unknown key is an error here, because Prometheus refuses a file with one.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Group {
    targets: Vec<String>,
    labels: BTreeMap<String, String>,
}

/// Name and content of each file: one per service, a line per group.
fn by_service(list: Vec<Group>) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut services: BTreeMap<String, Vec<Group>> = BTreeMap::new();
    for group in list {
        let service = group.labels.get("service").cloned().unwrap_or_default();
        services.entry(service).or_default().push(group);
    }
    let content = |groups: Vec<Group>| -> serde_json::Result<Vec<u8>> {
        let lines = groups.iter().map(serde_json::to_vec).collect::<Result<Vec<_>, _>>()?;
        Ok([b"[\n", &lines.join(&b",\n"[..])[..], b"\n]\n"].concat())
    };
    services.into_iter().map(|(service, groups)| Ok((super::managed_files::name(&service), content(groups)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(instance: &str, service: Option<&str>) -> Group {
        let service = service.map(|service| ("service".to_owned(), service.to_owned()));
        let labels = service.into_iter().chain([("instance".to_owned(), instance.to_owned())]).collect();
        Group { targets: vec!["h:1".into()], labels }
    }

    #[test]
    fn a_file_per_service_holds_its_groups_in_their_order() {
        let list = vec![group("b", Some("web")), group("x", None), group("a", Some("web"))];
        let files = by_service(list).expect("renders");
        let names: Vec<_> = files.keys().map(String::as_str).collect();
        assert_eq!(names, ["narthex-_none.json", "narthex-web.json"]);
        assert_eq!(
            String::from_utf8_lossy(&files["narthex-web.json"]),
            "[\n{\"targets\":[\"h:1\"],\"labels\":{\"instance\":\"b\",\"service\":\"web\"}},\n\
             {\"targets\":[\"h:1\"],\"labels\":{\"instance\":\"a\",\"service\":\"web\"}}\n]\n"
        );
        assert!(by_service(Vec::new()).expect("renders").is_empty());
    }

    #[test]
    fn a_url_without_a_path_means_slash_sd() {
        for (from, path) in [
            ("http://h:1", "/sd"),
            ("http://h:1/", "/sd"),
            ("http://h:1/sd?service=a", "/sd?service=a"),
            ("http://h:1/behind/sd", "/behind/sd"),
        ] {
            let source = Source::new(&from.parse().expect("a URL"), Duration::from_secs(1)).expect("fine");
            assert_eq!(source.path, path, "{from}");
        }
    }
}
