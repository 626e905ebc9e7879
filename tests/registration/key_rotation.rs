//! A scraper's own key is changed as `narthex key rotate` says, while its clients go on.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::support::{
    SOON, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, narthex, text},
    process::Process,
    program::skip,
};

fn rotate(key: &Path) -> String {
    said(narthex("key").args(["rotate", "--key", &text(key)]).output().expect("runs"))
}

#[track_caller]
fn said(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

/// The key of a line such as `next key   KEY   FILE`.
fn key_of<'a>(plan: &'a str, name: &str) -> &'a str {
    plan.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()).expect(name)
}

fn file(fleet: &Fleet, name: &str) -> PathBuf {
    fleet.path().join(name)
}

#[test]
fn each_client_that_was_told_the_next_key_is_scraped_after_the_change() {
    let fleet = Fleet::new();
    let mut scraper = fleet.scraper(&[]);
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let plan = rotate(&file(&fleet, "scraper.key"));
    let next = key_of(&plan, "next key").to_owned();
    assert_eq!(rotate(&file(&fleet, "scraper.key")), plan, "no second key is made");

    let at = scraper.peer();
    let present = at.to_string();
    let address = present.split_once('@').expect("an address").1.to_owned();
    let further = format!("{next}@{address}");
    let ticket = |name: &str, more: &[&str]| {
        let data = text(&file(&fleet, "scraper-data"));
        said(narthex("ticket").args(["create", name, "--data-dir", &data]).args(more).output().expect("runs"))
    };
    let (plain, both) = (ticket("plain", &[]), ticket("both", &["--also", &next]));
    let secret = text(&fleet.secret_file());
    let agents: [(&str, Option<&str>, Vec<&str>); 4] = [
        ("by-flags", None, vec!["--secret-file", &secret, "--scraper", &present, "--scraper", &further]),
        ("beside-a-ticket", Some(&plain), vec!["--scraper", &further]),
        ("by-a-new-ticket", Some(&both), vec![]),
        ("not-told", None, vec!["--secret-file", &secret, "--scraper", &present]),
    ];
    let mut agents = agents.map(|(name, ticket, flags)| {
        let mut command = narthex("agent");
        command.args(["--data-dir", &text(&file(&fleet, &format!("{name}-data")))]).args(flags);
        command.args(["--target", &format!("{name}={}", exporter.url("/metrics"))]);
        command.envs(ticket.map(|line| ("NARTHEX_TICKET", line)));
        Process::spawn(name, fleet.path(), &mut command)
    });
    let told = ["by-flags", "beside-a-ticket", "by-a-new-ticket"];
    for alias in told.into_iter().chain(["not-told"]) {
        scraper.wait_scraped(alias);
    }

    scraper.process.terminate(SOON);
    let moved = plan.lines().map(str::trim).find(|line| line.starts_with("mv ")).expect("a command");
    said(Command::new("sh").args(["-c", moved]).output().expect("runs"));
    scraper.restart();
    for alias in told {
        scraper.wait_scraped(alias);
    }
    assert_ne!(scraper.get("/scrape/not-told/metrics").status, 200);
    // Before, an agent that had both keys waited for the old one for a minute when it ended.
    assert!(agents[0].terminate(SOON).success());
    let left = rotate(&file(&fleet, "scraper.key"));
    assert_eq!(key_of(&left, "present key"), next);
    let removed = left.lines().map(str::trim).find(|line| line.starts_with("rm ")).expect("a command");
    said(Command::new("sh").args(["-c", removed]).output().expect("runs"));
    eventually_true("the next rotation begins", SOON, || {
        key_of(&rotate(&file(&fleet, "scraper.key")), "next key") != next
    });
    assert!(fs::exists(file(&fleet, "scraper.next.key")).expect("is asked"));
}

/// The scraper of a hardened unit runs as another user than whoever changes its key.
#[test]
fn the_next_key_is_the_owners_of_the_present_one() {
    const NOBODY: u32 = 65_534;
    let fleet = Fleet::new();
    let key = file(&fleet, "own.key");
    said(narthex("keygen").args(["--out", &text(&key)]).output().expect("runs"));
    if chown(&key, Some(NOBODY), Some(NOBODY)).is_err() {
        return skip("a key of somebody else's takes root");
    }
    rotate(&key);
    let next = fs::metadata(file(&fleet, "own.next.key")).expect("there");
    assert_eq!((next.uid(), next.gid(), next.mode() & 0o7777), (NOBODY, NOBODY, 0o600));
}
