//! A real Prometheus whose only setting is the URL of the http_sd list.

use std::{convert::Infallible, net::SocketAddr};

use crate::support::{
    PROMETHEUS_NOTICES, eventually, eventually_true,
    fleet::{Fleet, Scraper},
    linked::Linked,
    peers::{Monitor, node_exporter},
};

#[test]
fn a_linked_service_and_an_exporter_behind_an_agent_are_up_under_their_aliases() {
    let (fleet, scraper) = Fleet::with_scraper();
    let Some(prometheus) = Monitor::prometheus(fleet.path(), scraper.http, &[]) else { return };
    let Some((exporter, _process)) = node_exporter(fleet.path()) else { return };
    let _service = service(&fleet, &scraper, "web-1");
    let flags = ["--service", "node", "--label", "region=us", "--label", "rack=r7", "--hostname", "host-7"];
    let _agent = fleet.agent_of(&scraper, "agent", [("node-1", format!("http://{exporter}/metrics"))], &flags);

    let web = prometheus.wait_health("web-1", "up");
    assert_eq!((web.labels["service"].as_str(), web.labels["region"].as_str()), ("web", "eu"));
    assert_eq!(web.labels["job"], "narthex");
    assert!(web.labels.contains_key("hostname"), "{web:?}");

    let node = prometheus.wait_health("node-1", "up");
    for (name, value) in [("service", "node"), ("region", "us"), ("rack", "r7"), ("hostname", "host-7")] {
        assert_eq!(node.labels[name], value, "{node:?}");
    }

    let series = prometheus.wait_value("orders_open", 42.0);
    assert_eq!((series["instance"].as_str(), series["region"].as_str()), ("web-1", "eu"));
    prometheus.wait_value("up{instance=\"node-1\"}", 1.0);
    // The version in node_exporter's build info is its own, not ours.
    let series = prometheus.wait_value("node_exporter_build_info", 1.0);
    assert_eq!((series["instance"].as_str(), series["rack"].as_str()), ("node-1", "r7"));
}

#[test]
fn a_killed_service_is_down_and_a_stopped_one_leaves_the_list() {
    let (fleet, scraper) = Fleet::with_scraper();
    let Some(prometheus) = Monitor::prometheus(fleet.path(), scraper.http, &[]) else { return };
    let [killed, stopped] = ["killed", "stopped"].map(|alias| service(&fleet, &scraper, alias));
    prometheus.wait_value("up{instance=\"killed\"}", 1.0);
    prometheus.wait_value("up{instance=\"stopped\"}", 1.0);

    killed.crash();
    prometheus.wait_value("up{instance=\"killed\"}", 0.0);
    // A scrape that was under way, or a link over QUIC, which is silent for 25 s, is a timeout first.
    let says_502 = || prometheus.targets().get("killed").is_some_and(|killed| killed.last_error.contains("502"));
    eventually_true("Prometheus is told 502", PROMETHEUS_NOTICES, says_502);

    stopped.stop();
    scraper.wait_unlisted("stopped");
    prometheus.wait_gone("stopped");
    assert!(prometheus.targets().contains_key("killed"), "a service that fell over stays a target, so that up is 0");
}

#[test]
fn everything_is_up_again_after_the_scraper_was_killed() {
    let (fleet, mut scraper) = Fleet::with_scraper();
    let Some(prometheus) = Monitor::prometheus(fleet.path(), scraper.http, &[]) else { return };
    let Some((exporter, _process)) = node_exporter(fleet.path()) else { return };
    let _service = service(&fleet, &scraper, "web-1");
    let _agent = fleet.agent_of(&scraper, "agent", [("node-1", format!("http://{exporter}/metrics"))], &[]);
    for alias in ["web-1", "node-1"] {
        prometheus.wait_value(&format!("up{{instance=\"{alias}\"}}"), 1.0);
    }

    scraper.process.kill();
    // While the list cannot be had, Prometheus keeps the one that it has.
    for alias in ["web-1", "node-1"] {
        prometheus.wait_value(&format!("up{{instance=\"{alias}\"}}"), 0.0);
    }
    scraper.restart();
    for alias in ["web-1", "node-1"] {
        eventually(&format!("{alias} is up again"), PROMETHEUS_NOTICES, || {
            let series = prometheus.query(&format!("up{{instance=\"{alias}\"}} == 1"));
            (series.len() == 1).then_some(())
        });
    }
}

#[test]
fn alerts_distinguish_a_dead_exporter_from_a_killed_agent() {
    let (fleet, scraper) = Fleet::with_scraper();
    let Some(prometheus) = Monitor::prometheus_with_alerts(fleet.path(), scraper.http) else { return };
    let Some((dead, mut exporter)) = node_exporter(fleet.path()) else { return };
    let Some((alive, _process)) = node_exporter(fleet.path()) else { return };
    let agent = |alias: &str, exporter: SocketAddr| {
        fleet.agent_of(&scraper, alias, [(alias, format!("http://{exporter}/metrics"))], &["--service=node"])
    };
    let (_agent, mut killed) = (agent("dead-exporter", dead), agent("killed-agent", alive));
    for alias in ["dead-exporter", "killed-agent"] {
        // As dashboards and mixins select it.
        prometheus.wait_value(&format!("up{{job=\"node\",instance=\"{alias}\"}}"), 1.0);
        prometheus.wait_alert(alias, None);
    }

    exporter.kill();
    killed.kill();
    prometheus.wait_alert("dead-exporter", Some("NarthexExporterDown"));
    prometheus.wait_alert("killed-agent", Some("NarthexAgentGone"));
}

/// A service that links the client: one gauge, a label `region`.
fn service(fleet: &Fleet, scraper: &Scraper, alias: &str) -> Linked {
    Linked::start(fleet, scraper, |builder| {
        let builder = builder.alias(alias).service("web").label("region", "eu");
        builder.metrics(|| Ok::<_, Infallible>("# TYPE orders_open gauge\norders_open 42\n".to_owned()))
    })
}
