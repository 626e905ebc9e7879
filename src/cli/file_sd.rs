//! `narthex file-sd`: a scraper's list as files, for a Prometheus that reads no http_sd, or that must know its targets
//! while the scraper does not answer.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::Context;
use tokio::task;

use super::{
    ConfigFile,
    managed_files::{ManagedFiles, Updated},
    polling::{Group, Polling},
    signals,
};
use crate::telemetry::short_duration;

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
    #[command(flatten)]
    polling: Polling,
    /// The directory of the files, made if it is missing; one process at a time may use it
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs until a signal comes. The files stay.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let stop = signals::stop()?;
    let files = Arc::new(ManagedFiles::take(args.out.clone())?);
    let Polling { from, interval, once, .. } = &args.polling;
    if !once {
        tracing::info!(%from, out = %args.out.display(), interval = short_duration(*interval), "file-sd runs");
    }
    let update = async |list| {
        let files = Arc::clone(&files);
        let updated = task::spawn_blocking(move || files.update(by_service(list)?)).await;
        updated.context("writing the files").flatten()
    };
    let tell = |Updated { written, removed }, again| {
        if again || written + removed > 0 {
            tracing::info!(written, removed, "files are up to date");
        }
    };
    args.polling.keep(&stop, "files may be out of date", update, tell).await?;
    if !once {
        tracing::info!("file-sd ended");
    }
    Ok(())
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
}
