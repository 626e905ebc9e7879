//! The `narthex` command, run as a user runs it: exit codes, one-line errors, precedence, and no secret in the output.

use std::{
    env,
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use clap::{ArgAction, CommandFactory};
use narthex::{
    cli::{
        Cli,
        log::{self, LogFormat},
    },
    identity::{self, KeyPair, PublicKey, SharedSecret},
};
use tempfile::TempDir;

use crate::support::{
    exporter::{Exporter, Reply},
    process::Run,
};

/// A directory for each test. Commands run in it without the environment's variables.
pub(super) struct Directory(TempDir);

impl Directory {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary directory"))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file for `--config`.
    pub(super) fn config(&self, text: &str) -> PathBuf {
        let path = self.path("narthex.toml");
        fs::write(&path, text).expect("writes");
        path
    }

    fn key(&self) -> PathBuf {
        let path = self.path("a.key");
        identity::create_key(&path, &KeyPair::from_seed(&[9; 32])).expect("writes");
        path
    }

    fn narthex(&self, args: &[&str]) -> Run {
        self.narthex_with(&[], args)
    }

    pub(super) fn narthex_with(&self, env: &[(&str, &str)], args: &[&str]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_narthex"));
        command.current_dir(self.0.path()).env_clear().env("HOME", self.0.path());
        Run::of(command.envs(env.iter().copied()).args(args))
    }
}

impl Run {
    /// Asserts this code, and one line on stderr with all of `parts`.
    #[track_caller]
    pub(super) fn exits(&self, code: i32, parts: &[&str]) {
        let Self { code: ended, stdout, stderr } = self;
        assert_eq!(*ended, Some(code), "{stderr}");
        assert_eq!(stdout, "");
        let line = stderr.strip_suffix('\n').expect("a line");
        assert!(line.starts_with("error: ") && !line.contains('\n'), "not one line: {stderr}");
        for part in parts {
            assert!(line.contains(part), "no {part:?} in: {line}");
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn peer() -> String {
    format!("{}@127.0.0.1:1", KeyPair::from_seed(&[5; 32]).public())
}

#[test]
fn wrong_usage_is_one_line_that_points_to_the_help() {
    let dir = Directory::new();
    dir.narthex(&[]).exits(2, &["subcommand", "see 'narthex --help'"]);
    dir.narthex(&["scrapr"]).exits(2, &["scrapr", "'scraper'"]);
    dir.narthex(&["agent"])
        .exits(2, &["--ticket-file FILE, or --scraper PEER and --secret-file FILE", "see 'narthex agent --help'"]);
    dir.narthex(&["keygen", "--outt", "x"]).exits(2, &["'--outt'", "'--out'", "see 'narthex keygen --help'"]);
    dir.narthex(&["alias"]).exits(2, &["see 'narthex alias --help'"]);
    dir.narthex(&["alias", "release"]).exits(2, &["<ALIAS>", "see 'narthex alias release --help'"]);
    dir.narthex(&["targets", "--log-level", "inof"]).exits(2, &["'inof'", "expected off, error, warn"]);
}

#[test]
fn help_and_version_go_to_stdout() {
    let dir = Directory::new();
    let help = dir.narthex(&["agent", "--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    for part in ["Examples:", "NARTHEX_SCRAPER", "ALIAS=URL"] {
        assert!(help.stdout.contains(part), "no {part:?} in: {}", help.stdout);
    }
    let version = dir.narthex(&["--version"]);
    assert_eq!(version.code, Some(0));
    assert!(
        version.stdout.starts_with("narthex 0.1.0 (commit ") && version.stdout.ends_with(")\n"),
        "{}",
        version.stdout
    );
}

#[test]
fn values_that_cannot_be_meant_are_refused_with_the_reason() {
    let dir = Directory::new();
    let peer = peer();
    let agent = |more: &[&str]| {
        dir.narthex(&[&["agent", "--secret-file", "s", "--scraper", &peer, "--target", "a=http://h"], more].concat())
    };
    agent(&["--target", "b/c=http://h"]).exits(2, &["--target", "is not 1 to 128 of A-Z a-z 0-9"]);
    agent(&["--target", "b=ftp://h"]).exits(2, &["only http://, https:// and unix: URLs"]);
    agent(&["--target", "b=h:9100"]).exits(2, &["expected a URL"]);
    agent(&["--target", "a=http://other"]).exits(2, &["alias a is given to two targets"]);
    agent(&["--label", "job=x"]).exits(2, &["label job is reserved"]);
    agent(&["--label", "region"]).exits(2, &["expected NAME=VALUE"]);
    agent(&["--label", "region=eu", "--label", "region=us"]).exits(2, &["label region is given twice"]);
    agent(&["--scraper", "nonsense"]).exits(2, &["'nonsense'", "expected <public key>", "got 8 characters"]);
    agent(&["--scraper", &peer]).exits(2, &["is given twice"]);
    agent(&["--hostname", "a\nb"]).exits(2, &["control characters"]);
    let other = KeyPair::from_seed(&[6; 32]).public().to_string();
    agent(&["--scraper", &other]).exits(2, &["cannot be found by its key alone", "--bootstrap"]);
    agent(&["--bootstrap", &other]).exits(2, &["<host>:<port>"]);
    for (nowhere, reason) in [
        ("127.0.0.1:0", "port 0"),
        ("wss://h:0", "port 0"),
        ("ws://0.0.0.0", "0.0.0.0 is not the address of one host"),
        ("[ff02::1]:1", "ff02::1 is not the address of one host"),
    ] {
        agent(&["--scraper", &format!("{other}@{nowhere}")]).exits(2, &["--scraper", reason]);
        agent(&["--bootstrap", &format!("{other}@{nowhere}")]).exits(2, &["--bootstrap", reason]);
    }
    let scraper = |more: &[&str]| dir.narthex(&[&["scraper", "--key", "k", "--secret-file", "s"], more].concat());
    scraper(&["--http", "127.0.0.1"]).exits(2, &["--http", "<host>:<port>"]);
    scraper(&["--lease", "0s"]).exits(2, &["--lease", "longer than 0"]);
    scraper(&["--lease", "10"]).exits(2, &["90s, 5m or 3h"]);
    scraper(&["--alias-policy", "firm"]).exits(2, &["live, pinned, overwrite"]);
    scraper(&["--secret-file", "s"]).exits(2, &["given twice"]);
}

#[test]
fn key_and_secret_files_that_cannot_be_used_are_failures_that_name_the_remedy() {
    let dir = Directory::new();
    let key = dir.key();
    dir.narthex(&["key", "none.key"]).exits(1, &["no file none.key", "narthex keygen --out none.key"]);
    dir.narthex(&["scraper", "--key", text(&key), "--secret-file", "none.secret"])
        .exits(1, &["no file none.secret", "narthex secret --out none.secret"]);
    fs::set_permissions(&key, Permissions::from_mode(0o644)).expect("chmod");
    dir.narthex(&["key", text(&key)]).exits(1, &["mode 0644", &format!("chmod 600 {}", text(&key))]);
    let junk = dir.path("junk.key");
    fs::write(&junk, "hunter2\n").expect("writes");
    fs::set_permissions(&junk, Permissions::from_mode(0o600)).expect("chmod");
    let run = dir.narthex(&["key", text(&junk)]);
    run.exits(1, &["junk.key does not hold a key", "got 7 characters"]);
    assert!(!run.stderr.contains("hunter2"));
}

#[test]
fn keygen_prints_the_public_key_that_key_prints() {
    let dir = Directory::new();
    let made = dir.narthex(&["keygen"]);
    assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""));
    let public: PublicKey = made.stdout.trim_end().parse().expect("a public key and nothing else");
    let file = dir.path("keys/scraper.key");
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!(dir.narthex(&["key", "keys/scraper.key"]).stdout, made.stdout);
    assert_eq!(dir.narthex(&["key", "--hex", text(&file)]).stdout.trim_end(), public.to_hex());
    dir.narthex(&["keygen"]).exits(1, &["exists already", "--out"]);
}

#[test]
fn no_secret_is_ever_printed() {
    let dir = Directory::new();
    let made = dir.narthex(&["secret", "--out", "fleet.secret", "--log-level", "trace"]);
    assert_eq!((made.code, made.stdout.as_str()), (Some(0), ""));
    assert!(made.stderr.contains("fleet.secret"));
    let secret = fs::read_to_string(dir.path("fleet.secret")).expect("there");
    let secret = secret.lines().last().expect("a line after the comment");
    secret.parse::<SharedSecret>().expect("a secret");
    let key = dir.key();
    let seed = fs::read_to_string(&key).expect("there");
    let seed = seed.lines().last().expect("a line after the comment");
    let peer = peer();
    let hex = "0123456789abcdef".repeat(4);
    // The option before the subcommand, and after it.
    let runs = [
        made,
        dir.narthex(&["keygen", "--out", "b.key", "--log-level", "trace"]),
        dir.narthex(&["key", text(&key), "--log-level", "trace"]),
        dir.narthex(&["key", secret]),
        dir.narthex(&["key", &hex]),
        dir.narthex(&["key", &secret[1..]]),
        dir.narthex_with(&[("NARTHEX_SECRET_FILE", secret), ("NARTHEX_KEY", secret)], &["agent", "--help"]),
        dir.narthex_with(&[("NARTHEX_SECRET_FILE", secret)], &["scraper", "--help"]),
        dir.narthex(&["secret", secret]),
        dir.narthex(&["scraper", "--key", seed, "--secret-file", "fleet.secret"]),
        dir.narthex(&["scraper", "--key", text(&key), "--secret-file", secret]),
        dir.narthex_with(&[("NARTHEX_SECRET_FILE", secret)], &["scraper", "--key", text(&key)]),
        dir.narthex(&["agent", "--scraper", &peer, "--target", "a=http://h", "--secret-file", secret]),
        dir.narthex(&["agent", "--scraper", &format!("{secret}x"), "--bootstrap", secret]),
        dir.narthex(&["agent", "--secret", secret]),
        dir.narthex(&["agent", &format!("--secret={secret}")]),
        dir.narthex(&["agent", "--config", text(&dir.config(&format!("secret = {secret:?}")))]),
        dir.narthex(&[
            "scraper",
            "--key",
            text(&key),
            "--config",
            text(&dir.config(&format!("secret-file = {secret:?}"))),
        ]),
        dir.narthex(&["agent", "--config", text(&dir.config(&format!("scraper = {secret}")))]),
    ];
    for run in runs {
        for hidden in [secret, seed, &hex] {
            let printed = [run.stdout.as_str(), run.stderr.as_str()].concat();
            assert!(!printed.contains(&hidden[..16]), "printed by: {printed}");
        }
    }
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let dir = Directory::new();
    let key = dir.key();
    let config = dir.config(&format!("key = {key:?}\nsecret_file = [\"from-file\", \"second\"]\nlease = \"5m\"\n"));
    let file = ["scraper", "--config", text(&config)];
    let environment = [("NARTHEX_SECRET_FILE", "from-environment,second"), ("NARTHEX_LEASE", "7m")];
    // A path of the file starts at the file's directory.
    let from_file = format!("no file {};", dir.path("from-file").display());
    dir.narthex(&file).exits(1, &[&from_file]);
    dir.narthex_with(&environment, &file).exits(1, &["no file from-environment;"]);
    dir.narthex_with(&environment, &[&file[..], &["--secret-file", "from,flag"]].concat())
        .exits(1, &["no file from,flag;"]);
    dir.narthex_with(&[("NARTHEX_CONFIG", text(&config))], &["scraper"]).exits(1, &[&from_file]);
    dir.narthex_with(&[("NARTHEX_SECRET_FILE", ""), ("NARTHEX_LEASE", "")], &file).exits(1, &[&from_file]);
}

/// Each command that reads a file and the environment, with each of its switches.
fn switches() -> Vec<(String, String)> {
    let root = Cli::command();
    let commands = root.get_subcommands().filter(|command| command.get_arguments().any(|arg| arg.get_id() == "config"));
    let switches = commands.flat_map(|command| {
        let switches = command.get_arguments().filter(|arg| matches!(arg.get_action(), ArgAction::SetTrue));
        // It is for the moment, and no setting.
        let switches = switches.filter(|arg| arg.get_long() != Some("check-config"));
        switches.map(|arg| (command.get_name().to_owned(), arg.get_long().expect("a flag").to_owned()))
    });
    switches.collect()
}

#[test]
fn a_switch_can_be_set_in_the_file_and_in_the_environment() {
    let dir = Directory::new();
    assert!(switches().contains(&("node".to_owned(), "relay".to_owned())));
    for (command, switch) in switches() {
        for value in ["true", "false"] {
            let config = dir.config(&format!("{switch} = {value}\n"));
            let variable = format!("NARTHEX_{}", switch.to_uppercase().replace(['-', '.'], "_"));
            // What is missing, or not there, keeps it from running; a warning about the switch would come before.
            let missing =
                if ["node", "scraper"].contains(&command.as_str()) { &["--key", "none.key"][..] } else { &[] };
            for run in [
                dir.narthex(&[&[&command, "--config", text(&config)], missing].concat()),
                dir.narthex_with(&[(&variable, value)], &[&[command.as_str()], missing].concat()),
            ] {
                let needs_another = run.stderr.contains("required arguments were not provided");
                let expected = if missing.is_empty() || needs_another { (2, "") } else { (1, "no file none.key") };
                run.exits(expected.0, &[expected.1]);
                assert!(!run.stderr.contains(&switch), "{}", run.stderr);
            }
        }
    }
}

#[test]
fn an_error_names_where_the_value_came_from() {
    let dir = Directory::new();
    let config = dir.config("lease = \"soon\"\nkey = \"k\"\nsecret-file = \"s\"\n");
    let file = ["scraper", "--config", text(&config)];
    dir.narthex(&file).exits(2, &["'soon'", "--lease", &format!("(from {})", text(&config))]);
    dir.narthex_with(&[("NARTHEX_LEASE", "later")], &file).exits(2, &["'later'", "(from NARTHEX_LEASE)"]);
    let flag = dir.narthex_with(&[("NARTHEX_LEASE", "later")], &[&file[..], &["--lease=never"]].concat());
    flag.exits(2, &["'never'"]);
    assert!(!flag.stderr.contains("(from"), "{}", flag.stderr);
}

#[test]
fn the_file_holds_flags_and_nothing_else() {
    let dir = Directory::new();
    let refused = |text_of_file: &str, parts: &[&str]| {
        let config = dir.config(text_of_file);
        dir.narthex(&["scraper", "--config", text(&config)]).exits(2, &[parts, &["narthex.toml"]].concat());
    };
    refused("secret-fiel = \"s\"", &["unknown key \"secret-fiel\", did you mean \"secret-file\"?"]);
    refused("qwertyuiop = 1", &["unknown key \"qwertyuiop\"", "flags of narthex scraper"]);
    refused("target = [\"a=http://h\"]", &["unknown key \"target\""]);
    refused("config = \"other.toml\"", &["unknown key \"config\""]);
    refused("help = true", &["unknown key \"help\""]);
    refused("check-config = true", &["unknown key \"check-config\""]);
    refused("lease = [\"1m\", \"2m\"]", &["\"lease\" takes one value"]);
    refused("[lease]\nx = 1", &["\"lease\" is a table"]);
    refused("data-dir = \"a\"\ndata_dir = \"b\"", &["given twice"]);
    refused("key = \"k\"\nlease = 5m\n", &["line 2"]);
    refused("log-level = \"inof\"", &["'inof'"]);
    let empty = dir.config("key = \"k\"\nsecret-file = []\n");
    dir.narthex(&["scraper", "--config", text(&empty)]).exits(1, &["there is no file", "narthex keygen"]);
    dir.narthex(&["scraper", "--config", "none.toml"]).exits(2, &["cannot read none.toml"]);
}

#[test]
fn a_scraper_that_cannot_be_reached_is_named() {
    let dir = Directory::new();
    let closed = TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound");
    let url = format!("http://{closed}");
    for command in [&["targets"][..], &["scrape", "a"], &["alias", "release", "a"]] {
        dir.narthex_with(&[("NARTHEX_URL", &url)], command).exits(1, &[&url, "is it running?", "--url"]);
    }
    dir.narthex(&["targets", "--url", "ftp://h"]).exits(2, &["expected a URL such as http://"]);
    dir.narthex(&["scrape", "a/b"]).exits(2, &["is not 1 to 128"]);
}

/// A scraper that answers this path so, and what follows its own URL.
fn scraper(path: &'static str, status: &'static str, body: &str) -> (Exporter, String) {
    let scraper = Exporter::start([(path, json(status, body))]);
    let url = scraper.url("/prefix/");
    (scraper, url)
}

fn json(status: &'static str, body: &str) -> Reply {
    Reply::Whole { status, headers: vec![("Content-Type", "application/json")], body: body.into() }
}

#[test]
fn scrape_prints_the_exposition_as_it_is() {
    let dir = Directory::new();
    let (scraper, url) = scraper("/prefix/scrape/web-1/metrics", "200 OK", "up 1\nb 2\n");
    let run = dir.narthex(&["scrape", "web-1", "--url", &url, "--timeout", "3s"]);
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(0), "up 1\nb 2\n", ""));
    let [asked] = &scraper.all_requests()[..] else { panic!("one request") };
    assert_eq!((asked.method.as_str(), asked.header("x-prometheus-scrape-timeout-seconds")), ("GET", Some("3")));
    assert_eq!(asked.header("host"), Some(scraper.address.to_string().as_str()));
}

#[test]
fn a_refused_or_cut_scrape_is_a_failure_with_the_scrapers_reason() {
    let dir = Directory::new();
    for (status, body, reason) in [
        ("502 Bad Gateway", "peer is not connected\nmore", "peer is not connected (502)"),
        ("404 Not Found", "\u{1b}[31m no such", "\\u001b[31m no such (404)"),
    ] {
        let (_scraper, url) = scraper("/prefix/scrape/a/metrics", status, body);
        dir.narthex(&["scrape", "a", "--url", &url]).exits(1, &[reason]);
    }
    let cutting = Exporter::start([("/scrape/a/metrics", Reply::CutLength { len: 99, sent: b"up 1\n".to_vec() })]);
    let cut = dir.narthex(&["scrape", "a", "--url", &cutting.url("/")]);
    assert_eq!((cut.code, cut.stdout.as_str()), (Some(1), "up 1\n"));
    assert!(cut.stderr.contains("cut"), "{}", cut.stderr);
}

#[test]
fn a_scraper_that_hangs_ends_by_the_timeout() {
    let dir = Directory::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    dir.narthex(&["targets", "--url", &url, "--timeout", "50ms"]).exits(1, &["did not answer within 50ms"]);
}

#[test]
fn release_asks_for_the_alias_to_be_deleted() {
    let dir = Directory::new();
    let (scraper, url) = scraper("/prefix/api/v1/aliases/web-1", "204 No Content", "");
    let run = dir.narthex(&["alias", "release", "web-1", "--url", &url]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "released web-1\n"));
    assert!(matches!(&scraper.all_requests()[..], [asked] if asked.method == "DELETE"));
}

#[test]
fn targets_are_printed_as_a_table_or_as_the_json_they_came_in() {
    const LIST: &str = concat!(
        r#"[{"alias":"web-1","peer":"ybn","service":"","hostname":"h1","labels":{"region":"eu"},"path":"none","#,
        r#""state":"lapsed","registered_at":"2026-01-01T00:00:00Z","renewed_at":"2026-01-01T00:00:00Z","#,
        r#""expires_at":"2026-01-01T00:10:00Z","expires_in_seconds":0}]"#
    );
    const SD: &str = concat!(
        r#"[{"targets":["h:9100"],"labels":{"__meta_narthex_alias":"web-1"}},{"targets":["10.0.0.1:9","10.0.0.2:9"],"labels":"#,
        r#"{"__meta_narthex_kind":"k","__meta_narthex_key":"a\u001b","__param_token":"s3cret","env":"prod"}}]"#
    );
    let dir = Directory::new();
    let scraper_with =
        |sd| Exporter::start([("/prefix/api/v1/aliases", json("200 OK", LIST)), ("/prefix/sd", json("200 OK", sd))]);
    let aliases =
        "ALIAS  STATE   PATH  SERVICE  HOSTNAME  PEER  LEFT\nweb-1  lapsed  none  -        h1        ybn   -\n";
    let plain = scraper_with("[]");
    let run = dir.narthex(&["targets", "--url", &plain.url("/prefix")]);
    assert_eq!(run.stdout, aliases, "{}", run.stderr);
    let with_beacons = scraper_with(SD);
    let url = with_beacons.url("/prefix");
    let run = dir.narthex(&["targets", "--url", &url]);
    let beacons = "KIND  KEY      TARGETS                LABELS\nk     a\\u001b  10.0.0.1:9 10.0.0.2:9  env=prod\n";
    assert_eq!(run.stdout, format!("{aliases}\n{beacons}"), "{}", run.stderr);
    assert_eq!(dir.narthex(&["targets", "--json", "--url", &url]).stdout, format!("{LIST}\n"));
    let (_without_list, url) = scraper("/prefix/api/v1/aliases", "200 OK", LIST);
    let run = dir.narthex(&["targets", "--url", &url]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), aliases));
    assert!(run.stderr.contains("/sd gives no list"), "{}", run.stderr);
    let (_other, url) = scraper("/prefix/api/v1/aliases", "200 OK", "<html>");
    dir.narthex(&["targets", "--url", &url]).exits(1, &["is --url the address of a narthex scraper?"]);
}

/// Before: the panic of a library went to stderr as it was, in many lines.
#[test]
fn a_panic_is_one_line_of_the_log() {
    const CHILD: &str = "NARTHEX_TEST_PANICS";
    if env::var_os(CHILD).is_some() {
        log::start(LogFormat::Logfmt, &"info".parse().expect("a filter"));
        let _ = thread::spawn(|| panic!("a stranger's\nlevel=error \u{1b}[31m")).join();
        return log::finish("");
    }
    let name = "command::a_panic_is_one_line_of_the_log";
    let mut child = Command::new(env::current_exe().expect("this test"));
    let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").env("RUST_BACKTRACE", "1").output();
    let stderr = String::from_utf8(output.expect("runs").stderr).expect("text");
    let line = stderr.strip_suffix('\n').expect("a line");
    assert!(line.starts_with("ts=") && !line.contains(['\n', '\u{1b}']), "{stderr}");
    assert!(line.contains("tests/cli/command.rs") && line.contains("backtrace="), "{stderr}");
}
