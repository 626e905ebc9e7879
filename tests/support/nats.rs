//! A real nats-server with JetStream.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    sync::mpsc,
    thread,
};

use super::{
    SOON, eventually_true,
    ports::{free_port, loopback},
    process::Process,
    program::program,
};

/// A server, which can be killed and started again at the same address, on its old store or an empty one.
pub(crate) struct Nats {
    program: PathBuf,
    pub(crate) at: SocketAddr,
    directory: PathBuf,
    flags: Vec<String>,
    pub(crate) process: Process,
}

impl Nats {
    #[track_caller]
    pub(crate) fn start(directory: &std::path::Path) -> Option<Self> {
        Self::start_with(directory, &[])
    }

    /// With these flags, too.
    #[track_caller]
    pub(crate) fn start_with(directory: &std::path::Path, flags: &[&str]) -> Option<Self> {
        let program = program("nats-server", "nats-server")?;
        let (at, directory) = (loopback(free_port()), directory.to_owned());
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let process = spawn(&program, at, &directory, &flags);
        Some(Self { program, at, directory, flags, process })
    }

    /// For `--store`.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.at)
    }

    /// Publishes as any other user of this NATS may, with these header lines.
    #[track_caller]
    pub(crate) fn publish(&self, subject: &str, headers: &str, payload: &[u8]) {
        let mut stream = TcpStream::connect(self.at).expect("connects");
        let headers = format!("NATS/1.0\r\n{headers}\r\n");
        let mut sent = b"CONNECT {\"verbose\":false,\"headers\":true}\r\n".to_vec();
        sent.extend(format!("HPUB {subject} {} {}\r\n", headers.len(), headers.len() + payload.len()).bytes());
        sent.extend([headers.as_bytes(), payload, b"\r\nPING\r\n"].concat());
        stream.write_all(&sent).expect("sends");
        // The greeting, and then the answer to the ping: all before was taken.
        let lines = BufReader::new(stream).lines().map(|line| line.expect("reads"));
        assert!(lines.take(4).any(|line| line == "PONG"), "NATS refuses");
    }

    /// What is published on a subject from now on, as any other user of this NATS hears it.
    #[track_caller]
    pub(crate) fn subscribe(&self, subject: &str) -> mpsc::Receiver<Vec<u8>> {
        let mut stream = TcpStream::connect(self.at).expect("connects");
        let asked = format!("CONNECT {{\"verbose\":false}}\r\nSUB {subject} 1\r\nPING\r\n");
        stream.write_all(asked.as_bytes()).expect("sends");
        let (heard, all) = mpsc::channel();
        let (subscribed, is_subscribed) = mpsc::channel();
        thread::spawn(move || {
            let mut answers = stream.try_clone().expect("a socket");
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|len| len > 0) {
                let words: Vec<&str> = line.split_whitespace().collect();
                match words[..] {
                    ["PONG"] => drop(subscribed.send(())),
                    ["PING"] => answers.write_all(b"PONG\r\n").expect("sends"),
                    ["MSG", .., len] => {
                        let mut payload = vec![0; len.parse::<usize>().expect("a length") + 2];
                        stream.read_exact(&mut payload).expect("a message");
                        payload.truncate(payload.len() - 2);
                        if heard.send(payload).is_err() {
                            return;
                        }
                    }
                    _ => {}
                }
                line.clear();
            }
        });
        is_subscribed.recv_timeout(SOON).expect("subscribes");
        all
    }

    /// SIGKILL; nobody answers at the address.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGKILL, and a start on what the disk has.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(&self.program, self.at, &self.directory, &self.flags);
    }

    /// SIGKILL, and a start on an empty disk.
    #[track_caller]
    pub(crate) fn restart_empty(&mut self) {
        self.process.kill();
        fs::remove_dir_all(self.directory.join("jetstream-data")).expect("removed");
        self.process = spawn(&self.program, self.at, &self.directory, &self.flags);
    }
}

#[track_caller]
fn spawn(program: &std::path::Path, at: SocketAddr, directory: &std::path::Path, flags: &[String]) -> Process {
    let mut command = Command::new(program);
    command.args(["-js", "-a", &at.ip().to_string(), "-p", &at.port().to_string()]);
    command.args(flags).arg("-sd").arg(directory.join("jetstream-data"));
    let process = Process::spawn("nats-server", directory, &mut command);
    eventually_true("nats-server listens", SOON, || TcpStream::connect(at).is_ok());
    process
}
