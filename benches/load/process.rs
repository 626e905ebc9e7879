//! The child processes, and what they cost.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use crate::BoxError;

/// This program in another role, or another program. Killed on drop.
pub(crate) struct Child {
    process: std::process::Child,
    stdout: Mutex<BufReader<ChildStdout>>,
    stdin: Mutex<ChildStdin>,
}

impl Child {
    pub(crate) fn start(args: &[&str]) -> Result<Self, BoxError> {
        Self::run(&std::env::current_exe()?, args)
    }

    pub(crate) fn run(program: &Path, args: &[&str]) -> Result<Self, BoxError> {
        let mut process = Command::new(program)
            .args(args)
            .stdout(Stdio::piped())
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let stdout = process.stdout.take().ok_or("no standard output")?;
        let stdin = process.stdin.take().ok_or("no standard input")?;
        Ok(Self { process, stdout: Mutex::new(BufReader::new(stdout)), stdin: Mutex::new(stdin) })
    }

    /// Writes a line to its standard input.
    pub(crate) fn tell(&self, word: &str) -> Result<(), BoxError> {
        Ok(writeln!(self.stdin.lock().map_err(|_| "poisoned")?, "{word}")?)
    }

    /// Waits for the line that the child prints when it is ready, and splits it into its `N` words.
    pub(crate) fn ready<const N: usize>(&self) -> Result<[String; N], BoxError> {
        let mut line = String::new();
        self.stdout.lock().map_err(|_| "poisoned")?.read_line(&mut line)?;
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        words.try_into().map_err(|_| format!("the child printed {line:?}").into())
    }

    /// CPU time so far, user and system.
    pub(crate) fn cpu(&self) -> Result<Duration, BoxError> {
        const TICKS_PER_SECOND: f64 = 100.0; // USER_HZ, the same on every Linux
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let after_name = stat.rsplit_once(')').ok_or("odd /proc/PID/stat")?.1;
        let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        Ok(Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND))
    }

    pub(crate) fn memory_kib(&self) -> Result<u64, BoxError> {
        self.status("VmRSS:")
    }

    pub(crate) fn peak_memory_kib(&self) -> Result<u64, BoxError> {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> Result<u64, BoxError> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("odd /proc/PID/status")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
