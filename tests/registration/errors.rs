//! Each failure is named: in the client's log, in the scraper's counters, and in the answer to Prometheus.

use std::{
    convert::Infallible,
    fs,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use narthex::{
    Client,
    client::EventKind,
    identity::{KeyPair, PeerAddr, PublicKey},
};
use tokio::time::timeout;

use crate::support::{
    SOON, eventually, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper, narthex as narthex_command, scrape_path, text},
    http,
    ports::free_port,
    process::Process,
    stranger,
};

/// Short enough to wait for, long enough for a healthy scrape.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the log has of a key.
fn short(key: &PublicKey) -> String {
    key.to_string()[..8].to_owned()
}

#[test]
fn a_wrong_secret_is_named_at_both_ends() {
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let target = format!("web-1={}", exporter.url("/metrics"));
    let flags = ["--scraper", &scraper.peer().to_string(), "--target", &target];
    let mut agent = fleet.agent_with("agent", &fleet.wrong_secret_file(), &[], &flags);

    let line = wait_logged(&agent, &["registration failed", "secret"]);
    assert!(!line.contains("retry_in"), "it ends instead: {line}");
    assert_eq!(agent.wait(SOON).code(), Some(1));
    let log = agent.log();
    assert!(log.lines().last().is_some_and(|line| line.contains("copy the scraper's --secret-file here")), "{log}");
    scraper.wait_counted(&["narthex_handshake_refusals_total", "unknown_secret"], 0.0);
    wait_logged(
        &scraper.process,
        &["a peer's shared secret is none of ours", "component=scraper", "address=127.0.0.1:"],
    );
    assert!(scraper.listed().expect("a list").is_empty());
}

/// A refusal that only the operator can mend ends an agent if its given scrapers say so, and no other.
#[test]
fn a_refusal_by_a_learned_scraper_does_not_end_the_agent() {
    let (fleet, mut scraper) = Fleet::with_scraper();
    let (_elsewhere, other) = Fleet::with_scraper(); // of another secret
    scraper.process.kill();
    let data = fleet.path().join("agent-data");
    fs::create_dir(&data).expect("a directory");
    let learned = other.peer().to_string().replace('@', " ");
    fs::write(data.join("group"), format!("given {}\nmember {learned}\n", scraper.key)).expect("writes");
    let agent = fleet.agent_of(&scraper, "agent", [("web-1", "http://127.0.0.1:1")], &[]);
    wait_logged(&agent, &["registration failed", &short(&other.key), "secret"]);
    scraper.restart();
    scraper.wait_listed("web-1");
}

#[test]
fn files_of_a_target_that_are_not_there_are_reported_at_the_start() {
    let fleet = Fleet::new();
    let config = fleet.path().join("agent.toml");
    let files = "ca_file = \"none.pem\"\nusername = \"u\"\npassword_file = \"none.password\"";
    let target = format!("[[target]]\nalias = \"web-1\"\nurl = \"https://127.0.0.1:{}\"\n{files}\n", free_port());
    std::fs::write(&config, target).expect("writes");
    let nobody = PeerAddr::at(KeyPair::generate().public(), "127.0.0.1", free_port());
    let agent = fleet.agent("agent", &["--scraper", &nobody.to_string(), "--config", &text(&config)]);
    wait_logged(&agent, &["scrapes of this target will fail", "alias=web-1", "none.pem", "no such file"]);
    wait_logged(&agent, &["scrapes of this target will fail", "alias=web-1", "none.password", "no such file"]);
}

#[test]
fn an_agent_whose_key_is_its_scrapers_is_refused() {
    let fleet = Fleet::new();
    let key = KeyPair::generate();
    let file = fleet.path().join("own.key");
    narthex::identity::create_key(&file, &key).expect("the key is written");
    let own = PeerAddr::at(key.public(), "127.0.0.1", 1).to_string();
    let flags = ["--key", &text(&file), "--scraper", &own, "--target", "web-1=http://127.0.0.1:1"];
    let mut agent = fleet.agent("agent", &flags);
    assert_eq!(agent.wait(SOON).code(), Some(1));
    let log = agent.log();
    assert!(log.contains(&format!("error: scraper {} is this client's own key", key.public())), "{log}");
}

#[test]
fn a_wrong_key_at_the_hint_differs_from_nobody_there() {
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let target = format!("web-1={}", exporter.url("/metrics"));
    let expected = KeyPair::generate().public();

    let mut impostor = scraper.peer();
    impostor.key = expected;
    let agent = fleet.agent("wrong-key", &["--scraper", &impostor.to_string(), "--target", &target]);
    wait_logged(&agent, &["answered with another key", &short(&expected), &short(&scraper.key)]);

    let nobody = PeerAddr::at(expected, "127.0.0.1", free_port());
    let agent = fleet.agent("unreachable", &["--scraper", &nobody.to_string(), "--target", &target]);
    let line = wait_logged(&agent, &["cannot be reached", &short(&expected)]);
    assert!(line.to_lowercase().contains("refused"), "the system's own reason is logged: {line}");
    assert!(scraper.listed().expect("a list").is_empty());
}

#[test]
fn an_alias_that_is_held_is_refused_to_another_key() {
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = Exporter::start([
        ("/holder", Reply::text("whose{by=\"holder\"} 1\n")),
        ("/other", Reply::text("whose{by=\"other\"} 1\n")),
    ]);
    let mut holder = fleet.agent_of(&scraper, "holder", [("web-1", exporter.url("/holder"))], &[]);
    assert!(scraper.wait_scraped("web-1").contains("holder"));

    let other = fleet.agent_of(&scraper, "other", [("web-1", exporter.url("/other"))], &[]);
    wait_logged(&other, &["registration failed", "web-1", "taken"]);
    scraper.wait_counted(&["narthex_registrations_total", "taken"], 0.0);
    scraper.wait_counted(&["narthex_takeovers_total", "refused"], 0.0);
    assert!(scraper.wait_scraped("web-1").contains("holder"));

    // Once the holder is gone, the other client gets the alias by itself.
    assert!(holder.terminate(SOON).success());
    let its_next_try = Duration::from_secs(120);
    eventually("the other holds the alias", its_next_try, || {
        let answer = scraper.scrape("web-1", SOON);
        (answer.status == 200).then(|| assert!(answer.text().contains("other"), "{}", answer.text()))
    });
}

#[test]
fn an_exposition_over_the_agents_limit_is_refused_or_cut() {
    let (fleet, scraper) = Fleet::with_scraper();
    let lines = "m 1\n".repeat(256);
    let longer = lines.clone() + "n 1\n";
    let unannounced = |body: &str| Reply::Chunked {
        headers: vec![],
        chunks: body.as_bytes().chunks(100).map(<[u8]>::to_vec).collect(),
    };
    let exporter = Exporter::start([
        ("/fits", Reply::text(&lines)),
        ("/long", Reply::text(&longer)),
        ("/fits-unannounced", unannounced(&lines)),
        ("/long-unannounced", unannounced(&longer)),
    ]);
    let target = |alias| (alias, exporter.url(&format!("/{alias}")));
    let targets = ["fits", "long", "fits-unannounced", "long-unannounced"].map(target);
    let agent = fleet.agent_of(&scraper, "agent", targets, &["--max-body=1KiB"]);

    for alias in ["fits", "fits-unannounced"] {
        assert_eq!(scraper.wait_scraped(alias), lines);
    }
    assert_eq!(scraper.scrape("long", SOON).status, 502);
    wait_logged(&agent, &["pull failed", "alias=long ", "longer than 1024 bytes"]);
    // It breaks before the head or after it.
    let cut = http::get(scraper.http, &scrape_path("long-unannounced"), &[]);
    assert!(cut.is_err() || cut.is_ok_and(|answer| !answer.complete || answer.status == 502));
    wait_logged(&agent, &["pull failed", "alias=long-unannounced ", "longer than 1024 bytes"]);
}

#[test]
fn an_exporter_that_fails_gives_502_and_its_detail_stays_with_the_agent() {
    let (fleet, scraper) = Fleet::with_scraper();
    let failing = Reply::Whole { status: "500 Internal Server Error", headers: vec![], body: b"hunter2".to_vec() };
    let exporter = Exporter::start([("/fails", failing), ("/fine", Reply::text("m 1\n"))]);
    let down = format!("http://127.0.0.1:{}/metrics", free_port());
    let targets = [("fails", exporter.url("/fails")), ("down", down), ("fine", exporter.url("/fine"))];
    let agent = fleet.agent_of(&scraper, "agent", targets, &[]);
    scraper.wait_scraped("fine");

    let refused = || scraper.count(&["narthex_scrapes_total", "outcome=\"refused\""]);
    let before = refused();
    let answer = scraper.scrape("fails", PATIENCE);
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(answer.text().contains("fails") && !answer.text().contains("hunter2"), "{}", answer.text());
    wait_logged(&agent, &["pull failed", "fails", "500", "hunter2"]);
    assert_eq!(refused(), before + 1.0);

    let answer = scraper.scrape("down", PATIENCE);
    assert_eq!(answer.status, 502, "{}", answer.text());
    wait_logged(&agent, &["pull failed", "down", "refused"]);
    assert_eq!(refused(), before + 2.0);
}

#[test]
fn an_exporter_that_is_slow_gives_504_before_prometheus_gives_up() {
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = Exporter::start([("/slow", Reply::Hang), ("/fine", Reply::text("m 1\n"))]);
    let targets = ["slow", "fine"].map(|alias| (alias, exporter.url(&format!("/{alias}"))));
    let agent = fleet.agent_of(&scraper, "agent", targets, &[]);
    scraper.wait_scraped("fine");

    let deadline = || scraper.count(&["narthex_scrapes_total", "outcome=\"deadline\""]);
    let before = deadline();
    let answer = scraper.scrape("slow", PATIENCE);
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.text().contains("slow"), "{}", answer.text());
    assert_eq!(deadline(), before + 1.0);
    exporter.wait_abandoned("/slow");
    wait_logged(&agent, &["pull failed", "slow"]);
    assert_eq!(scraper.scrape("fine", PATIENCE).status, 200, "the link goes on");
}

#[test]
fn unknown_and_unlinked_aliases_are_distinguished() {
    let (fleet, scraper) = Fleet::with_scraper();
    let answer = scraper.scrape("nobody", PATIENCE);
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert!(answer.text().contains("nobody"), "{}", answer.text());
    assert_eq!(scraper.count(&["narthex_scrapes_total", "outcome=\"unknown_alias\""]), 1.0);

    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let mut agent = fleet.agent_of(&scraper, "agent", [("web-1", exporter.url("/metrics"))], &[]);
    scraper.wait_scraped("web-1");
    agent.kill();
    // Whether the scraper knows already or only finds out now.
    assert_eq!(scraper.scrape("web-1", PATIENCE).status, 502);
    eventually_true("the list shows that there is no link", SOON, || {
        scraper.wait_listed("web-1").label("__meta_narthex_path") == "none"
    });
    let not_connected = || scraper.count(&["narthex_scrapes_total", "outcome=\"not_connected\""]);
    let before = not_connected();
    let answer = scraper.scrape("web-1", PATIENCE);
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(answer.text().contains("not connected"), "{}", answer.text());
    assert_eq!(not_connected(), before + 1.0);
}

#[test]
fn what_can_never_work_is_bad_usage() {
    let fleet = Fleet::new();
    let key = KeyPair::generate().public();
    let (scraper, nowhere) = (PeerAddr::at(key, "127.0.0.1", 1).to_string(), key.to_string());
    let fine = "web-1=http://127.0.0.1:1/metrics";
    for (flags, what) in [
        (vec!["--target", fine, "--scraper", &nowhere], "--bootstrap"),
        (vec!["--target", "a b=http://127.0.0.1:1/metrics"], "a b"),
        (vec!["--target", "web-1=ftp://127.0.0.1/metrics"], "ftp"),
        (vec!["--target", fine, "--label", "instance=x"], "instance"),
        (vec!["--target", fine, "--label", "bad-name=x"], "bad-name"),
        (vec!["--target", fine, "--label", "__address__=x"], "__address__"),
    ] {
        let mut command = narthex_command("agent");
        command.args(["--secret-file", &text(&fleet.secret_file())]);
        if !flags.contains(&"--scraper") {
            command.args(["--scraper", &scraper]);
        }
        command.args(["--data-dir", &text(&fleet.path().join("agent-data"))]).args(&flags);
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("usage-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut agent = Process::spawn(&name, fleet.path(), &mut command);
        assert_eq!(agent.wait(SOON).code(), Some(2), "{flags:?}: {}", agent.log());
        assert!(agent.log().contains(what) && agent.log().trim().lines().count() == 1, "{flags:?}: {}", agent.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_pull_is_refused_unread_and_reported() {
    let fleet = Fleet::new();
    let node = fleet.node();
    let scraper = fleet.scraper(&["--bootstrap", &node.peer.to_string()]);
    let (stranger, port) = (KeyPair::generate(), free_port());
    let asked = tokio::spawn({
        let stranger = stranger.clone();
        async move { stranger::pull_from_whoever_connects(&stranger, port, "web-1").await }
    });
    // The stranger is a node that the client bootstraps from: connected, but none of its scrapers.
    let client = Client::builder(scraper.key, fleet.secret.clone())
        .alias("web-1")
        .metrics(|| Ok::<_, Infallible>("secret_numbers 42\n".to_owned()))
        .bootstrap([node.peer.clone(), PeerAddr::at(stranger.public(), "127.0.0.1", port)])
        .start()
        .await
        .expect("the client starts");
    let mut events = client.events();

    let blocked = timeout(SOON, async {
        loop {
            if let EventKind::FirewallBlocked { peer } = events.recv().await.expect("events go on").kind {
                return peer;
            }
        }
    });
    assert_eq!(blocked.await.expect("the refusal is reported"), stranger.public());
    let came_back = timeout(SOON, asked).await.expect("the stream was ended").expect("the stranger does not panic");
    let came_back = String::from_utf8_lossy(&came_back);
    assert!(!came_back.contains("HTTP/1.1") && !came_back.contains("secret_numbers"), "{came_back}");
    assert_eq!(scraper.wait_scraped("web-1"), "secret_numbers 42\n", "its own scraper is served");
    client.shutdown().await;
}

#[test]
fn requests_that_make_no_sense_change_nothing() {
    let (_fleet, scraper) = Fleet::with_scraper();
    for (method, path, status) in [
        ("GET", "/scrape/a%20b/metrics", 404),
        ("GET", "/scrape/..%2f..%2fetc/metrics", 404),
        ("POST", "/sd", 405),
        ("GET", "/sd?nonsense=1", 400),
        ("GET", "/nowhere", 404),
    ] {
        let answer = http::request(method, scraper.http, path, &[]).expect("an answer");
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
    assert_eq!(sd_text(&scraper), "[]");
}

fn sd_text(scraper: &Scraper) -> String {
    let answer = scraper.get("/sd");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    answer.text().trim().to_owned()
}

/// Waits until a line of the process's log holds all of `words`.
#[track_caller]
fn wait_logged(process: &Process, words: &[&str]) -> String {
    eventually(&format!("a log line with {words:?}"), SOON, || process.log_line(words))
}
