//! The agent's targets, from its configuration file and from directories of files, and how it keeps up with them.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::PathBuf,
    process::Command,
};

use crate::support::{
    SOON, eventually, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper, narthex, text},
    http,
    process::{Process, Run},
    replace_file,
    tls::{Authority, in_front_of},
};

/// Longer than any test: what happens sooner was not a renewal, and what needs SIGHUP was not a poll.
const NEVER: &str = "1h";

struct Setup {
    fleet: Fleet,
    scraper: Scraper,
    exporter: Exporter,
    targets: PathBuf,
}

impl Setup {
    fn new() -> Self {
        Self::beside(&[])
    }

    /// Beside a scraper with these further flags.
    fn beside(flags: &[&str]) -> Self {
        let fleet = Fleet::new();
        let scraper = fleet.scraper(&[&["--lease", NEVER], flags].concat());
        let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
        let targets = fleet.path().join("targets");
        fs::create_dir(&targets).expect("makes");
        Self { fleet, scraper, exporter, targets }
    }

    fn agent(&self, flags: &[&str]) -> Process {
        self.fleet.agent("agent", &[&["--scraper", &self.scraper.peer().to_string()], flags].concat())
    }

    fn watching(&self, refresh: &str) -> Process {
        self.agent(&["--targets-dir", &text(&self.targets), "--targets-refresh", refresh])
    }

    /// A target with these further keys.
    fn table(&self, alias: &str, keys: &str) -> String {
        format!("[[target]]\nalias = \"{alias}\"\nurl = \"http://{}\"\n{keys}\n", self.exporter.address)
    }

    fn put(&self, name: &str, content: &str) {
        replace_file(&self.targets.join(name), content);
    }

    fn config(&self, content: &str) -> PathBuf {
        let path = self.fleet.path().join("agent.toml");
        replace_file(&path, content);
        path
    }
}

#[test]
fn files_in_the_directory_are_followed() {
    let setup = Setup::new();
    setup.put("a.toml", &setup.table("web-1", "labels = { region = \"eu\" }"));
    let agent = setup.watching("50ms");
    assert_eq!(setup.scraper.wait_scraped("web-1"), "m 1\n");
    assert_eq!(setup.scraper.wait_listed("web-1").label("region"), "eu");

    // A changed label reaches Prometheus's list; what has not changed is not registered anew.
    let wait_updates = |count: f64| {
        let updates = || setup.scraper.count(&["narthex_registrations_total", "updated"]);
        eventually_true(&format!("{count} updates in all"), SOON, || updates() == count);
    };
    wait_updates(1.0);
    setup.put("a.toml", &setup.table("web-1", "labels = { region = \"us\" }\nservice = \"web\""));
    let relabelled = || {
        let listed = setup.scraper.wait_listed("web-1");
        listed.label("region") == "us" && listed.label("service") == "web"
    };
    eventually_true("the new labels are listed", SOON, relabelled);
    let file_sd = r#"[{"targets": ["ADDRESS"], "labels": {"__alias__": "sd-1", "job": "node"}}]"#;
    setup.put("b.json", &file_sd.replace("ADDRESS", &setup.exporter.address.to_string()));
    assert_eq!(setup.scraper.wait_scraped("sd-1"), "m 1\n");
    assert_eq!(setup.scraper.wait_listed("sd-1").label("service"), "node");
    wait_updates(3.0);

    // Broken: its targets stay, one log line reports the error, and the other files are still followed.
    setup.put("a.toml", "[[target]]\nalias = \"web-1\"\nurll = \"http://h\"\n");
    eventually("the broken file is reported", SOON, || agent.log_line(&["a.toml", "line 3", "urll"]));
    fs::remove_file(setup.targets.join("b.json")).expect("there");
    setup.scraper.wait_unlisted("sd-1");
    assert_eq!(setup.scraper.scrape("web-1", SOON).status, 200);
    assert_eq!(agent.log().matches("urll").count(), 1, "{}", agent.log());

    setup.put("a.toml", &setup.table("web-2", ""));
    setup.scraper.wait_scraped("web-2");
    setup.scraper.wait_unlisted("web-1");
    eventually("the mended file is reported", SOON, || agent.log_line(&["mended", "a.toml"]));
}

#[test]
fn targets_that_a_registration_has_no_room_for_are_left_out() {
    let setup = Setup::beside(&["--max-alias-bytes=128KiB", "--max-peer-bytes=8MiB"]);
    setup.put("a.toml", &setup.table("web-1", ""));
    let agent = setup.watching("50ms");
    setup.scraper.wait_scraped("web-1");
    let labels: Vec<String> = (0..32).map(|n| format!("l{n} = \"{}\"", "x".repeat(1024))).collect();
    let wide = |n| setup.table(&format!("wide-{n}"), &format!("labels = {{ {} }}", labels.join(", ")));
    setup.put("b.toml", &(0..32).map(wide).collect::<String>());
    agent.wait_log(&["3 targets are left out", "1048576 bytes"]);
    setup.scraper.wait_scraped("wide-28");
    assert_eq!(setup.scraper.scrape("wide-29", SOON).status, 404);
    assert_eq!(setup.scraper.scrape("web-1", SOON).status, 200);
    setup.put("b.toml", &(0..29).map(wide).collect::<String>());
    agent.wait_log(&["mended", "3 targets are left out"]);
}

#[test]
fn an_agent_may_start_with_an_empty_directory_and_follows_swapped_links() {
    let setup = Setup::new();
    let _agent = setup.watching("50ms");
    // As kubelet lays a ConfigMap out: files are links through one link, which is swapped.
    let version = |name: &str, alias: &str| {
        let directory = setup.targets.join(name);
        fs::create_dir(&directory).expect("makes");
        fs::write(directory.join("t.toml"), setup.table(alias, "")).expect("writes");
        let next = setup.targets.join("..data_tmp");
        symlink(name, &next).expect("links");
        fs::rename(next, setup.targets.join("..data")).expect("renames");
    };
    version("..v1", "one");
    symlink("..data/t.toml", setup.targets.join("t.toml")).expect("links");
    setup.scraper.wait_scraped("one");
    version("..v2", "two");
    setup.scraper.wait_scraped("two");
    setup.scraper.wait_unlisted("one");
}

#[test]
fn a_hangup_reads_file_and_directory_again_at_once() {
    let setup = Setup::new();
    let config = setup.config(&format!("service = \"fleet\"\n{}", setup.table("from-config", "")));
    let (config, targets) = (text(&config), text(&setup.targets));
    let agent = setup.agent(&["--config", &config, "--targets-dir", &targets, "--targets-refresh", NEVER]);
    setup.scraper.wait_scraped("from-config");
    assert_eq!(setup.scraper.wait_listed("from-config").label("service"), "fleet");

    // Without the service, which is read once only.
    setup.config(&setup.table("reloaded", ""));
    setup.put("t.toml", &setup.table("from-directory", ""));
    agent.hang_up();
    for alias in ["reloaded", "from-directory"] {
        setup.scraper.wait_scraped(alias);
    }
    setup.scraper.wait_unlisted("from-config");
    assert_eq!(setup.scraper.wait_listed("reloaded").label("service"), "fleet");
    eventually("that is reported", SOON, || agent.log_line(&["agent.toml", "need a restart"]));

    setup.config("[[target]]\nalias = \"x\"\n");
    setup.put("t.toml", &setup.table("changed", ""));
    agent.hang_up();
    setup.scraper.wait_scraped("changed");
    eventually("the broken configuration is reported", SOON, || {
        agent.log_line(&["agent.toml", "missing field", "url"])
    });
    assert_eq!(setup.scraper.scrape("reloaded", SOON).status, 200, "its targets stay");
    agent.hang_up();
    eventually("an idle hang-up is reported", SOON, || agent.log_line(&["nothing has changed"]));
}

#[test]
fn a_file_that_is_never_read_to_its_end_does_not_keep_the_agent_from_ending() {
    let setup = Setup::new();
    let config = setup.config(&setup.table("web-1", ""));
    let mut agent = setup.agent(&["--config", &text(&config)]);
    setup.scraper.wait_scraped("web-1");
    fs::remove_file(&config).expect("there");
    assert!(Command::new("mkfifo").arg(&config).status().expect("mkfifo runs").success());
    agent.hang_up();
    // Opens once the agent reads the pipe, and writes nothing.
    let _silent = File::options().write(true).open(&config).expect("opens");
    assert!(agent.terminate(SOON).success());
    setup.scraper.wait_unlisted("web-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_the_configuration_sets_everything() {
    let setup = Setup::new();
    setup.exporter.answer("/probe", Reply::Whole { status: "200 OK", headers: vec![], body: b"m 2\n".to_vec() });
    let ca = Authority::new(setup.fleet.path(), "ca");
    let address = in_front_of(setup.exporter.address, &ca.certify("127.0.0.1"), None).await;
    let password = setup.fleet.path().join("password");
    fs::write(&password, "hunter2").expect("writes");
    fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
    let config = setup.config(&format!(
        r#"
        [[target]]
        alias = "db-1"
        url = "https://{address}"
        path = "/probe"
        params = ["collect[]"]
        timeout = "2s"
        fallback_content_type = "text/plain; version=0.0.4"
        ca_file = "ca.pem"
        username = "prometheus"
        password_file = "password"

        [[target]]
        alias = "open"
        url = "https://{address}/metrics"
        insecure_skip_verify = true
        "#
    ));
    let agent = setup.agent(&["--config", &text(&config), "--log-level", "trace"]);
    setup.scraper.wait_scraped("db-1");
    let path = crate::support::fleet::scrape_path("db-1") + "?collect[]=cpu&target=evil";
    let answer = http::get(setup.scraper.http, &path, &[("Authorization", "Bearer theirs")]).expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "m 2\n"));
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4"));
    let asked = setup.exporter.wait_asked("/probe?collect[]=cpu");
    assert_eq!(asked.header("authorization"), Some("Basic cHJvbWV0aGV1czpodW50ZXIy"));
    assert_eq!(setup.scraper.wait_scraped("open"), "m 1\n");

    let log = agent.log();
    assert!(agent.log_line(&["insecure_skip_verify", "alias=open"]).is_some(), "{log}");
    for secret in ["hunter2", "cHJvbWV0aGV1czpodW50ZXIy", "theirs"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[test]
fn targets_that_cannot_be_meant_keep_the_agent_from_starting() {
    let setup = Setup::new();
    let refused = |config: Option<&str>, flags: &[&str], code: i32, parts: &[&str]| {
        let mut command = narthex("agent");
        command.args(["--scraper", &setup.scraper.peer().to_string()]);
        command.args(["--secret-file", &text(&setup.fleet.secret_file())]);
        command.args(["--data-dir", &text(&setup.fleet.path().join("refused"))]).args(flags);
        if let Some(config) = config {
            command.args(["--config", &text(&setup.config(config))]);
        }
        let Run { code: ended, stderr, .. } = Run::of(&mut command);
        assert_eq!(ended, Some(code), "{stderr}");
        assert!(parts.iter().all(|part| stderr.contains(part)), "{parts:?}: {stderr}");
    };
    refused(None, &[], 2, &["nothing to register", "--targets-dir"]);
    refused(Some("service = \"x\""), &[], 2, &["nothing to register"]);
    let unknown = setup.table("a", "unknown = 1");
    refused(Some(&unknown), &[], 2, &["agent.toml, line 4", "`unknown`"]);
    refused(
        Some(&setup.table("a", "ca_file = \"x\"")),
        &[],
        2,
        &["agent.toml", "target a", "ca_file needs an https://"],
    );
    refused(Some(&(setup.table("a", "") + &setup.table("a", ""))), &[], 2, &["alias a is given twice"]);
    for misspelt in [setup.table("a", "").replace("target", "targets"), "target = { alias = \"a\" }".to_owned()] {
        refused(Some(&misspelt), &[], 2, &["agent.toml", "every target is a table [[target]]"]);
    }
    refused(None, &["--targets-dir", "/nowhere/at/all"], 1, &["cannot read the directory /nowhere/at/all"]);
}

#[test]
fn flags_beat_the_tables_of_the_file_with_a_log_line() {
    let setup = Setup::new();
    let config = setup.config(&setup.table("from-config", ""));
    let target = format!("from-flag={}", setup.exporter.url("/metrics"));
    let agent = setup.agent(&["--config", &text(&config), "--target", &target]);
    setup.scraper.wait_scraped("from-flag");
    assert!(agent.log_line(&["[[target]] tables are not used", "agent.toml"]).is_some(), "{}", agent.log());
    assert!(!setup.scraper.listed().expect("a list").contains_key("from-config"));
}
