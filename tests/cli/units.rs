//! The units of examples/systemd: what they allow, and that systemd and narthex take what is in them.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
};

use narthex::{KeyPair, SharedSecret, identity};

use crate::support::{
    SOON, eventually_true,
    fleet::{narthex, text},
    http,
    ports::free_port,
    process::{Process, Run},
    program::program,
};

const ROLES: [&str; 3] = ["scraper", "agent", "node"];
/// Tenths of the exposure that `systemd-analyze security` finds: 0 is best, 100 is worst.
const MOST_EXPOSED: &str = "20";

fn unit(role: &str) -> PathBuf {
    PathBuf::from(format!("examples/systemd/narthex-{role}.service"))
}

#[test]
fn systemd_takes_the_units_and_finds_little_exposed() {
    let Some(analyze) = program("systemd-analyze", "systemd") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    for role in ROLES {
        let mut command = Command::new(&analyze);
        command.args(["security", "--offline=true", "--no-pager", "--threshold", MOST_EXPOSED, &text(&unit(role))]);
        let found = command.output().expect("runs");
        assert!(found.status.success(), "{role}: {}", String::from_utf8_lossy(&found.stdout));

        let installed = dir.path().join(format!("narthex-{role}.service"));
        let content = fs::read_to_string(unit(role)).expect("text");
        fs::write(&installed, content.replace("/usr/local/bin/narthex", env!("CARGO_BIN_EXE_narthex")))
            .expect("written");
        let verified = Command::new(&analyze).args(["verify", "--man=no"]).arg(&installed).output().expect("runs");
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert!(verified.status.success() && !said.contains("narthex-"), "{role}: {said}");
    }
}

#[test]
fn the_commands_of_the_units_are_taken_with_their_credentials() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| text(&dir.path().join(name));
    identity::create_key(&dir.path().join("scraper.key"), &KeyPair::generate()).expect("written");
    identity::create_secret(&dir.path().join("fleet.secret"), &SharedSecret::generate()).expect("written");
    let mut offline = narthex("ticket");
    offline.args(["create", "--offline", "--key", &file("scraper.key"), "--secret-file", &file("fleet.secret")]);
    let ticket = offline.args(["--address", "192.0.2.1:19961", "--out", &file("ticket")]).output().expect("runs");
    assert!(ticket.status.success(), "{}", String::from_utf8_lossy(&ticket.stderr));
    fs::write(dir.path().join("agent.toml"), "target = [\"host-1=http://127.0.0.1:9100/metrics\"]\n").expect("written");
    for role in ROLES {
        let content = fs::read_to_string(unit(role)).expect("text");
        let start =
            content.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/narthex ")).expect("a start");
        let start = start.replace("%d", &text(dir.path())).replace("/etc/narthex", &text(dir.path()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_narthex"));
        command.args(start.split(' ')).args(["--check-config", "--data-dir", &file(role)]);
        let run = Run::of(&mut command);
        assert_eq!(run.code, Some(0), "{role}: {}", run.stderr);
    }
}

/// A scraper that starts when somebody connects to the socket, as a unit with `ListenStream=` does.
fn activated(dir: &tempfile::TempDir, socket: &str) -> Option<Process> {
    let mut command = Command::new(program("systemd-socket-activate", "systemd")?);
    command.args(["--listen", socket, env!("CARGO_BIN_EXE_narthex"), "scraper", "--listen", "127.0.0.1:0"]);
    command.args(["--http", "127.0.0.1:1", "--data-dir", &text(&dir.path().join("data"))]);
    Some(Process::spawn("scraper", dir.path(), &mut command))
}

#[test]
fn a_scraper_answers_on_the_socket_that_systemd_passes() {
    let dir = tempfile::tempdir().expect("a directory");
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let Some(scraper) = activated(&dir, &addr.to_string()) else { return };
    eventually_true("it is ready", SOON, || http::get(addr, "/-/ready", &[]).is_ok_and(|answer| answer.status == 200));
    scraper.wait_log(&["HTTP on the socket that systemd passes", &format!("at={addr}")]);
}

#[test]
fn a_passed_socket_that_others_reach_needs_users_and_one_of_a_file_does_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let port = free_port();
    let Some(mut open) = activated(&dir, &format!("0.0.0.0:{port}")) else { return };
    eventually_true("it is started", SOON, || {
        let _ = TcpStream::connect(("127.0.0.1", port));
        open.exited().is_some()
    });
    assert!(open.log().contains("is for everybody who reaches it"), "{}", open.log());
    let path = dir.path().join("http.sock");
    let Some(mut unix) = activated(&dir, &text(&path)) else { return };
    let url = format!("unix:{}", text(&path));
    eventually_true("it answers", SOON, || Run::of(narthex("targets").args(["--url", &url])).code == Some(0));
    unix.wait_log(&["HTTP on the socket that systemd passes", &url]);
    assert!(unix.terminate(SOON).success() && path.exists(), "the file is systemd's");
}
