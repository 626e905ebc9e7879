//! A child process: its log kept and printed when the test fails, its end certain.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{SOON, append_to, eventually, eventually_true};

const PROXY_VARIABLES: [&str; 8] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"];
const PRINTED_LINES: usize = 60;

/// A running (or ended) child. Dropping it kills it; dropping it in a panic shows the end of its log.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    stdout: PathBuf,
}

/// A command that has ended.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    #[track_caller]
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output().expect("runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Process {
    /// Starts `command`, with stderr in `<dir>/<name>.log` and stdout in `<dir>/<name>.out`. A second process of the
    /// same name appends to the same files.
    #[track_caller]
    pub(crate) fn spawn(name: &str, dir: &Path, command: &mut Command) -> Self {
        let log = append_to(&dir.join(format!("{name}.log")));
        Self::spawn_logging_to(log.into(), name, dir, command)
    }

    /// As [`spawn`](Self::spawn), with its stderr elsewhere.
    #[track_caller]
    pub(crate) fn spawn_logging_to(stderr: Stdio, name: &str, dir: &Path, command: &mut Command) -> Self {
        let (log, stdout) = (dir.join(format!("{name}.log")), dir.join(format!("{name}.out")));
        // Tests do not use the proxy of the machine that they run on.
        for variable in PROXY_VARIABLES {
            if command.get_envs().all(|(given, _)| given != variable) {
                command.env_remove(variable);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(append_to(&stdout))
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.to_owned(), child, log, stdout }
    }

    /// Everything on stderr so far, of this and earlier processes of the same name.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// The first line of the log that holds all of `words`, in any case.
    pub(crate) fn log_line(&self, words: &[&str]) -> Option<String> {
        let holds = |line: &&str| words.iter().all(|word| line.to_lowercase().contains(&word.to_lowercase()));
        self.log().lines().find(holds).map(str::to_owned)
    }

    /// Waits for a line of the log that holds all of `words`.
    #[track_caller]
    pub(crate) fn wait_log(&self, words: &[&str]) -> String {
        eventually(&format!("{} logs {words:?}", self.name), SOON, || self.log_line(words))
    }

    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked for its end")
    }

    #[track_caller]
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually(&what, within, || self.exited())
    }

    /// SIGKILL. Returns when the process is gone.
    pub(crate) fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        self.child.wait().expect("a killed child ends");
    }

    /// SIGTERM, without waiting.
    pub(crate) fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGHUP: read your files again.
    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// SIGSTOP: its connections stay open and carry nothing. Returns when each of its threads stands: one that waits for the
    /// disk does a while later.
    #[track_caller]
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        let threads = format!("/proc/{}/task", self.child.id());
        eventually_true(&format!("{} stands", self.name), SOON, || {
            let threads = fs::read_dir(&threads).expect("the process runs").flatten();
            let mut states = threads.map(|thread| fs::read_to_string(thread.path().join("stat")).unwrap_or_default());
            // After the name, in parentheses.
            states.all(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")))
        });
    }

    /// SIGCONT, after a freeze.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a child has a pid");
        kill_process(pid, signal).expect("a running child takes signals");
    }

    /// SIGTERM, then waits for its end.
    #[track_caller]
    pub(crate) fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.ask_to_end();
        self.wait(within)
    }

    /// Resident memory, in KiB.
    #[track_caller]
    pub(crate) fn memory_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// Most resident memory since its start or [`forget_peak`](Self::forget_peak), in KiB.
    #[track_caller]
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    /// Lets the peak begin at what is resident now (`clear_refs`, proc(5)).
    #[track_caller]
    pub(crate) fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("the peak can be reset");
    }

    /// Open descriptors.
    #[track_caller]
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the process runs").count()
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel reports it");
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number of KiB")
    }
}

impl Drop for Process {
    #[expect(clippy::print_stdout, reason = "the test runner shows it for the tests that fail")]
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let end = &lines[lines.len().saturating_sub(PRINTED_LINES)..];
            println!("--- the end of the log of {} ---\n{}\n---", self.name, end.join("\n"));
        }
    }
}
