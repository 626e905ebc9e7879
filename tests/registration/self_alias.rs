//! A client and an agent register themselves as targets, if configured so.

use std::fs;

use narthex::{TargetBuilder, client::Compression};

use crate::support::{
    SOON, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, NO_TARGETS, text},
    http::Answer,
    linked::Linked,
    peers::Monitor,
    replace_file,
};

#[test]
fn an_agent_that_has_an_alias_of_its_own_shows_its_links_registrations_and_pulls() {
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = Exporter::start([("/metrics", Reply::text("up_since 1\n"))]);
    let flags = ["--self-alias", "agent-1", "--label", "region=eu"];
    let _agent = fleet.agent_of(&scraper, "agent", [("host-1", exporter.url("/metrics"))], &flags);

    let listed = scraper.wait_listed("agent-1");
    assert_eq!((listed.label("service"), listed.label("region")), ("narthex", "eu"));
    scraper.wait_scraped("host-1");
    let link_up = format!("narthex_client_link_up{{scraper=\"{}\"}} 1", scraper.key);
    let eventually_shown = |line: &str| {
        eventually_true(line, SOON, || scraper.ask("agent-1", &[]).text().lines().any(|found| found == line));
    };
    eventually_shown(&link_up);
    eventually_shown("narthex_client_targets 2");
    eventually_shown("narthex_client_registrations_total{outcome=\"updated\"} 2");
    eventually_shown("narthex_client_pulls_in_flight 1");
    eventually_true("pulls are counted", SOON, || {
        count(&scraper.ask("agent-1", &[]), "pulls_total{outcome=\"ok\"}") > 1.0
    });

    let open_metrics = scraper.ask("agent-1", &[("Accept", "application/openmetrics-text;version=1.0.0")]);
    assert!(open_metrics.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    assert!(open_metrics.text().ends_with("# EOF\n"));

    let Some(prometheus) = Monitor::prometheus(fleet.path(), scraper.http, &[]) else { return };
    let series = prometheus.wait_value("narthex_client_link_up", 1.0);
    assert_eq!((series["instance"].as_str(), series["service"].as_str()), ("agent-1", "narthex"));
}

#[test]
fn an_agent_shows_how_many_of_its_target_files_it_cannot_use() {
    let (fleet, scraper) = Fleet::with_scraper();
    let targets = fleet.path().join("targets");
    fs::create_dir(&targets).expect("makes");
    replace_file(&targets.join("a.toml"), "[[target]]\n");
    let flags = ["--self-alias", "me", "--targets-dir", &text(&targets), "--targets-refresh", "50ms"];
    let _agent = fleet.agent_of(&scraper, "agent", NO_TARGETS, &flags);
    scraper.wait_scraped("me");
    let wait_problems = |expected: f64| {
        let exported = || count(&scraper.ask("me", &[]), "target_problems") == expected;
        eventually_true(&format!("{expected} problems are exported"), SOON, exported);
    };
    wait_problems(1.0);
    replace_file(&targets.join("b.json"), "{");
    wait_problems(2.0);
    for name in ["a.toml", "b.json"] {
        fs::remove_file(targets.join(name)).expect("there");
    }
    wait_problems(0.0);
}

#[test]
fn a_clients_own_target_survives_a_change_of_the_others_and_counts_what_compression_spares() {
    let (fleet, scraper) = Fleet::with_scraper();
    let long = || Ok::<_, std::convert::Infallible>("filler 1\n".repeat(10_000));
    let linked = Linked::start(&fleet, &scraper, |builder| {
        builder.compression(Compression::gzip()).self_alias("me").target(TargetBuilder::new("first").metrics(long))
    });
    scraper.wait_listed("first");
    linked.client.set_targets(vec![TargetBuilder::new("second").metrics(long)]).expect("fit");
    scraper.wait_listed("second");
    scraper.wait_unlisted("first");
    assert_eq!(scraper.wait_listed("me").label("service"), "narthex");

    let gzip = scraper.ask("second", &[("Accept-Encoding", "gzip")]);
    assert_eq!(gzip.header("content-encoding"), Some("gzip"));
    let spared = |answer: &Answer| count(answer, "compression_saved_bytes_total");
    let expected = 90_000.0 - gzip.body.len() as f64;
    eventually_true("what was spared is counted", SOON, || spared(&scraper.ask("me", &[])) == expected);
    assert_eq!(count(&scraper.ask("me", &[]), "targets"), 2.0);
}

/// The value of one of the client's series.
fn count(answer: &Answer, series: &str) -> f64 {
    let prefix = format!("narthex_client_{series} ");
    let text = answer.text();
    let value =
        text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_else(|| panic!("{prefix} in\n{text}"));
    value.parse().expect("a number")
}
