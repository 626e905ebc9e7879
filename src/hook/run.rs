//! One process: a list on its stdin, its output in the log, and an end in time.
//!
//! The process leads a group of its own. A signal goes to the whole group, and only while the leader has not been waited
//! for, so that the group's number is not another one's yet. What a program leaves behind in the background lives on, and
//! only its output is not read any more.

use std::{
    pin::pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, Command},
    time,
};
use tokio_util::sync::CancellationToken;

use super::{command::HookCommand, output::log_lines};
use crate::telemetry::{label_values, short_duration};

/// Between SIGTERM and SIGKILL.
pub(super) const KILL_AFTER: Duration = Duration::from_secs(5);
/// Longest wait for the last lines of a process that has ended: one that it left behind may keep the pipe open.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How often a group that was told to end is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// What is not the command's: where systemd hears from us, and a secret.
const OURS: [&str; 5] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDNAMES", "NARTHEX_TICKET"];

label_values! {
    /// How a run of a command ended.
    pub(crate) enum RunOutcome {
        Ok = "ok",
        /// With another exit code than 0, or by a signal that was not ours.
        Failed = "failed",
        /// We ended it: it ran for too long, or we end ourselves.
        Timeout = "timeout",
        /// There is no such program, or it may not be run.
        NotStarted = "not_started",
    }
}

/// How runs end when we do.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) stop: CancellationToken,
    /// How much longer than `stop` a run may take.
    pub(crate) grace: Duration,
}

/// Runs the command to its end, with `input` on its stdin. Its end and output are logged.
pub(crate) async fn run(
    command: &HookCommand,
    timeout: Duration,
    input: impl Iterator<Item = Bytes> + Send,
    end: &Ending,
) -> RunOutcome {
    let program = command.program.as_str();
    let started = time::Instant::now();
    let mut child = match spawn(command) {
        Ok(child) => child,
        Err(error) => {
            tracing::warn!(program, %error, "could not start the command");
            return RunOutcome::NotStarted;
        }
    };
    let status = attend(program, &mut child, timeout, input, end).await;
    let took = started.elapsed();
    match status {
        Some(Ok(status)) if status.success() => {
            tracing::info!(program, took = short_duration(took), "the command succeeded");
            RunOutcome::Ok
        }
        Some(Ok(status)) => {
            tracing::warn!(program, %status, took = short_duration(took), "the command failed");
            RunOutcome::Failed
        }
        Some(Err(error)) => {
            tracing::warn!(program, %error, "the end of the command could not be waited for");
            RunOutcome::Failed
        }
        None => {
            tracing::warn!(program, took = short_duration(took), "the command took too long and was ended");
            RunOutcome::Timeout
        }
    }
}

fn spawn(command: &HookCommand) -> std::io::Result<Child> {
    let mut process = Command::new(&command.program);
    process.args(&command.arguments).process_group(0).kill_on_drop(true);
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in OURS {
        process.env_remove(name);
    }
    process.spawn()
}

/// Feeds and reads the process until its end. None if it had to be ended.
async fn attend(
    program: &str,
    child: &mut Child,
    timeout: Duration,
    input: impl Iterator<Item = Bytes> + Send,
    end: &Ending,
) -> Option<std::io::Result<ExitStatus>> {
    let mut group = Group::of(child);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut fed = pin!(feed(stdin, input));
    let mut read = pin!(async {
        tokio::join!(log_lines(program, "stdout", stdout), log_lines(program, "stderr", stderr));
    });
    let mut over = pin!(async {
        tokio::select! {
            () = time::sleep(timeout) => {}
            () = async { end.stop.cancelled().await; time::sleep(end.grace).await } => {}
        }
    });
    let (mut all_fed, mut all_read) = (false, false);
    let status = loop {
        tokio::select! {
            status = child.wait() => break Some(status),
            () = &mut over => break None,
            () = &mut fed, if !all_fed => all_fed = true,
            () = &mut read, if !all_read => all_read = true,
        }
    };
    if status.is_some() {
        group.let_live();
        if !all_read && time::timeout(LAST_LINES, read).await.is_err() {
            tracing::info!(program, "the command left a process behind, whose output is not read");
        }
        return status;
    }
    group.signal(Signal::TERM);
    let ended = async {
        if !all_read {
            read.await;
        }
        while !group.leader_has_ended() {
            time::sleep(LOOK_AGAIN).await;
        }
    };
    // Whatever is left of the group then is killed, in time or not.
    let _ = time::timeout(KILL_AFTER, ended).await;
    group.signal(Signal::KILL);
    // A process that the kernel cannot end is left to it.
    let _ = time::timeout(LAST_LINES, child.wait()).await;
    group.let_live();
    None
}

/// Writes everything. A program that does not read, or no further, is fine.
async fn feed(stdin: Option<ChildStdin>, input: impl Iterator<Item = Bytes> + Send) {
    let Some(mut stdin) = stdin else { return };
    for chunk in input {
        if stdin.write_all(&chunk).await.is_err() {
            return;
        }
    }
}

/// The process group that the child leads. Dropped with the task of a run it is killed.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            // An error means that nobody is left.
            let _ = kill_process_group(leader, signal);
        }
    }

    /// Looks without waiting for it, which would give the group's number back.
    fn leader_has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.0.is_none_or(|leader| !matches!(waitid(WaitId::Pid(leader), look), Ok(None)))
    }

    fn let_live(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
