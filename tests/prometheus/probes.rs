//! An exporter that probes what a scrape's query names (blackbox_exporter), as docs/agent.md has it.

use std::fs;

use crate::support::{
    exporter::{Exporter, Reply},
    fleet::{Fleet, NO_TARGETS},
    peers::{Monitor, blackbox_exporter},
};

#[test]
fn probes_of_an_unlisted_alias_are_scraped_by_its_path_and_through_proxy_url() {
    let (fleet, scraper) = Fleet::with_scraper();
    let Some((blackbox, _process)) = blackbox_exporter(fleet.path()) else { return };
    let site = Exporter::start([("/", Reply::text("fine\n"))]);
    let config = fleet.path().join("agent.toml");
    let targets = format!(
        "[[target]]\nalias = \"bb-probe\"\nurl = \"http://{blackbox}/probe\"\nparams = [\"target\", \"module\"]\nlisted = false\n\n\
         [[target]]\nalias = \"bb\"\nurl = \"http://{blackbox}/metrics\"\n"
    );
    fs::write(&config, targets).expect("writes");
    let config = format!("--config={}", config.display());
    let _agent = fleet.agent_of(&scraper, "agent", NO_TARGETS, &[&config]);
    scraper.wait_scraped("bb");

    let (up, gone) = (site.url("/"), "http://127.0.0.1:1/".to_owned());
    let job = |name: &str, at: &str, address: &str| {
        format!(
            "  - job_name: {name}\n    params: {{module: [http_2xx]}}\n{at}    static_configs:\n      - targets: [{up:?}, {gone:?}]\n\
             \x20   relabel_configs:\n      - source_labels: [__address__]\n        target_label: __param_target\n\
             \x20     - source_labels: [__param_target]\n        regex: (.*)\n        target_label: instance\n        replacement: {name} $1\n\
             \x20     - target_label: __address__\n        replacement: {address}\n"
        )
    };
    let by_path = job("path", "    metrics_path: /scrape/bb-probe/metrics\n", &scraper.http.to_string());
    let by_proxy =
        job("proxy", &format!("    metrics_path: /probe\n    proxy_url: http://{}\n", scraper.http), "bb-probe");
    let listed = format!(
        "  - job_name: narthex\n    http_sd_configs:\n      - url: http://{}/sd\n        refresh_interval: 1s\n",
        scraper.http
    );
    let Some(prometheus) = Monitor::prometheus_on(fleet.path(), &[by_path, by_proxy, listed].concat(), &[]) else {
        return;
    };
    for job in ["path", "proxy"] {
        prometheus.wait_value(&format!("probe_success{{instance=\"{job} {up}\"}}"), 1.0);
        prometheus.wait_value(&format!("probe_success{{instance=\"{job} {gone}\"}}"), 0.0);
    }
    prometheus.wait_health("bb", "up");
    assert!(!prometheus.targets().contains_key("bb-probe"), "it is in no list");
    let shown = scraper.get("/api/v1/aliases/bb-probe");
    assert!(shown.text().contains("\"listed\":false"), "{}", shown.text());
}
