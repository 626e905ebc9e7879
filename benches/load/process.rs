//! The child processes, and what they cost.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use crate::{BoxError, usage};

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

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn cpu(&self) -> Result<Duration, BoxError> {
        usage::cpu(self.id())
    }

    pub(crate) fn memory_kib(&self) -> Result<u64, BoxError> {
        usage::memory_kib(self.id())
    }

    pub(crate) fn peak_memory_kib(&self) -> Result<u64, BoxError> {
        usage::peak_memory_kib(self.id())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
