//! A real nats-server with JetStream.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command};

use super::{
    SOON, eventually_true,
    peers::program,
    ports::{free_port, loopback},
    process::Process,
};

/// A server, which can be killed and started again at the same address, on its old store or an empty one.
pub(crate) struct Nats {
    program: PathBuf,
    at: SocketAddr,
    directory: PathBuf,
    pub(crate) process: Process,
}

impl Nats {
    #[track_caller]
    pub(crate) fn start(directory: &std::path::Path) -> Option<Self> {
        let program = program("nats-server", "nats-server")?;
        let (at, directory) = (loopback(free_port()), directory.to_owned());
        let process = spawn(&program, at, &directory);
        Some(Self { program, at, directory, process })
    }

    /// For `--store`.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.at)
    }

    /// SIGKILL, and a start on what the disk has.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(&self.program, self.at, &self.directory);
    }

    /// SIGKILL, and a start on an empty disk.
    #[track_caller]
    pub(crate) fn restart_empty(&mut self) {
        self.process.kill();
        fs::remove_dir_all(self.directory.join("jetstream-data")).expect("removed");
        self.process = spawn(&self.program, self.at, &self.directory);
    }
}

#[track_caller]
fn spawn(program: &std::path::Path, at: SocketAddr, directory: &std::path::Path) -> Process {
    let mut command = Command::new(program);
    command.args(["-js", "-a", &at.ip().to_string(), "-p", &at.port().to_string()]);
    command.arg("-sd").arg(directory.join("jetstream-data"));
    let process = Process::spawn("nats-server", directory, &mut command);
    eventually_true("nats-server listens", SOON, || std::net::TcpStream::connect(at).is_ok());
    process
}
