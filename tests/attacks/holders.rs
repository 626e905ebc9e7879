//! Holders of the secret against each other: whose alias it is, after a blip, after a restart, and with a copied key.

use std::{convert::Infallible, fs, time::Duration};

use narthex::{
    Client,
    client::{AliasRefusal, EventKind, RegisterError, TargetBuilder},
};
use tokio::{
    sync::broadcast,
    time::{self, timeout},
};

use crate::support::{
    SOON, eventually, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper, narthex, text},
    http,
    process::{Process, Run},
};

/// Clients renew every second.
const SHORT_LEASE: [&str; 2] = ["--lease", "3s"];

/// A client with the fleet's secret and a fresh key, which claims the alias.
async fn claim(fleet: &Fleet, scraper: &Scraper, alias: &str) -> (Client, broadcast::Receiver<narthex::client::Event>) {
    let metrics = || Ok::<_, Infallible>("taken 1\n".to_owned());
    let builder = Client::builder(scraper.peer(), fleet.secret.clone()).alias(alias).metrics(metrics);
    let client = builder.start().await.expect("starts");
    let events = client.events();
    (client, events)
}

/// How the client's next registration ends: none if the alias is granted.
async fn outcome(events: &mut broadcast::Receiver<narthex::client::Event>) -> Option<AliasRefusal> {
    let ended = timeout(SOON, async {
        loop {
            match events.recv().await.expect("events go on").kind {
                EventKind::Registered { .. } => return None,
                EventKind::RegisterFailed { error, .. } => match &*error {
                    RegisterError::Alias { refusal, .. } => return Some(*refusal),
                    error => panic!("{error}"),
                },
                _ => {}
            }
        }
    });
    ended.await.expect("the registration ends")
}

fn wait_unlinked(scraper: &Scraper, alias: &str) {
    eventually_true("the scraper knows that the link is lost", SOON, || {
        scraper.wait_listed(alias).label("__meta_narthex_path") == "none"
    });
}

fn holder(scraper: &Scraper, alias: &str) -> String {
    scraper.wait_listed(alias).label("__meta_narthex_public_key").to_owned()
}

/// Before: the first claim was granted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_is_not_given_away_while_its_agent_is_away_for_a_moment() {
    let fleet = Fleet::new();
    // Without it every holder counts as linked for a minute after the start.
    let scraper = fleet.scraper(&["--start-grace", "0s"]);
    let exporter = Exporter::start([("/metrics", Reply::text("own 1\n"))]);
    let start = || fleet.agent_of(&scraper, "agent", [("web-1", exporter.url("/metrics"))], &[]);
    let mut agent = start();
    scraper.wait_scraped("web-1");
    let own = holder(&scraper, "web-1");
    agent.kill();
    wait_unlinked(&scraper, "web-1");

    let (grabber, mut events) = claim(&fleet, &scraper, "web-1").await;
    // The agent is away for three seconds, and somebody asks for its alias all the time.
    let mut poll = time::interval(Duration::from_millis(200));
    for round in 0..15_u8 {
        assert_eq!(outcome(&mut events).await, Some(AliasRefusal::Taken));
        poll.tick().await;
        let metrics = || Ok::<_, Infallible>("taken 1\n".to_owned());
        let target = TargetBuilder::new("web-1").metrics(metrics).label("round", round.to_string());
        grabber.set_targets(vec![target]).expect("fits");
    }
    assert_eq!(holder(&scraper, "web-1"), own);
    let _agent = start();
    assert_eq!(scraper.wait_scraped("web-1"), "own 1\n");
    assert_eq!(scraper.count(&["narthex_takeovers_total", "granted"]), 0.0);
    grabber.shutdown().await;
}

/// Without the right to take back: the agent had waited in vain for 20 s, as seen with the version before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_takes_back_what_was_taken_while_it_was_away_for_long() {
    let fleet = Fleet::new();
    let flags = [&SHORT_LEASE[..], &["--takeover-grace", "1s", "--start-grace", "0s"]].concat();
    let scraper = fleet.scraper(&flags);
    let exporter = Exporter::start([("/metrics", Reply::text("own 1\n"))]);
    let start = || fleet.agent_of(&scraper, "agent", [("web-1", exporter.url("/metrics"))], &[]);
    let mut agent = start();
    scraper.wait_scraped("web-1");
    let own = holder(&scraper, "web-1");
    agent.kill();

    let (grabber, mut events) = claim(&fleet, &scraper, "web-1").await;
    while outcome(&mut events).await.is_some() {}
    assert_eq!(scraper.count(&["narthex_takeovers_total", "granted"]), 1.0);
    let _agent = start();
    eventually_true("the alias is the agent's again", SOON, || holder(&scraper, "web-1") == own);
    assert_eq!(scraper.wait_scraped("web-1"), "own 1\n");
    grabber.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_with_a_new_key_has_its_alias_again_after_the_grace() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&["--takeover-grace", "2s", "--start-grace", "0s"]);
    let (crashed, mut events) = claim(&fleet, &scraper, "job-1").await;
    assert_eq!(outcome(&mut events).await, None);
    drop(crashed);
    wait_unlinked(&scraper, "job-1");
    let (next, mut events) = claim(&fleet, &scraper, "job-1").await;
    assert_eq!(outcome(&mut events).await, Some(AliasRefusal::Taken));
    while outcome(&mut events).await.is_some() {}
    assert_eq!(holder(&scraper, "job-1"), next.public_key().to_string());
    next.shutdown().await;
}

/// Two agents with copies of one key, as of a machine image, and different targets. The second one is refused.
fn clones(fleet: &Fleet, scraper: &Scraper, exporter: &Exporter) -> (Process, Process) {
    let first = fleet.agent_of(scraper, "first", [("web-1", exporter.url("/first"))], &[]);
    scraper.wait_scraped("web-1");
    let copied = fleet.path().join("second-data");
    fs::create_dir_all(&copied).expect("a directory");
    fs::copy(fleet.path().join("first-data/agent.key"), copied.join("agent.key")).expect("copies, with its mode");
    let second = fleet.agent_of(scraper, "second", [("web-2", exporter.url("/second"))], &[]);
    (first, second)
}

fn two_exporters() -> Exporter {
    Exporter::start([("/first", Reply::text("first 1\n")), ("/second", Reply::text("second 1\n"))])
}

#[test]
fn a_second_process_with_a_copied_key_is_refused_and_both_are_told() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&SHORT_LEASE);
    let exporter = two_exporters();
    let (mut first, second) = clones(&fleet, &scraper, &exporter);
    second.wait_log(&["registration failed", "in use by another running process"]);
    first.wait_log(&["another process tries to register with the key of this client"]);
    scraper.process.wait_log(&["refused a second process", "holder="]);
    scraper.wait_counted(&["narthex_registrations_total", "key_in_use"], 1.0);
    assert_eq!(scraper.count(&["narthex_duplicate_keys"]), 1.0);
    assert_eq!(scraper.listed().expect("a list").into_keys().collect::<Vec<_>>(), ["web-1"], "nothing was released");
    assert_eq!(scraper.wait_scraped("web-1"), "first 1\n");

    let doctor = doctor(&fleet, &scraper);
    let line = doctor.lines().find(|line| line.contains("duplicate keys: ")).expect("the check").to_owned();
    assert!(line.starts_with("failed") && line.contains("another process"), "{line}");

    // The key is free once its holder is gone.
    first.kill();
    assert_eq!(scraper.wait_scraped("web-2"), "second 1\n");
}

#[test]
fn a_refused_process_that_ends_releases_nothing() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let exporter = two_exporters();
    let (_first, mut second) = clones(&fleet, &scraper, &exporter);
    second.wait_log(&["in use by another running process"]);
    assert!(second.terminate(SOON).success());
    assert_eq!(scraper.wait_scraped("web-1"), "first 1\n");
    assert_eq!(scraper.count(&["narthex_registrations_total", "released"]), 0.0);
}

#[test]
fn a_process_that_answers_no_more_loses_its_key_to_the_next_one() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let exporter = two_exporters();
    let first = fleet.agent_of(&scraper, "first", [("web-1", exporter.url("/first"))], &[]);
    scraper.wait_scraped("web-1");
    // The kernel keeps its connection open, as a host does that has lost its power.
    first.freeze();
    let copied = fleet.path().join("second-data");
    fs::create_dir_all(&copied).expect("a directory");
    fs::copy(fleet.path().join("first-data/agent.key"), copied.join("agent.key")).expect("copies");
    let second = fleet.agent_of(&scraper, "second", [("web-1", exporter.url("/second"))], &[]);
    let scraped = || {
        let answer = scraper.scrape("web-1", Duration::from_secs(1));
        (answer.status == 200).then(|| answer.text())
    };
    assert_eq!(eventually("the restarted agent is scraped", SOON, scraped), "second 1\n");
    assert_eq!(second.log_line(&["in use by another running process"]), None);
}

#[test]
fn an_operator_releases_all_aliases_of_a_key() {
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = two_exporters();
    let targets = [("a", exporter.url("/first")), ("b", exporter.url("/second"))];
    let mut agent = fleet.agent_of(&scraper, "agent", targets, &[]);
    scraper.wait_scraped("a");
    let key = holder(&scraper, "a");
    agent.kill();
    let release = |flags: &[&str]| {
        let url = format!("http://{}", scraper.http);
        Run::of(narthex("alias").args(["release", "--url", &url]).args(flags))
    };
    assert_eq!(release(&[]).code, Some(2));
    assert_eq!(release(&["a", "--peer", &key]).code, Some(2));
    let run = release(&["--peer", &key]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "released 2 aliases\n"), "{}", run.stderr);
    assert!(scraper.listed().expect("a list").is_empty());

    let _agent = fleet.agent_of(&scraper, "agent", [("c", exporter.url("/first"))], &[]);
    scraper.wait_scraped("c");
    let view = http::get(scraper.http, "/api/v1/aliases/c", &[]).expect("answers");
    let view: serde_json::Value = serde_json::from_slice(&view.body).expect("JSON");
    assert_eq!(view["key_kept"], true);
    let run = release(&["--secret", view["secret"].as_str().expect("an id")]);
    assert_eq!(run.stdout, "released 1 aliases\n", "{}", run.stderr);
}

/// What `narthex doctor` prints beside the scraper.
fn doctor(fleet: &Fleet, scraper: &Scraper) -> String {
    let [key, secret, data] =
        ["scraper.key", "fleet.secret", "scraper-data"].map(|name| text(&fleet.path().join(name)));
    let (http, listen) = (scraper.http.to_string(), scraper.peer().hint.expect("an address").to_string());
    let flags = ["--key", &key, "--secret-file", &secret, "--data-dir", &data, "--http", &http, "--listen", &listen];
    Run::of(narthex("doctor").env("NARTHEX_TIMEOUT", "30s").args(flags)).stdout
}
