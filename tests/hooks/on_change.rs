//! `narthex scraper --on-change`: real commands, started by a real scraper.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::support::{
    SOON, eventually, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper, narthex, text},
    http,
    ports::{free_port, loopback},
    process::{Process, Run},
};

const RUNS: &str = "narthex_on_change_runs_total";

/// Keeps the stdin of each run as `0`, `1` and so on below `runs`, and then goes on with `more`.
struct Recorder {
    dir: PathBuf,
    script: PathBuf,
}

impl Recorder {
    fn new(fleet: &Fleet, more: &str) -> Self {
        let (dir, script) = (fleet.path().join("runs"), fleet.path().join("it's a script.sh"));
        fs::create_dir(&dir).expect("makes");
        let lines = format!("cd \"$1\" || exit 9\ncat > .new\nmv .new $(ls | wc -l)\n{more}\n");
        fs::write(&script, lines).expect("writes");
        Self { dir, script }
    }

    /// The flag's value.
    fn command(&self) -> String {
        format!("sh \"{}\" '{}'", text(&self.script), text(&self.dir))
    }

    fn runs(&self) -> usize {
        fs::read_dir(&self.dir)
            .expect("reads")
            .filter(|entry| !hidden(&entry.as_ref().expect("an entry").path()))
            .count()
    }

    fn newest(&self) -> Option<String> {
        fs::read_to_string(self.dir.join(self.runs().checked_sub(1)?.to_string())).ok()
    }

    /// Waits until the last run had the very list that `/sd` answers, and this list has so many aliases.
    #[track_caller]
    fn wait_newest(&self, scraper: &Scraper, aliases: usize) {
        eventually_true("the newest run had the list", SOON, || {
            let sd = scraper.get("/sd").text();
            sd.matches("\"instance\"").count() == aliases && self.newest().is_some_and(|newest| newest == sd)
        });
    }
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

fn exporter() -> Exporter {
    Exporter::start([("/metrics", Reply::text("m 1\n"))])
}

fn agent(fleet: &Fleet, scraper: &Scraper, exporter: &Exporter, alias: &str) -> Process {
    fleet.agent_of(scraper, alias, [(alias, exporter.url("/metrics"))], &[])
}

#[test]
fn every_change_runs_the_command_with_the_answer_of_sd() {
    let fleet = Fleet::new();
    let recorder = Recorder::new(&fleet, "echo said 'so much'; echo >&2 'and \x1b[31mred'");
    let scraper = fleet.scraper(&["--on-change", &recorder.command(), "--on-change-cooldown", "0s"]);
    recorder.wait_newest(&scraper, 0);
    let exporter = exporter();
    let mut one = agent(&fleet, &scraper, &exporter, "one");
    scraper.wait_listed("one");
    recorder.wait_newest(&scraper, 1);
    let _two = agent(&fleet, &scraper, &exporter, "two");
    scraper.wait_listed("two");
    recorder.wait_newest(&scraper, 2);
    assert!(one.terminate(SOON).success());
    scraper.wait_unlisted("one");
    recorder.wait_newest(&scraper, 1);
    scraper.wait_counted(&[RUNS, "ok"], 3.0);
    assert_eq!(scraper.count(&[RUNS]), scraper.count(&[RUNS, "ok"]));
    scraper.process.wait_log(&["stdout", "said so much"]);
    let red = scraper.process.wait_log(&["stderr", "red"]);
    assert!(red.contains("\\u001b") && !red.contains('\x1b'), "{red}");
}

#[test]
fn an_alias_that_expires_runs_the_command() {
    let fleet = Fleet::new();
    let recorder = Recorder::new(&fleet, "");
    let times = ["--lease", "2s", "--retention", "1s", "--on-change-cooldown", "0s"];
    let scraper = fleet.scraper(&[&["--on-change", &recorder.command()], &times[..]].concat());
    let mut one = agent(&fleet, &scraper, &exporter(), "one");
    scraper.wait_listed("one");
    recorder.wait_newest(&scraper, 1);
    one.kill();
    scraper.wait_unlisted("one");
    recorder.wait_newest(&scraper, 0);
}

#[test]
fn a_direct_target_runs_the_command_too() {
    let fleet = Fleet::new();
    let recorder = Recorder::new(&fleet, "");
    let token = fleet.path().join("token");
    fs::write(&token, "t\n").expect("writes");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("set");
    let api = loopback(free_port());
    let flags = ["--on-change", &recorder.command(), "--on-change-cooldown", "0s"];
    let registration = ["--registration-api", &api.to_string(), "--registration-token-file", &text(&token)];
    let scraper = fleet.scraper(&[flags, registration].concat());
    recorder.wait_newest(&scraper, 0);
    let headers = [("Authorization", "t"), ("Content-Type", "application/x-www-form-urlencoded")];
    let post = |path: &str, form: &str| {
        let answer = http::request_with("POST", api, path, &headers, form.as_bytes()).expect("answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    post("/register", "kind=k&key=10.0.0.7:9100&data=%7B%22token%22:%22x%22%7D");
    eventually_true("it has the target", SOON, || recorder.newest().is_some_and(|list| list.contains("10.0.0.7:9100")));
    assert_eq!(recorder.newest(), Some(scraper.get("/sd").text()));
    post("/unregister", "kind=k&key=10.0.0.7:9100");
    recorder.wait_newest(&scraper, 0);
}

#[test]
fn changes_during_a_run_lead_to_one_run_with_the_newest_list() {
    let fleet = Fleet::new();
    let recorder = Recorder::new(&fleet, "while ! [ -e .go ]; do sleep 0.05; done");
    let file = fleet.path().join("sd.json");
    let flags = ["--on-change", &recorder.command(), "--on-change-cooldown", "0s", "--file-sd", &text(&file)];
    let scraper = fleet.scraper(&flags);
    recorder.wait_newest(&scraper, 0);
    let exporter = exporter();
    let agents: Vec<_> = ["one", "two", "three"].map(|alias| agent(&fleet, &scraper, &exporter, alias)).into();
    for alias in ["one", "two", "three"] {
        eventually_true("its path is known", SOON, || {
            scraper.listed().is_some_and(|mut listed| {
                listed.remove(alias).is_some_and(|listed| listed.label("__meta_narthex_path") == "direct")
            })
        });
    }
    // The file follows the list, too: the hook has had the time.
    eventually_true("the file is written", SOON, || {
        fs::read_to_string(&file).is_ok_and(|read| read == scraper.get("/sd").text())
    });
    assert_eq!(recorder.runs(), 1);
    fs::write(recorder.dir.join(".go"), "").expect("writes");
    recorder.wait_newest(&scraper, 3);
    assert_eq!(recorder.runs(), 2);
    drop(agents);
}

#[test]
fn the_cooldown_holds_changes_back() {
    let fleet = Fleet::new();
    let recorder = Recorder::new(&fleet, "");
    let file = fleet.path().join("sd.json");
    let flags = ["--on-change", &recorder.command(), "--on-change-cooldown", "1h", "--file-sd", &text(&file)];
    let mut scraper = fleet.scraper(&flags);
    recorder.wait_newest(&scraper, 0);
    let _one = agent(&fleet, &scraper, &exporter(), "one");
    eventually_true("the file has it", SOON, || fs::read_to_string(&file).is_ok_and(|read| read.contains("one")));
    assert_eq!(recorder.runs(), 1);
    assert!(scraper.process.terminate(SOON).success());
    assert_eq!(recorder.runs(), 1);
}

#[test]
fn a_command_that_hangs_is_ended_and_one_that_leaves_a_process_hangs_nobody() {
    let fleet = Fleet::new();
    let recorder = Recorder::new(&fleet, "exec sleep 1000");
    let flags = ["--on-change", &recorder.command(), "--on-change-timeout", "300ms", "--on-change-cooldown", "0s"];
    let mut scraper = fleet.scraper(&flags);
    scraper.wait_counted(&[RUNS, "timeout"], 0.0);
    scraper.process.wait_log(&["took too long"]);
    let _one = agent(&fleet, &scraper, &exporter(), "one");
    scraper.wait_counted(&[RUNS, "timeout"], 1.0);
    assert!(scraper.process.terminate(SOON).success());

    let fleet = Fleet::new();
    let recorder = Recorder::new(&fleet, "sleep 1000 &\necho $! > .pid");
    let scraper = fleet.scraper(&["--on-change", &recorder.command(), "--on-change-cooldown", "0s"]);
    scraper.wait_counted(&[RUNS, "ok"], 0.0);
    let left = fs::read_to_string(recorder.dir.join(".pid")).expect("reads");
    assert_eq!(Run::of(std::process::Command::new("kill").arg(left.trim())).code, Some(0), "it lived on");
}

#[test]
fn a_run_may_end_while_the_scraper_ends() {
    let fleet = Fleet::new();
    let recorder = Recorder::new(&fleet, "while ! [ -e .go ]; do sleep 0.05; done\necho > .done");
    let mut scraper = fleet.scraper(&["--on-change", &recorder.command()]);
    eventually("it runs", SOON, || recorder.newest());
    scraper.process.ask_to_end();
    scraper.process.wait_log(&["stopping"]);
    fs::write(recorder.dir.join(".go"), "").expect("writes");
    assert!(scraper.process.wait(SOON).success());
    assert!(recorder.dir.join(".done").exists());
}

#[test]
fn a_missing_program_is_one_clear_line_and_bad_words_are_refused() {
    let (fleet, _scraper) = Fleet::with_scraper();
    let mut missing = narthex("scraper");
    missing.args(["--key", &text(&fleet.path().join("scraper.key")), "--secret-file", &text(&fleet.secret_file())]);
    missing.args(["--data-dir", &text(&fleet.path().join("other")), "--on-change", "no-such-program --token hidden"]);
    missing.args(["--log-level", "off"]);
    let refused = Run::of(&mut missing);
    assert!(refused.code == Some(1) && refused.stderr.contains("cannot run no-such-program"), "{}", refused.stderr);
    assert!(refused.stderr.lines().count() == 1 && !refused.stderr.contains("hidden"), "{}", refused.stderr);
    for (command, reason) in [("'open", "quote"), (" ", "expected a program")] {
        let mut refused = narthex("scraper");
        refused.args(["--key", "k", "--secret-file", "s", "--on-change", command]);
        let refused = Run::of(&mut refused);
        assert!(refused.code == Some(2) && refused.stderr.contains(reason), "{}", refused.stderr);
    }
    let mut everywhere = narthex("scraper");
    everywhere.args(["--key", "k", "--secret-file", "s", "--http", "0.0.0.0:0", "--on-change", "true"]);
    let refused = Run::of(&mut everywhere);
    assert!(refused.code == Some(2) && refused.stderr.contains("--advertise"), "{}", refused.stderr);
}
