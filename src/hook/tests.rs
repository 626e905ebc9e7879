//! Real processes, as the hook meets them.

use std::{
    fs, iter,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    command::HookCommand,
    every_change::{Hook, Lists},
    run::{self, Ending, KILL_AFTER, RunOutcome},
};
use crate::telemetry::check_labels;

/// Far beyond what a run in these tests takes.
const LONG: Duration = Duration::from_secs(60);
/// Far beyond what a pipe holds.
const MEGABYTES: usize = 5 << 20;

fn never() -> Ending {
    Ending { stop: CancellationToken::new(), grace: Duration::ZERO }
}

/// A run that ends.
async fn run(
    command: &HookCommand,
    timeout: Duration,
    input: impl Iterator<Item = Bytes> + Send,
    end: &Ending,
) -> RunOutcome {
    time::timeout(LONG / 2, run::run(command, timeout, input, end)).await.expect("the run ends")
}

fn command(text: &str) -> HookCommand {
    text.parse().expect("a command")
}

/// A shell that runs this script in the directory.
fn shell(dir: &TempDir, script: &str) -> HookCommand {
    let path = dir.path().join("script");
    fs::write(&path, format!("cd '{}'\n{script}\n", dir.path().display())).expect("writes");
    command(&format!("sh '{}'", path.display()))
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

fn list(len: usize) -> impl Iterator<Item = Bytes> + Send {
    let chunk = Bytes::from(vec![b'x'; 64 << 10]);
    iter::repeat_n(chunk, len.div_ceil(64 << 10))
}

async fn read(path: &Path) -> String {
    loop {
        match fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text,
            _ => time::sleep(Duration::from_millis(5)).await,
        }
    }
}

fn lives(pid: &str) -> bool {
    // A zombie has ended.
    let status = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    status.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']) && !rest.is_empty())
}

async fn until_ended(pid: &str) {
    let ended = async {
        while lives(pid) {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(LONG / 2, ended).await.expect("the process ends");
}

#[test]
fn every_outcome_is_a_plain_label_value_at_its_own_index() {
    check_labels::<RunOutcome>();
}

#[tokio::test]
async fn a_run_ends_as_its_program_ends() {
    for (text, outcome) in [
        ("true", RunOutcome::Ok),
        ("false", RunOutcome::Failed),
        ("sh -c 'kill -9 $$'", RunOutcome::Failed),
        ("/nowhere/no-such-program", RunOutcome::NotStarted),
        ("no-such-program-in-path", RunOutcome::NotStarted),
        ("/etc", RunOutcome::NotStarted),
    ] {
        assert_eq!(run(&command(text), LONG, iter::empty(), &never()).await, outcome, "{text}");
    }
}

#[tokio::test]
async fn a_list_of_megabytes_neither_blocks_a_program_that_echoes_it_nor_one_that_never_reads() {
    let dir = directory();
    for (script, read) in [("cat", true), ("head -c 10", false), ("exec <&-; sleep 0.1", false), ("exit 0", false)] {
        let script = if read { format!("{script} | tee copy") } else { script.to_owned() };
        assert_eq!(run(&shell(&dir, &script), LONG, list(MEGABYTES), &never()).await, RunOutcome::Ok, "{script}");
    }
    assert_eq!(fs::metadata(dir.path().join("copy")).expect("there").len(), MEGABYTES as u64);
}

#[tokio::test]
async fn a_program_that_hangs_is_ended_with_its_children() {
    let dir = directory();
    let hanging = shell(&dir, "sleep 1000 & echo $! > child; echo $$ > parent; wait");
    let (timeout, started) = (Duration::from_millis(300), Instant::now());
    assert_eq!(run(&hanging, timeout, list(MEGABYTES), &never()).await, RunOutcome::Timeout);
    assert!(started.elapsed() < KILL_AFTER, "SIGTERM was enough");
    for pid in ["parent", "child"] {
        until_ended(&read(&dir.path().join(pid)).await).await;
    }
}

#[tokio::test]
async fn what_ignores_sigterm_is_killed() {
    let dir = directory();
    // The leader ends at SIGTERM; the child does not.
    let deaf = shell(&dir, "sh -c \"trap '' TERM; echo \\$\\$ > child; while :; do sleep 1; done\" & wait");
    assert_eq!(run(&deaf, Duration::from_millis(300), iter::empty(), &never()).await, RunOutcome::Timeout);
    until_ended(&read(&dir.path().join("child")).await).await;
}

#[tokio::test]
async fn a_process_left_in_the_background_lives_on_and_is_not_waited_for() {
    let dir = directory();
    let daemon = shell(&dir, "sleep 1000 & echo $! > child");
    assert_eq!(run(&daemon, LONG, list(MEGABYTES), &never()).await, RunOutcome::Ok);
    let child = read(&dir.path().join("child")).await;
    assert!(lives(&child));
    let killed = std::process::Command::new("kill").arg(child.trim()).status().expect("kill runs");
    assert!(killed.success());
}

#[tokio::test]
async fn at_the_end_a_run_gets_the_grace_and_no_more() {
    let dir = directory();
    let end = Ending { stop: CancellationToken::new(), grace: Duration::from_millis(300) };
    end.stop.cancel();
    assert_eq!(run(&shell(&dir, "sleep 0.05"), LONG, iter::empty(), &end).await, RunOutcome::Ok);
    assert_eq!(run(&shell(&dir, "sleep 1000"), LONG, iter::empty(), &end).await, RunOutcome::Timeout);
}

#[tokio::test]
async fn a_run_that_is_given_up_leaves_no_process() {
    let dir = directory();
    let hanging = shell(&dir, "sleep 1000 & echo $! > child; wait");
    let running = tokio::spawn(async move { run(&hanging, LONG, iter::empty(), &never()).await });
    let child = read(&dir.path().join("child")).await;
    running.abort();
    until_ended(&child).await;
}

/// Numbers as lists: a newer one replaces an older one that nobody took.
struct Numbers(watch::Receiver<u32>);

impl Lists for Numbers {
    type List = iter::Once<Bytes>;

    async fn next(&mut self) -> Self::List {
        self.0.changed().await.expect("the test has the sender");
        iter::once(format!("{}\n", *self.0.borrow_and_update()).into())
    }
}

#[tokio::test]
async fn changes_during_a_run_and_its_cooldown_lead_to_one_run_with_the_newest_list() {
    let dir = directory();
    let mut hook = Hook::new(shell(&dir, "cat >> lists; while ! [ -e go ]; do sleep 0.01; done"));
    hook.cooldown = Duration::from_millis(300);
    let (newest, numbers) = watch::channel(0);
    let (end, outcomes) = (never(), Arc::new(Mutex::new(Vec::new())));
    let keeping = tokio::spawn({
        let (end, outcomes) = (end.clone(), Arc::clone(&outcomes));
        async move { hook.keep(Numbers(numbers), &end, |outcome| outcomes.lock().expect("sound").push(outcome)).await }
    });
    let lists = dir.path().join("lists");
    newest.send_replace(1);
    assert_eq!(read(&lists).await, "1\n");
    for number in 2..=5 {
        newest.send_replace(number);
    }
    fs::write(dir.path().join("go"), "").expect("writes");
    while outcomes.lock().expect("sound").is_empty() {
        time::sleep(Duration::from_millis(5)).await;
    }
    // In the cooldown.
    for number in 6..=9 {
        newest.send_replace(number);
    }
    while outcomes.lock().expect("sound").len() < 2 {
        time::sleep(Duration::from_millis(5)).await;
    }
    end.stop.cancel();
    keeping.await.expect("ends");
    assert_eq!(fs::read_to_string(&lists).expect("reads"), "1\n9\n");
}
