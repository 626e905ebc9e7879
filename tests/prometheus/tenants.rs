//! A Prometheus for each of two tenants, while the right of one of them is taken away.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use narthex::{SharedSecret, identity};

use crate::support::{
    PROMETHEUS_NOTICES, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, text},
    http,
    peers::Monitor,
};

/// Targets of each tenant.
const TARGETS: usize = 30;
/// After so long nothing of a tenant is scraped that lost its right.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn a_reload_ends_one_tenants_scrapes_within_a_second_and_none_of_the_others() {
    let fleet = Fleet::new();
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let (config, secret) =
        (fleet.path().join("scraper.toml"), |tenant: &str| fleet.path().join(format!("{tenant}.secret")));
    let table = |tenant: &str| {
        format!("[[secret]]\nname = \"{tenant}\"\nfile = \"{tenant}.secret\"\nlabels = {{ tenant = \"{tenant}\" }}\n")
    };
    for tenant in ["a", "b"] {
        identity::create_secret(&secret(tenant), &SharedSecret::generate()).expect("written");
    }
    fs::write(&config, table("a") + &table("b")).expect("written");
    let scraper = fleet.scraper(&["--config", &text(&config), "--web.enable-lifecycle"]);
    let agent = |tenant: &str| {
        let targets = (0..TARGETS).map(|number| format!("--target={tenant}-{number}={}", exporter.url("/metrics")));
        let flags: Vec<String> = targets.chain([format!("--scraper={}", scraper.peer())]).collect();
        fleet.agent_with(tenant, &secret(tenant), &[], &flags.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let _agents = ["a", "b"].map(agent);
    let monitor = |tenant: &str| {
        let directory = fleet.path().join(format!("prometheus-{tenant}"));
        fs::create_dir(&directory).expect("made");
        let url = format!("http://{}/sd?label=tenant:{tenant}", scraper.http);
        let scrape = format!(
            "- job_name: narthex\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  \
             http_sd_configs: [{{url: '{url}', refresh_interval: 1s}}]\n"
        );
        Monitor::prometheus_on(&directory, &scrape, &[])
    };
    let (Some(a), Some(b)) = (monitor("a"), monitor("b")) else { return };
    for (monitor, tenant) in [(&a, "a"), (&b, "b")] {
        let up = || monitor.query(&format!("up{{tenant=\"{tenant}\"}} == 1")).len() == TARGETS;
        eventually_true("all of a tenant are up", PROMETHEUS_NOTICES, up);
    }
    let begun = now();

    fs::write(&config, table("b")).expect("written");
    let answer = http::request("POST", scraper.http, "/-/reload", &[]).expect("answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let over = now() + AT_ONCE.as_secs_f64();
    let gone = || a.query("up == 1").is_empty() && now() > over + 10.0;
    eventually_true("the tenant has no target", PROMETHEUS_NOTICES, gone);

    let late: Vec<_> = a.samples("up[1m]").into_iter().filter(|(at, value)| *at > over && *value > 0.0).collect();
    assert!(late.is_empty(), "scraped after it was over at {over}: {late:?}");
    let samples: Vec<_> = b.samples("up[1m]").into_iter().filter(|(at, _)| *at > begun).collect();
    assert!(samples.len() >= 8 * TARGETS, "{} scrapes of the other tenant", samples.len());
    let failed: Vec<_> = samples.into_iter().filter(|(_, value)| *value < 1.0).collect();
    assert!(failed.is_empty(), "scrapes of the other tenant failed: {failed:?}");
}

/// Seconds since the Unix epoch, as Prometheus has them.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_secs_f64()
}
