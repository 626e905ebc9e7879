//! A real nats-server with JetStream, for stores that are inside the library.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use program::program;

#[path = "../../../../../tests/support/program.rs"]
mod program;

/// Until its port is known.
const SOON: Duration = Duration::from_secs(20);

/// Ends with its handle.
pub(super) struct NatsServer {
    child: Child,
    directory: TempDir,
    url: String,
}

impl NatsServer {
    /// None if there is no such program, which is a failure in CI.
    #[track_caller]
    pub(super) fn start() -> Option<Self> {
        let program = program("nats-server", "nats-server")?;
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(program);
        let config = directory.path().join("nats.conf");
        fs::write(&config, format!("ports_file_dir: {:?}\n", directory.path())).expect("written");
        command.args(["-js", "-a", "127.0.0.1", "-p", "-1", "-sd"]).arg(directory.path().join("streams"));
        command.arg("-c").arg(config);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        let mut server = Self { child, directory, url: String::new() };
        let deadline = Instant::now() + SOON;
        while server.url.is_empty() {
            assert!(Instant::now() < deadline, "nats-server does not listen");
            thread::sleep(Duration::from_millis(10));
            server.url = server.noted_url().unwrap_or_default();
        }
        Some(server)
    }

    /// With the port that the server was given by the kernel.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    fn noted_url(&self) -> Option<String> {
        let files = fs::read_dir(self.directory.path()).expect("readable").map(|file| file.expect("readable").path());
        let noted = files.filter(|file| file.extension().is_some_and(|extension| extension == "ports"));
        let noted: Value = noted.filter_map(|file| serde_json::from_slice(&fs::read(file).ok()?).ok()).next()?;
        Some(noted["nats"][0].as_str()?.to_owned())
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
