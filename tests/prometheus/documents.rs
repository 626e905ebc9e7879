//! The configurations in the documents: Prometheus takes each, and those of the migration guide keep the labels of before.

use std::{fs, path::Path, process::Command};

use crate::support::{
    exporter::{Exporter, Reply},
    fleet::{Fleet, text},
    peers::Monitor,
    program::program,
};

/// Blocks of this language that begin so, of a page.
fn blocks(page: &Path, begin: &str) -> Vec<String> {
    let text = fs::read_to_string(page).expect("a page");
    let begin = format!("```{begin}");
    text.split(&begin).skip(1).map(|rest| rest.split("```").next().expect("a block").to_owned()).collect()
}

fn guide() -> &'static Path {
    Path::new("docs/migration.md")
}

#[test]
fn prometheus_takes_every_configuration_of_the_documents() {
    let Some(promtool) = program("promtool", "prometheus") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("prometheus.yml");
    let pages = fs::read_dir("docs").expect("lists").map(|entry| entry.expect("an entry").path());
    let mut checked = 0;
    for page in pages.chain(["README.md".into()]).filter(|page| page.extension().is_some_and(|end| end == "md")) {
        for block in blocks(&page, "yaml\nscrape_configs:") {
            fs::write(&file, format!("scrape_configs:{block}")).expect("writes");
            let run = Command::new(&promtool).args(["check", "config"]).arg(&file).output().expect("runs");
            assert!(run.status.success(), "{}: {block}\n{}", page.display(), String::from_utf8_lossy(&run.stderr));
            checked += 1;
        }
    }
    assert!(checked > 8, "{checked}");
}

/// Every job of the guide at once, in one Prometheus, on agents as the guide has them.
#[test]
fn jobs_of_the_migration_guide_have_the_labels_of_before() {
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let jobs: String = blocks(guide(), "yaml\nscrape_configs:\n").iter().enumerate().map(numbered).collect();
    let jobs = jobs.replace("127.0.0.1:19960", &scraper.http.to_string());
    let jobs = jobs.replace("15s", "1s").replace("30s", "1s");
    let Some(prometheus) = Monitor::prometheus_on(fleet.path(), &jobs, &[]) else { return };

    let url = exporter.url("/metrics");
    let _pushprox = fleet.agent_of(&scraper, "client", [("client", &url)], &["--service", "node", "--hostname", "h"]);
    let _second = fleet.agent_of(&scraper, "client-2", [("client-9187", &url)], &["--hostname", "h"]);
    let _bridge = fleet.agent_of(&scraper, "web-1", [("web-1", &url)], &["--service", "web", "--hostname", "h1"]);
    let [toml] = &blocks(guide(), "toml\nscraper = ")[..] else { panic!("one file of an agent") };
    let (_, toml) = toml.split_once('\n').expect("the address");
    let toml = toml.replace("/etc/narthex/fleet.secret", &text(&fleet.secret_file()));
    let toml = toml.replace("http://app1.local:9100/metrics", &url);
    let file = fleet.path().join("agent.toml");
    fs::write(&file, format!("scraper = \"{}\"\n{toml}", scraper.peer())).expect("writes");
    let _proxy = fleet.agent("app1", &["--config", &text(&file), "--hostname", "h2"]);

    for up in [
        r#"{job="1-node-narthex",instance="client",service="node"}"#,
        r#"{job="2-node",instance="client:9100",service="",hostname=""}"#,
        r#"{job="3-node",instance="client:9100",service="",hostname=""}"#,
        r#"{job="3-node",instance="client:9187",service="",hostname=""}"#,
        r#"{job="4-node",instance="client:9100",service="",hostname=""}"#,
        r#"{job="5-app1",instance="proxy-host.example.com:8080",env=""}"#,
        r#"{job="6-prometheus-proxy-sd",hostName="h2",agentName="agent-01",env="production",hostname="",instance="proxy-host.example.com:8080"}"#,
        r#"{job="7-aliases",instance="web-1",service="web",hostname="h1"}"#,
        r#"{job="7-narthex-scraper"}"#,
    ] {
        prometheus.wait_value(&format!("up{up}"), 1.0);
    }
    assert!(prometheus.query(r#"m{job="1-node-narthex"}"#).is_empty(), "stored before the switch");
    prometheus.wait_value(r#"m{job="2-node"}"#, 1.0);
}

/// The jobs of a block, with its number before their names.
fn numbered((index, block): (usize, &String)) -> String {
    block.replace("job_name: ", &format!("job_name: {}-", index + 1))
}
