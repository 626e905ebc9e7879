//! Tickets: one line with which an agent joins, what it may do, and its end.

use std::{
    fs,
    io::Write,
    process::{Command, Output, Stdio},
};

use crate::support::{
    SOON,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper, narthex, text},
    process::Process,
};

fn exporter() -> Exporter {
    Exporter::start([("/metrics", Reply::text("m 1\n"))])
}

/// Asks the scraper of the data directory.
fn ticket(fleet: &Fleet, words: &[&str]) -> Output {
    narthex("ticket")
        .args(words)
        .args(["--data-dir", &text(&fleet.path().join("scraper-data"))])
        .output()
        .expect("runs")
}

#[track_caller]
fn made(fleet: &Fleet, words: &[&str]) -> String {
    let output = ticket(fleet, &[&["create"], words].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

/// An agent that knows nothing but the ticket and its targets.
fn agent(fleet: &Fleet, name: &str, line: &str, targets: &[String]) -> Process {
    let data = fleet.path().join(format!("{name}-data"));
    let mut command = narthex("agent");
    command.env("NARTHEX_TICKET", line).args(["--data-dir", &text(&data)]);
    for target in targets {
        command.args(["--target", target]);
    }
    Process::spawn(name, fleet.path(), &mut command)
}

fn scraped(scraper: &Scraper, alias: &str) {
    assert_eq!(scraper.wait_scraped(alias), "m 1\n");
}

#[test]
fn a_ticket_is_all_that_an_agent_needs_and_its_revocation_cuts_it_off() {
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = exporter();
    let url = exporter.url("/metrics");
    let lines = [made(&fleet, &["a"]), made(&fleet, &["b"])];
    let [_a, b] =
        ["a", "b"].map(|name| agent(&fleet, name, &lines[usize::from(name == "b")], &[format!("web-{name}={url}")]));
    scraped(&scraper, "web-a");
    scraped(&scraper, "web-b");

    let revoked = ticket(&fleet, &["revoke", "b"]);
    assert_eq!(String::from_utf8_lossy(&revoked.stdout), "revoked b: released 1 aliases\n");
    assert_eq!(scraper.get("/scrape/web-b/metrics").status, 404, "at once");
    assert!(!scraper.listed().expect("a list").contains_key("web-b"));
    b.wait_log(&["registration failed", "unknown secret"]);
    scraped(&scraper, "web-a");
    assert!(!scraper.listed().expect("a list").contains_key("web-b"), "it does not come back");
    assert_eq!(ticket(&fleet, &["revoke", "b"]).status.code(), Some(1));
}

#[test]
fn a_ticket_grants_what_it_says_and_no_more() {
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = exporter();
    let url = exporter.url("/metrics");
    let line = made(&fleet, &["db", "--alias", "db-*", "--label", "tenant=a", "--most-aliases", "2", "--uses", "1"]);
    let targets = ["db-1", "web-1", "db-2", "db-3"].map(|alias| format!("{alias}={url}"));
    let process = agent(&fleet, "first", &line, &targets);
    process.wait_log(&["registration failed", "alias web-1 was refused: out of scope"]);
    process.wait_log(&["registration failed", "alias db-3 was refused: full"]);
    scraper.wait_listed("db-1");
    let listed = scraper.listed().expect("a list");
    assert_eq!(listed.keys().collect::<Vec<_>>(), ["db-1", "db-2"]);
    assert!(listed.values().all(|listed| listed.label("tenant") == "a"));

    let mut second = agent(&fleet, "second", &line, &[format!("db-9={url}")]);
    second.wait_log(&["registration failed", "not admitted"]);
    assert_eq!(second.wait(SOON).code(), Some(1));
    scraper.wait_counted(&["narthex_handshake_refusals_total", "not_admitted"], 0.0);
    let list = String::from_utf8(ticket(&fleet, &["list"]).stdout).expect("text");
    assert!(list.contains("db-*") && list.contains("tenant=a") && !list.contains(&line), "{list}");
}

/// A ticket and its first use outlive a kill.
#[test]
fn a_ticket_is_known_after_a_kill() {
    let (fleet, mut scraper) = Fleet::with_scraper();
    let exporter = exporter();
    let target = format!("web-1={}", exporter.url("/metrics"));
    let line = made(&fleet, &["once", "--uses", "1", "--expires", "1h"]);
    let _agent = agent(&fleet, "agent", &line, std::slice::from_ref(&target));
    scraped(&scraper, "web-1");
    scraper.process.kill();
    scraper.restart();
    scraped(&scraper, "web-1");
    let mut other = agent(&fleet, "other", &line, &[target]);
    assert_eq!(other.wait(SOON).code(), Some(1), "{}", other.log());
}

/// What is typed by hand: files, standard input, and what is wrong with them.
#[test]
fn a_ticket_comes_from_a_private_file_or_standard_input_and_never_from_the_command_line() {
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = exporter();
    let target = format!("web-1={}", exporter.url("/metrics"));
    let file = fleet.path().join("a.ticket");
    made(&fleet, &["a", "--out", &text(&file)]);
    let line = made(&fleet, &["b"]);
    let run = |flags: &[&str], input: &str| {
        let mut command = narthex("agent");
        command.args(["--check-config", "--target", &target, "--data-dir", &text(&fleet.path().join("agent-data"))]);
        let piped = command.args(flags).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Command::spawn(piped).expect("runs");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("reads");
        let output = child.wait_with_output().expect("ends");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    assert_eq!(run(&["--ticket-file", &text(&file)], "").0, Some(0));
    assert_eq!(run(&["--ticket-file", "-"], &format!("{}\n", &line)).0, Some(0));
    let (code, error) = run(&["--ticket-file", "-"], &line[..line.len() - 9]);
    assert!(code == Some(1) && error.contains("copy the whole line"), "{error}");
    let (code, error) = run(&["--ticket", &line], "");
    assert!(code == Some(2) && error.contains("--ticket-file") && !error.contains(&line), "{error}");
    assert!(!fs::read_to_string(&file).expect("text").contains(&line));
    drop(scraper);
}

#[test]
fn a_ticket_whose_file_cannot_be_written_is_none() {
    let (fleet, _scraper) = Fleet::with_scraper();
    let file = fleet.path().join("there");
    fs::write(&file, "mine").expect("writes");
    let output = ticket(&fleet, &["create", "a", "--out", &text(&file)]);
    assert!(output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("--out"));
    assert_eq!(fs::read_to_string(&file).expect("text"), "mine");
    let list = String::from_utf8(ticket(&fleet, &["list", "--json"]).stdout).expect("text");
    assert_eq!(list, "[]\n");
}

#[test]
fn the_doctor_takes_a_ticket() {
    let (fleet, _scraper) = Fleet::with_scraper();
    let exporter = exporter();
    let target = format!("web-1={}", exporter.url("/metrics"));
    let line = made(&fleet, &["a"]);
    let doctor = |line: &str| {
        let mut command = narthex("doctor");
        command.env("NARTHEX_TICKET", line).args([
            "--data-dir",
            &text(&fleet.path().join("data")),
            "--target",
            &target,
        ]);
        let output = command.output().expect("runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let (code, report) = doctor(&line);
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("both sides have proved it") && !report.contains(&line), "{report}");
    ticket(&fleet, &["revoke", "a"]);
    let (code, report) = doctor(&line);
    assert!(code == Some(1) && report.contains("unknown secret"), "{report}");
}
