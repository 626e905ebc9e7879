//! The registration log of a running scraper, read by its own command and by another program.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use crate::support::{
    SOON,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper, narthex, text},
    program::program,
};

/// What docs/security.md says of the chain, in another language: the numbers, the hashes, and no more.
const CHECK: &str = r#"
import hashlib, json, pathlib, sys
seq, prev = 0, "0" * 64
for file in sorted(pathlib.Path(sys.argv[1]).glob("*.jsonl")):
    for line in file.read_bytes().splitlines():
        entry = json.loads(line)
        assert (entry["seq"], entry["prev"]) == (seq + 1, prev), entry
        seq, prev = entry["seq"], hashlib.sha256(line).hexdigest()
print(f"{seq}:{prev}")
"#;

fn log(fleet: &Fleet, words: &[&str]) -> Output {
    let data = text(&fleet.path().join("scraper-data"));
    narthex("log").args(words).args(["--data-dir", &data]).output().expect("runs")
}

#[track_caller]
fn said(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn directory(fleet: &Fleet) -> PathBuf {
    fleet.path().join("scraper-data/registrations")
}

fn with_alias(fleet: &Fleet) -> (Scraper, Exporter) {
    let scraper = fleet.scraper(&["--registration-log"]);
    (scraper, Exporter::start([("/metrics", Reply::text("m 1\n"))]))
}

#[test]
fn the_log_says_who_came_and_why_they_went_and_is_whole_after_a_kill() {
    let fleet = Fleet::new();
    let (mut scraper, exporter) = with_alias(&fleet);
    let url = exporter.url("/metrics");
    let agent = fleet.agent_of(&scraper, "a", [("web-1", &url), ("db-1", &url)], &[]);
    let key = scraper.wait_listed("web-1").label("__meta_narthex_public_key").to_owned();
    scraper.wait_listed("db-1");
    let data = text(&fleet.path().join("scraper-data"));
    let blocked = narthex("peer").args(["block", &key, "--data-dir", &data]).output().expect("runs");
    assert!(blocked.status.success());
    scraper.process.kill();
    scraper.restart();
    drop(agent);

    let shown = said(log(&fleet, &["show", "--alias", "web-*", "--since", "1h"]));
    let events: Vec<&str> = shown.lines().collect();
    assert_eq!(events.len(), 2, "{shown}");
    assert!(events[0].contains("registered") && events[0].contains("secret=fleet"), "{shown}");
    assert!(events[0].contains("address=loopback") && events[0].contains(&format!("peer={key}")), "{shown}");
    assert!(events[1].contains("released") && events[1].ends_with("why=blocked"), "{shown}");

    let own = scraper.peer().key.to_string();
    let verified = said(log(&fleet, &["verify", "--scraper-key", &own]));
    assert!(verified.starts_with("ok: entries 1 to ") && verified.contains(&format!("signed by {own}")), "{verified}");
    let head = verified.lines().find_map(|line| line.strip_prefix("head ")).expect("a head").to_owned();
    scraper.process.terminate(SOON);
    let head_of_now = said(log(&fleet, &["verify", "--head", &head]));
    if let Some(python) = program("python3", "python3") {
        let mut python = Command::new(python);
        let checked = said(python.args(["-c", CHECK, &text(&directory(&fleet))]).output().expect("runs"));
        assert!(head_of_now.contains(&format!("head {}", checked.trim_end())), "{checked} {head_of_now}");
    }
}

#[test]
fn a_changed_line_is_named_and_a_log_that_is_not_there_is_said_to_be_missing() {
    let fleet = Fleet::new();
    let (scraper, exporter) = with_alias(&fleet);
    let _agent = fleet.agent_of(&scraper, "a", [("web-1", exporter.url("/metrics"))], &[]);
    scraper.wait_listed("web-1");
    let file = fs::read_dir(directory(&fleet)).expect("there").next().expect("a file").expect("read").path();
    let changed = fs::read_to_string(&file).expect("text").replace("web-1", "web-2");
    let aside = fleet.path().join("copy");
    fs::create_dir(&aside).expect("made");
    fs::write(aside.join(file.file_name().expect("a name")), changed + "\n").expect("written");
    let broken = narthex("log").args(["verify", &text(&aside)]).output().expect("runs");
    let error = String::from_utf8_lossy(&broken.stderr).into_owned();
    assert!(broken.status.code() == Some(1) && error.lines().count() == 1, "{error}");
    assert!(error.contains("the log is broken") && error.contains(" line "), "{error}");

    let missing = narthex("log").args(["verify", &text(&fleet.path().join("none"))]).output().expect("runs");
    let error = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(missing.status.code() == Some(1) && error.contains("--registration-log"), "{error}");
}
