//! The list as files: kept by the scraper, or by `narthex file-sd` on another host.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use crate::support::{
    SOON, eventually, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Listed, Scraper, narthex, text},
    peers::Monitor,
    ports::{free_port, loopback},
    process::Process,
};

#[test]
fn prometheus_follows_the_scrapers_file_and_keeps_it_while_the_scraper_is_down() {
    let fleet = Fleet::new();
    let file = fleet.path().join("sd.json");
    let mut scraper = fleet.scraper(&["--file-sd", &text(&file)]);
    let Some(prometheus) = Monitor::prometheus_on(fleet.path(), &file_sd(&[&text(&file)]), &[]) else { return };
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let mut one = agent(&fleet, &scraper, &exporter, "one", &["--service", "web", "--label", "region=eu"]);
    let target = prometheus.wait_health("one", "up");
    assert_eq!((target.labels["service"].as_str(), target.labels["region"].as_str()), ("web", "eu"));
    let _two = agent(&fleet, &scraper, &exporter, "two", &[]);
    prometheus.wait_health("two", "up");

    let sd = scraper.get("/sd").text();
    eventually_true("the file equals /sd", SOON, || fs::read_to_string(&file).is_ok_and(|read| read == sd));
    scraper.process.kill();
    prometheus.wait_health("one", "down");
    assert_eq!(fs::read_to_string(&file).expect("reads"), sd);
    scraper.restart();
    prometheus.wait_health("one", "up");

    assert!(one.terminate(SOON).success());
    prometheus.wait_gone("one");
    prometheus.wait_health("two", "up");
    assert!(scraper.count(&["narthex_file_sd_writes_total", "ok"]) > 0.0);
}

#[test]
fn a_scraper_on_every_address_must_be_given_what_to_write() {
    let fleet = Fleet::new();
    let file = text(&fleet.path().join("sd.json"));
    let mut command = narthex("scraper");
    command.args(["--key", "k", "--secret-file", "s", "--http", "0.0.0.0:0", "--file-sd", &file]);
    let mut process = Process::spawn("refused", fleet.path(), &mut command);
    assert_eq!(process.wait(SOON).code(), Some(2));
    assert!(process.log().contains("--advertise"), "{}", process.log());

    let advertised = fleet.scraper(&["--file-sd", &file, "--advertise", "scraper.example:1"]);
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let _one = agent(&fleet, &advertised, &exporter, "one", &[]);
    let listed = eventually("one is in the file", SOON, || read(Path::new(&file)).pop());
    assert_eq!(listed.targets, ["scraper.example:1"]);
}

#[test]
fn file_sd_keeps_a_file_per_service_for_a_prometheus_elsewhere() {
    let (fleet, mut scraper) = Fleet::with_scraper();
    let out = fleet.path().join("out");
    fs::create_dir(&out).expect("makes");
    fs::write(out.join("narthex-theirs.json"), "[]").expect("writes");
    let Some(prometheus) = Monitor::prometheus_on(fleet.path(), &file_sd(&[&text(&out.join("narthex-*.json"))]), &[])
    else {
        return;
    };
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let mut web = agent(&fleet, &scraper, &exporter, "web-1", &["--service", "web/é"]);
    let _db = agent(&fleet, &scraper, &exporter, "db-1", &["--service", "db"]);
    let _bare = agent(&fleet, &scraper, &exporter, "bare-1", &[]);
    let mut mirror = mirror(&fleet, &scraper, &out);
    for alias in ["web-1", "db-1", "bare-1"] {
        prometheus.wait_health(alias, "up");
    }
    wait_files(&out, &[("_none", &["bare-1"]), ("db", &["db-1"]), ("theirs", &[]), ("web%2F%C3%A9", &["web-1"])]);
    let listed = &read(&out.join("narthex-db.json"))[0];
    assert_eq!(listed.targets, [scraper.http.to_string()]);
    assert_eq!(listed.labels, scraper.wait_listed("db-1").labels);

    assert!(web.terminate(SOON).success());
    wait_files(&out, &[("_none", &["bare-1"]), ("db", &["db-1"]), ("theirs", &[])]);
    prometheus.wait_gone("web-1");

    // Gone, and then there again without a list: nothing is dropped for that.
    scraper.process.kill();
    eventually_true("its log has that", SOON, || {
        mirror.log_line(&["out of date", &scraper.http.to_string()]).is_some()
    });
    prometheus.wait_health("db-1", "down");
    let kept = read(&out.join("narthex-db.json"));
    scraper.restart();
    prometheus.wait_health("db-1", "up");
    assert_eq!(kept[0].label("instance"), "db-1");
    eventually_true("its log has that", SOON, || mirror.log().matches("up to date").count() > 2);
    // file-sd asks five times a second and logs each reason once: reset while the scraper dies, refused while it is dead.
    let log = mirror.log();
    let reasons: Vec<_> = log.lines().filter_map(|line| line.split_once("out of date").map(|(_, why)| why)).collect();
    assert!(!reasons.is_empty() && reasons.iter().collect::<HashSet<_>>().len() == reasons.len(), "{reasons:?}");

    let status = mirror.terminate(SOON);
    assert!(status.success(), "{status}");
    wait_files(&out, &[("_none", &["bare-1"]), ("db", &["db-1"]), ("theirs", &[])]);
}

#[test]
fn file_sd_asks_once_and_fails_without_touching_a_file() {
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = Exporter::start([
        ("/metrics", Reply::text("m 1\n")),
        ("/odd", Reply::text("[{\"targets\": [], \"labels\": {}, \"extra\": 1}]")),
        (
            "/not-ready",
            Reply::Whole { status: "503 Service Unavailable", headers: vec![], body: b"loading\n".to_vec() },
        ),
        ("/cut", Reply::CutLength { len: 10, sent: b"[]".to_vec() }),
    ]);
    let _agent = agent(&fleet, &scraper, &exporter, "web-1", &["--service", "web", "--label", "env=prod"]);
    scraper.wait_listed("web-1");
    let out = fleet.path().join("made/on/the/way");
    let once = |from: &str| {
        let mut command = narthex("file-sd");
        command.args(["--once", "--from", from, "--out", &text(&out)]);
        let name = format!("once-{}", free_port());
        let mut process = Process::spawn(&name, fleet.path(), &mut command);
        (process.wait(SOON).code(), process.log())
    };
    let url = format!("http://{}", scraper.http);
    assert_eq!(once(&url).0, Some(0));
    wait_files(&out, &[("web", &["web-1"])]);
    let nobody = format!("http://{}/sd", loopback(free_port()));
    for (from, reason) in [
        (nobody.as_str(), "--from"),
        (&exporter.url("/odd"), "no http_sd list"),
        (&exporter.url("/metrics"), "no http_sd list"),
        (&exporter.url("/not-ready"), "loading (503)"),
        (&exporter.url("/cut"), "cut"),
        (&format!("{url}/nowhere"), "404"),
    ] {
        let (code, log) = once(from);
        assert_eq!(code, Some(1), "{from}: {log}");
        assert!(log.contains(reason), "{from}: {log}");
        wait_files(&out, &[("web", &["web-1"])]);
    }
    assert_eq!(once(&format!("{url}/sd?label=env:test")).0, Some(0));
    wait_files(&out, &[]);
}

fn file_sd(files: &[&str]) -> String {
    format!("  - job_name: narthex\n    file_sd_configs:\n      - files: {files:?}\n")
}

fn agent(fleet: &Fleet, scraper: &Scraper, exporter: &Exporter, alias: &str, more: &[&str]) -> Process {
    fleet.agent_of(scraper, alias, [(alias, exporter.url("/metrics"))], more)
}

fn mirror(fleet: &Fleet, scraper: &Scraper, out: &Path) -> Process {
    let mut command = narthex("file-sd");
    command.args(["--from", &format!("http://{}/sd", scraper.http), "--out", &text(out), "--interval", "200ms"]);
    Process::spawn("file-sd", fleet.path(), &mut command)
}

fn read(path: &Path) -> Vec<Listed> {
    fs::read(path).map_or_else(|_| Vec::new(), |json| serde_json::from_slice(&json).expect("a list"))
}

/// Waits until the directory has the files of these services, with these aliases.
#[track_caller]
fn wait_files(out: &Path, expected: &[(&str, &[&str])]) {
    let expected: BTreeMap<String, Vec<String>> = expected
        .iter()
        .map(|(service, aliases)| {
            (format!("narthex-{service}.json"), aliases.iter().map(|alias| (*alias).to_owned()).collect())
        })
        .collect();
    eventually_true(&format!("the files are {expected:?}"), SOON, || {
        let names = fs::read_dir(out).expect("reads").map(|entry| entry.expect("an entry").path());
        let files: Vec<PathBuf> = names.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
        let aliases = |path: &PathBuf| read(path).iter().map(|listed| listed.label("instance").to_owned()).collect();
        let name = |path: &PathBuf| path.file_name().expect("a name").to_str().expect("text").to_owned();
        files.iter().map(|path| (name(path), aliases(path))).collect::<BTreeMap<String, Vec<String>>>() == expected
    });
}
