//! What a build says of itself: version, commit, date and compiler, in `--version` and in the metrics; and how `build.rs` gets
//! to know it.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::support::{
    SOON, eventually, fleet::Fleet, fleet::narthex, http, ports::free_port, ports::loopback, process::Run,
};

#[test]
fn each_command_says_what_it_was_built_of() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_narthex"));
    let whole = Run::of(command.arg("--version")).stdout;
    let of = |name: &str| format!("{name} {} (commit ", env!("CARGO_PKG_VERSION"));
    assert!(whole.starts_with(&of("narthex")) && whole.contains(", rustc 1."), "{whole}");
    for name in ["agent", "scraper", "node", "targets"] {
        let said = Run::of(narthex(name).arg("--version"));
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        assert_eq!(said.stdout.split_once(' ').map(|(_, rest)| rest), whole.split_once(' ').map(|(_, rest)| rest));
    }
}

#[test]
fn every_role_exports_its_build_and_what_its_process_uses() {
    let (fleet, scraper) = Fleet::with_scraper();
    let _agent = fleet.agent_of(&scraper, "agent", [("web-1", "http://127.0.0.1:1")], &["--self-alias", "me"]);
    let of_agent = scraper.wait_scraped("me");
    let address = loopback(free_port());
    let _node = fleet.node_with(&["--http", &address.to_string()]);
    let of_node = eventually("the node's metrics", SOON, || http::get(address, "/metrics", &[]).ok()).text();
    for text in [scraper.get("/metrics").text(), of_agent, of_node] {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
        };
        for name in [
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
        ] {
            assert!(value(name) > 0.0, "{name}\n{text}");
        }
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let build = text.lines().find(|line| line.contains("build_info{")).expect("a build");
        for label in ["version=\"", "commit=\"", "date=\"", "rustc=\"1."] {
            assert!(build.contains(label), "{build}");
        }
    }
}

/// Runs the build script in `directory`, and gives what it says of the build: commit and date.
fn built(script: &Path, directory: &Path, env: &[(&str, &str)]) -> (String, String) {
    let mut command = Command::new(script);
    for variable in ["NARTHEX_COMMIT", "SOURCE_DATE_EPOCH", "PROFILE", "GIT_DIR", "GIT_WORK_TREE"] {
        command.env_remove(variable);
    }
    command
        .current_dir(directory)
        .env("GIT_CEILING_DIRECTORIES", script.parent().expect("a directory"))
        .envs(env.iter().copied());
    let run = Run::of(&mut command);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(!run.stdout.contains("cargo:rustc-env=NARTHEX_"), "'cargo run' sets it for the program: {}", run.stdout);
    let value = |name: &str| {
        let begin = format!("cargo:rustc-env=BUILT_OF_{name}=");
        run.stdout.lines().find_map(|line| line.strip_prefix(&begin)).expect("a line").to_owned()
    };
    (value("COMMIT"), value("DATE"))
}

#[test]
fn a_build_is_named_by_the_environment_or_by_git_or_not_at_all() {
    let directory = TempDir::new().expect("a directory");
    let script = directory.path().join("build-script");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
    let compiled = Command::new("rustc").args(["--edition", "2024", "-o"]).arg(&script).arg(source).status();
    assert!(compiled.expect("rustc").success());
    let unknown = || ("unknown".to_owned(), "unknown".to_owned());
    let release = ("PROFILE", "release");

    let bare = directory.path().join("bare");
    fs::create_dir(&bare).expect("makes");
    assert_eq!(built(&script, &bare, &[release]), unknown(), "without git's directory");
    assert_eq!(built(&script, &bare, &[release, ("PATH", "")]), unknown(), "without git");
    for (seconds, day) in
        [("0", "1970-01-01"), ("951782400", "2000-02-29"), ("1798761599", "2026-12-31"), ("x", "unknown")]
    {
        let given = [("NARTHEX_COMMIT", "abc"), ("SOURCE_DATE_EPOCH", seconds)];
        assert_eq!(built(&script, &bare, &given), ("abc".to_owned(), day.to_owned()));
    }

    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@example.org"]).args(args).current_dir(&bare);
        command.env("GIT_COMMITTER_DATE", "2026-11-23T23:30:00-02:00").stdout(Stdio::null());
        assert!(command.status().expect("git").success());
    };
    git(&["init", "--quiet"]);
    git(&["commit", "--quiet", "--allow-empty", "--message", "a"]);
    let (commit, date) = built(&script, &bare, &[release]);
    assert!(commit.len() >= 9 && commit.bytes().all(|c| c.is_ascii_hexdigit()), "{commit}");
    assert_eq!(date, "2026-11-24", "in UTC");
    assert_eq!(built(&script, &bare, &[release, ("NARTHEX_COMMIT", "abc")]).0, "abc");
    assert_eq!(built(&script, &bare, &[("PROFILE", "debug")]), unknown());
    let inside = bare.join("sources-of-another");
    fs::create_dir(&inside).expect("makes");
    assert_eq!(built(&script, &inside, &[release]), unknown());
}
