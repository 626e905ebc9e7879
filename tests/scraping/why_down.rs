//! Why a target is down, seen from beside Prometheus: the answer to a scrape, `/api/v1/aliases` and `narthex targets` name the
//! class of each failure, and nothing of the exporter's own.

use std::time::Duration;

use serde_json::Value;

use crate::support::{
    SOON, eventually,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper, narthex},
    ports::{free_port, loopback},
    process::Run,
};

/// Longer than it takes to learn that a name is unknown.
const PATIENT: Duration = Duration::from_secs(30);
/// A killed peer is noticed after 25 s over QUIC, which a busy machine may choose, and over TCP at once.
const OVER_QUIC: Duration = Duration::from_secs(60);
/// For a scrape whose exporter is too slow.
const SHORT: Duration = Duration::from_secs(2);

#[test]
fn a_failure_at_the_source_has_its_class_and_nothing_of_the_exporter() {
    let (fleet, scraper) = Fleet::with_scraper();
    let denied = Reply::Whole { status: "401 Unauthorized", headers: vec![], body: b"token=hunter2 is wrong".to_vec() };
    let exporter = Exporter::start([("/denied", denied), ("/slow", Reply::Hang), ("/fine", Reply::text("m 1\n"))]);
    let nobody = loopback(free_port());
    let targets = [
        ("refused", format!("http://{nobody}/secret-path")),
        ("dns", "http://no-such-host.invalid/secret-path".to_owned()),
        ("tls", exporter.url("/secret-path").replace("http:", "https:")),
        ("status=401", exporter.url("/denied")),
        ("timeout", exporter.url("/slow")),
    ];
    let aliases = targets.iter().map(|(class, url)| (class.replace('=', "-"), url.clone()));
    let all = aliases.chain([("fine".to_owned(), exporter.url("/fine"))]);
    let _agent = fleet.agent_of(&scraper, "agent", all, &[]);
    scraper.wait_scraped("fine");

    for (class, url) in &targets {
        let alias = class.replace('=', "-");
        let (timeout, status) = if *class == "timeout" { (SHORT, 504) } else { (PATIENT, 502) };
        let answer = scraper.scrape(&alias, timeout);
        assert_eq!(answer.status, status, "{class}: {}", answer.text());
        assert!(answer.text().contains(&format!("({class}): pull ")), "{class}: {}", answer.text());
        let error = alias_of(&scraper, &alias)["last_error"].clone();
        assert_eq!(error["reason"], **class, "{error}");
        let host = url.split('/').nth(2).expect("a host");
        for told in [answer.text(), error.to_string(), scraper.process.log()] {
            for own in [host, "secret-path", "hunter2"] {
                assert!(!told.contains(own), "{own} has crossed the link: {told}");
            }
        }
    }
    assert_eq!(alias_of(&scraper, "fine")["last_error"], Value::Null);
}

#[test]
fn a_page_is_passed_on_as_it_is_and_named_at_both_ends() {
    let (fleet, scraper) = Fleet::with_scraper();
    let page = "<html><body>Node Exporter</body></html>\n";
    let of = |headers: Vec<(&'static str, &'static str)>, body: &str| Reply::Whole {
        status: "200 OK",
        headers,
        body: body.into(),
    };
    let of_status = |status, headers| Reply::Whole { status, headers, body: Vec::new() };
    let html = ("Content-Type", "text/html; charset=utf-8");
    // An exporter's own header of that name means nothing.
    let forged = ("Narthex-Reason", "refused");
    let exporter = Exporter::start([
        ("/page", of(vec![html], page)),
        // As Flask answers without a mimetype: Prometheus 2 reads it.
        ("/flask", of(vec![html, forged], "m 1\n")),
        ("/health", Reply::text("OK")),
        ("/moved", of_status("302 Found", vec![("Location", "http://elsewhere.invalid/login?token=hunter2")])),
    ]);
    let targets = ["page", "flask", "health", "moved"].map(|alias| (alias, exporter.url(&format!("/{alias}"))));
    let agent = fleet.agent_of(&scraper, "agent", targets, &[]);
    assert_eq!(scraper.wait_scraped("page"), page);
    assert_eq!(scraper.wait_scraped("flask"), "m 1\n");

    let answer = scraper.ask("page", &[]);
    assert_eq!((answer.header("content-type"), answer.header("narthex-reason")), (Some(html.1), None));
    let alias = alias_of(&scraper, "page");
    assert_eq!((&alias["last_error"]["reason"], &alias["last_scrape"]["ok"]), (&"not-metrics".into(), &false.into()));
    assert_eq!(alias_of(&scraper, "flask")["last_error"], Value::Null);
    // Its type says metrics.
    assert_eq!(scraper.wait_scraped("health"), "OK");
    assert_eq!(alias_of(&scraper, "health")["last_error"]["reason"], "not-metrics");
    assert_eq!(scraper.ask("moved", &[]).status, 502);
    let moved = agent.wait_log(&["moved", "http://elsewhere.invalid/login?"]);
    assert!(!moved.contains("hunter2"), "{moved}");
    agent.wait_log(&["warn", "page", "is no metrics"]);

    exporter.answer("/page", Reply::text("m 1\n"));
    assert_eq!(scraper.ask("page", &[]).text(), "m 1\n");
    agent.wait_log(&["page", "pulls succeed again"]);
}

#[test]
fn each_alias_has_its_last_scrape_and_its_last_error() {
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = Exporter::start([("/metrics", Reply::text("metric 1\n"))]);
    let mut agent =
        fleet.agent_of(&scraper, "agent", [("web-1", exporter.url("/metrics")), ("idle", exporter.url("/idle"))], &[]);
    scraper.wait_scraped("web-1");
    let alias = alias_of(&scraper, "web-1");
    let last = &alias["last_scrape"];
    assert_eq!((&last["ok"], &last["bytes"], &alias["last_error"]), (&true.into(), &9.into(), &Value::Null));
    assert!(last["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{last}");
    assert!(last["duration_seconds"].as_f64().is_some_and(|took| took > 0.0 && took < 60.0), "{last}");
    assert_eq!(alias_of(&scraper, "idle")["last_scrape"], Value::Null);
    let table = targets(&scraper);
    assert!(table.contains("LAST") && table.contains("9 B") && !table.contains("ERROR"), "{table}");

    exporter.answer("/metrics", Reply::CutLength { len: 100, sent: b"m 1\n".to_vec() });
    let answer = scraper.ask("web-1", &[]);
    assert!(answer.status != 200 || !answer.complete, "{}", answer.text());
    let reason = |alias: &str| alias_of(&scraper, alias)["last_error"]["reason"].clone();
    assert_eq!(reason("web-1"), "cut");
    agent.kill();
    let gone = eventually("a scrape finds no link", SOON, || {
        scraper.ask("web-1", &[]);
        Some(reason("web-1")).filter(|reason| *reason != "cut" && *reason != "broken")
    });
    assert_eq!(gone, "not-connected");
    let table = targets(&scraper);
    assert!(table.contains("ERROR") && table.contains("not-connected, "), "{table}");

    // The record goes with the alias.
    let url = format!("http://{}", scraper.http);
    assert_eq!(Run::of(narthex("alias").args(["release", "web-1", "--url", &url])).code, Some(0));
    scraper.wait_unlisted("web-1");
    let _agent = fleet.agent_of(&scraper, "other", [("web-1", exporter.url("/metrics"))], &[]);
    scraper.wait_listed("web-1");
    assert_eq!(alias_of(&scraper, "web-1")["last_error"], Value::Null);
}

#[test]
fn a_lost_link_and_its_return_are_in_the_log_with_the_address() {
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let start = || fleet.agent_of(&scraper, "agent", [("web-1", exporter.url("/metrics"))], &[]);
    let mut agent = start();
    scraper.wait_scraped("web-1");
    assert_eq!(scraper.process.log_line(&["link back"]), None, "the first one is a registration");
    agent.kill();
    let lost = || scraper.process.log_line(&["link lost", "127.0.0.1:"]);
    let lost = eventually("the link is known to be lost", OVER_QUIC, lost);
    assert!(lost.contains("level=info"), "{lost}");
    let _agent = start();
    scraper.process.wait_log(&["link back", "127.0.0.1:"]);
}

fn alias_of(scraper: &Scraper, alias: &str) -> Value {
    let answer = scraper.get(&format!("/api/v1/aliases/{alias}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// The table of `narthex targets`.
fn targets(scraper: &Scraper) -> String {
    let run = Run::of(narthex("targets").args(["--url", &format!("http://{}", scraper.http)]));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.stdout
}
