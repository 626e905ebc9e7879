//! Ends: of a process by SIGTERM, of a scrape by its requester.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixDatagram,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use crate::support::{
    SOON, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, narthex, scrape_path, text},
    http,
    process::Process,
};

/// What a pipe holds (pipe(7)).
const PIPE: usize = 65_536;
/// What the service manager of a test sets as `WatchdogSec=`.
const WATCHDOG: Duration = Duration::from_millis(400);

#[test]
fn a_scrape_in_flight_completes_when_the_scraper_is_asked_to_end() {
    let fleet = Fleet::new();
    let mut scraper = fleet.scraper(&[]);
    let exporter = Exporter::start([("/gated", Reply::Gated(Box::new(Reply::text("late 1\n"))))]);
    let _agent = fleet.agent_of(&scraper, "agent", [("gated", exporter.url("/gated"))], &[]);
    scraper.wait_listed("gated");

    let address = scraper.http;
    let scrape = thread::spawn(move || {
        http::get(address, &scrape_path("gated"), &[("X-Prometheus-Scrape-Timeout-Seconds", "30")])
    });
    exporter.wait_asked("/gated");
    scraper.process.ask_to_end();
    eventually_true("no new requests are taken", SOON, || {
        http::get(address, "/-/ready", &[]).map_or(true, |answer| answer.status != 200)
    });
    exporter.open_gate();

    let answer = scrape.join().expect("the scrape does not panic").expect("an answer");
    assert_eq!((answer.status, answer.text().as_str(), answer.complete), (200, "late 1\n", true));
    let status = scraper.process.wait(SOON);
    assert!(status.success(), "{status}");
}

#[test]
fn an_agent_that_is_asked_to_end_releases_its_aliases() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let targets = ["one", "two"].map(|alias| (alias, exporter.url("/metrics")));
    let mut agent = fleet.agent_of(&scraper, "agent", targets, &[]);
    scraper.wait_scraped("one");
    scraper.wait_scraped("two");

    let status = agent.terminate(SOON);
    assert!(status.success(), "{status}");
    // Not sooner or later: a release is acknowledged before the agent ends.
    assert!(scraper.listed().expect("a list").is_empty());
    assert_eq!(scraper.scrape("one", SOON).status, 404);
}

#[test]
fn an_exporter_is_no_longer_asked_when_prometheus_went_away() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let exporter = Exporter::start([("/hang", Reply::Hang), ("/metrics", Reply::text("m 1\n"))]);
    let targets = [("hang", exporter.url("/hang")), ("fine", exporter.url("/metrics"))];
    let _agent = fleet.agent_of(&scraper, "agent", targets, &[]);
    scraper.wait_scraped("fine");

    let headers = [("X-Prometheus-Scrape-Timeout-Seconds", "50")];
    let connection = http::send("GET", scraper.http, &scrape_path("hang"), &headers).expect("sent");
    exporter.wait_asked("/hang");
    drop(connection);
    exporter.wait_abandoned("/hang");
    assert_eq!(scraper.scrape("fine", SOON).status, 200, "the link goes on");
}

#[test]
fn an_exporter_is_no_longer_asked_when_the_scraper_went_away() {
    let fleet = Fleet::new();
    let mut scraper = fleet.scraper(&[]);
    let exporter = Exporter::start([("/hang", Reply::Hang)]);
    let _agent = fleet.agent_of(&scraper, "agent", [("hang", exporter.url("/hang"))], &[]);
    scraper.wait_listed("hang");

    let headers = [("X-Prometheus-Scrape-Timeout-Seconds", "50")];
    let _connection = http::send("GET", scraper.http, &scrape_path("hang"), &headers).expect("sent");
    exporter.wait_asked("/hang");
    scraper.process.kill();
    exporter.wait_abandoned("/hang");
}

/// Before: the first line of the log stopped the process, which then ignored SIGTERM.
#[test]
fn a_stderr_that_nobody_reads_stops_nothing_and_loses_no_last_line() {
    let fleet = Fleet::new();
    let mut scraper = fleet.scraper(&[]);
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let _agent = fleet.agent_of(&scraper, "agent", [("web-1", exporter.url("/metrics"))], &[]);
    scraper.wait_scraped("web-1");
    scraper.process.kill();

    let (mut reader, mut pipe) = io::pipe().expect("a pipe");
    pipe.write_all(&[b'x'; PIPE]).expect("as much as fits");
    scraper.restart_with(|command, directory| Process::spawn_logging_to(pipe.into(), "scraper", directory, command));
    scraper.wait_scraped("web-1");
    scraper.wait_listed("web-1");
    let status = scraper.process.terminate(SOON);
    assert!(status.success(), "{status}");
    assert_eq!(reader.read_to_end(&mut Vec::new()).expect("reads"), PIPE);

    let (reader, mut pipe) = io::pipe().expect("a pipe");
    pipe.write_all(&[b'x'; PIPE]).expect("as much as fits");
    scraper.restart_with(|command, directory| Process::spawn_logging_to(pipe.into(), "scraper", directory, command));
    scraper.process.ask_to_end();
    let log = io::read_to_string(reader).expect("text");
    assert!(log.contains("scraper runs") && log.contains("scraper ended"), "{}", &log[PIPE..]);
}

/// Before: a warning for each client that was back before the table was loaded.
#[test]
fn clients_that_are_back_before_the_table_is_loaded_are_no_warning() {
    let (fleet, mut scraper) = Fleet::with_scraper();
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let _agents = ["one", "two", "three", "four"]
        .map(|name| fleet.agent_of(&scraper, name, [(name, exporter.url("/metrics"))], &[]));
    for _ in 0..3 {
        for alias in ["one", "two", "three", "four"] {
            scraper.wait_scraped(alias);
        }
        scraper.process.kill();
        scraper.restart();
    }
    let log = scraper.process.log();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("could not register")).collect();
    assert!(warnings.is_empty(), "{warnings:?}");
}

/// Before: "have two processes the same key?" after every storm.
#[test]
fn an_agent_that_is_killed_and_back_at_once_is_no_second_process() {
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    for _ in 0..5 {
        let granted = ["narthex_registrations_total", "ed\""]; // updated, renewed
        let before = scraper.count(&granted);
        let mut agent = fleet.agent_of(&scraper, "agent", [("web-1", exporter.url("/metrics"))], &[]);
        scraper.wait_counted(&granted, before);
        agent.kill();
    }
    assert_eq!(scraper.count(&["narthex_duplicate_keys"]), 0.0);
    assert_eq!(scraper.process.log_line(&["was it copied"]), None);
}

/// A process that a service manager of ours watches.
struct Watched {
    process: Process,
    socket: UnixDatagram,
}

impl Watched {
    fn start(name: &str, dir: &Path, command: &mut Command) -> Self {
        let path = dir.join(format!("{name}.notify"));
        let socket = UnixDatagram::bind(&path).expect("binds");
        socket.set_read_timeout(Some(SOON)).expect("a time");
        let limit = WATCHDOG.as_micros().to_string();
        command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", limit);
        Self { process: Process::spawn(name, dir, command), socket }
    }

    fn hear(&self) -> String {
        let mut heard = [0; 64];
        let len = self.socket.recv(&mut heard).expect("is told in time");
        String::from_utf8_lossy(&heard[..len]).trim().to_owned()
    }
}

#[test]
fn a_service_manager_hears_of_every_role_that_it_serves_lives_and_ends() {
    let (fleet, scraper) = Fleet::with_scraper();
    let dir = |name: &str| text(&fleet.path().join(name));
    let (secret, peer) = (text(&fleet.secret_file()), scraper.peer().to_string());
    let mut commands = ["node", "agent", "scraper"].map(|role| (role, narthex(role)));
    commands[0].1.args(["--data-dir", &dir("a"), "--listen", "127.0.0.1:0"]);
    commands[1].1.args(["--data-dir", &dir("b"), "--scraper", &peer, "--secret-file", &secret, "--target"]);
    commands[1].1.arg("web-1=http://127.0.0.1:9/metrics");
    commands[2].1.args(["--data-dir", &dir("c"), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    commands[2].1.args(["--key", &dir("scraper.key"), "--secret-file", &secret]);
    for (role, mut command) in commands {
        let mut watched = Watched::start(&format!("watched-{role}"), fleet.path(), &mut command);
        assert_eq!(watched.hear(), "READY=1", "{role}");
        for _ in 0..3 {
            assert_eq!(watched.hear(), "WATCHDOG=1", "{role}");
        }
        watched.process.ask_to_end();
        while watched.hear() != "STOPPING=1" {}
        assert!(watched.process.wait(SOON).success(), "{role}");
    }
}

/// Before: an agent and a scraper whose messages nobody read said "stopping", and never ended.
#[test]
fn a_service_manager_that_does_not_read_keeps_no_role_from_its_end() {
    let (fleet, scraper) = Fleet::with_scraper();
    let dir = |name: &str| text(&fleet.path().join(name));
    let mut command = narthex("agent");
    command.args(["--data-dir", &dir("a"), "--scraper", &scraper.peer().to_string(), "--secret-file"]);
    command.args([&text(&fleet.secret_file()), "--target", "web-1=http://127.0.0.1:9/metrics"]);
    let path = fleet.path().join("deaf.notify");
    let _unread = UnixDatagram::bind(&path).expect("binds");
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("a mode");
    while filler.send_to(b"x", &path).is_ok() {}
    let mut agent = Process::spawn("deaf", fleet.path(), command.env("NOTIFY_SOCKET", &path));
    scraper.wait_listed("web-1");
    assert!(agent.terminate(SOON).success());
    scraper.wait_unlisted("web-1");
}
