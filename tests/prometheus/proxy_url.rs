//! Prometheus and vmagent with the scraper as `proxy_url`, and aliases as targets that nobody discovered.

use std::{
    io::{BufReader, Write},
    net::TcpStream,
};

use crate::support::{
    SOON,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper},
    http::read_line,
    peers::Monitor,
    process::Process,
};

const INSTANCE: &str = "    relabel_configs:\n      - source_labels: [__address__]\n        target_label: instance\n";

#[test]
fn prometheus_scrapes_aliases_of_a_static_list_through_the_scraper() {
    let (fleet, scraper, _exporter, _agent) = stage();
    let configs = [
        job(&scraper, "by-hand", &["web-1", "db_2:9100", "nobody.example"], ""),
        job(&scraper, "named", &["web-1"], INSTANCE),
        job(&scraper, "tunnel", &["web-1"], "    scheme: https\n"),
        job(&scraper, "elsewhere", &["web-1:81"], "    metrics_path: /probe\n"),
    ];
    let Some(prometheus) = Monitor::prometheus_on(fleet.path(), &configs.concat(), &[]) else { return };

    let target = prometheus.wait_health("web-1:80", "up");
    assert_eq!(target.labels["job"], "by-hand");
    prometheus.wait_health("db_2:9100", "up");
    // The path is for other proxies: the agent asks the URL of its own settings.
    prometheus.wait_value("m{job=\"elsewhere\"}", 1.0);
    prometheus.wait_value("up{job=\"by-hand\",instance=\"web-1:80\"}", 1.0);
    let series = prometheus.wait_value("m{job=\"named\"}", 1.0);
    assert_eq!(series["instance"], "web-1");

    for (instance, error) in [("nobody.example:80", "404 Not Found"), ("web-1:443", "Method Not Allowed")] {
        prometheus.wait_error(instance, error);
    }
}

#[test]
fn vmagent_scrapes_aliases_of_a_static_list_through_the_scraper() {
    let (fleet, scraper, _exporter, _agent) = stage();
    let configs = job(&scraper, "by-hand", &["web-1", "db_2:9100", "nobody.example"], "");
    let Some(vmagent) = Monitor::vmagent_on(fleet.path(), &configs) else { return };
    vmagent.wait_health("web-1:80", "up");
    vmagent.wait_health("db_2:9100", "up");
    vmagent.wait_error("nobody.example:80", "404");
}

#[test]
fn the_scraper_is_a_proxy_to_nowhere_else() {
    let (_fleet, scraper, exporter, _agent) = stage();
    scraper.wait_scraped("web-1");
    let own = exporter.requests("/metrics").len();
    for (request, status) in [
        (format!("GET http://{}/metrics", exporter.address), 404),
        (format!("GET http://{}@web-1/metrics", exporter.address), 200),
        (format!("GET http://web-1@{}/metrics", exporter.address), 404),
        (format!("CONNECT {}", exporter.address), 405),
        ("CONNECT web-1:443".into(), 405),
        ("GET https://web-1/metrics".into(), 400),
        ("GET http://web-1/sd".into(), 200),
        (format!("GET http://{}/sd", exporter.address), 404),
        ("HEAD http://web-1/metrics".into(), 405),
        ("DELETE http://web-1/api/v1/aliases/web-1".into(), 405),
        ("GET http://web-1/metrics".into(), 200),
    ] {
        let mut stream = TcpStream::connect(scraper.http).expect("connects");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        stream
            .write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .expect("sends");
        let line = read_line(&mut BufReader::new(stream)).expect("a status line");
        assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {line}");
    }
    assert_eq!(
        exporter.requests("/metrics").len(),
        own + 3,
        "asked for the three scrapes of its alias alone, and for no other path"
    );
}

/// A scraper, and an agent that serves one exporter under two aliases.
fn stage() -> (Fleet, Scraper, Exporter, Process) {
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let targets = ["web-1", "db_2"].map(|alias| (alias, exporter.url("/metrics")));
    let agent = fleet.agent_of(&scraper, "agent", targets, &[]);
    (fleet, scraper, exporter, agent)
}

fn job(scraper: &Scraper, name: &str, targets: &[&str], more: &str) -> String {
    format!(
        "  - job_name: {name}\n    proxy_url: http://{}\n    static_configs:\n      - targets: {targets:?}\n{more}",
        scraper.http
    )
}
