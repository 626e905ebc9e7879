//! The programs of a benchmark: scrapers, nodes and a nats-server, each killed with its handle.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use narthex::{
    KeyPair,
    identity::{self, PeerAddr, PublicKey},
};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{BoxError, usage};

/// A program that runs.
pub(crate) struct Child {
    process: std::process::Child,
    command: Vec<String>,
    key: Option<PublicKey>,
    pub(crate) http: SocketAddr,
    pub(crate) p2p: SocketAddr,
    log: PathBuf,
}

/// What a nats-server has received and sent: messages, and the bytes of their payloads and headers.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Counters {
    #[serde(rename = "in_msgs")]
    pub(crate) messages: u64,
    #[serde(rename = "in_bytes")]
    pub(crate) bytes: u64,
    #[serde(rename = "out_msgs")]
    pub(crate) messages_out: u64,
    #[serde(rename = "out_bytes")]
    pub(crate) bytes_out: u64,
}

impl Counters {
    pub(crate) fn messages_to(&self, after: &Self) -> f64 {
        after.messages.saturating_sub(self.messages) as f64
    }

    pub(crate) fn bytes_to(&self, after: &Self) -> f64 {
        after.bytes.saturating_sub(self.bytes) as f64
    }
}

impl Child {
    fn start(
        command: Vec<String>,
        key: Option<PublicKey>,
        ports: [SocketAddr; 2],
        log: PathBuf,
    ) -> Result<Self, BoxError> {
        let process = spawn(&command, &log)?;
        Ok(Self { process, command, key, http: ports[0], p2p: ports[1], log })
    }

    pub(crate) fn peer(&self) -> Result<PeerAddr, BoxError> {
        let key = self.key.ok_or("no scraper")?;
        Ok(PeerAddr::at(key, self.p2p.ip().to_string(), self.p2p.port()))
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn memory_kib(&self) -> Result<u64, BoxError> {
        usage::memory_kib(self.id())
    }

    /// SIGKILL, and the same command again.
    pub(crate) async fn restart(&mut self) -> Result<(), BoxError> {
        self.process.kill()?;
        self.process.wait()?;
        self.process = spawn(&self.command, &self.log)?;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(command: &[String], log: &Path) -> Result<std::process::Child, BoxError> {
    let log = fs::File::options().create(true).append(true).open(log)?;
    let (program, arguments) = command.split_first().ok_or("no command")?;
    Ok(Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?)
}

fn free() -> Result<SocketAddr, BoxError> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A scraper; its HTTP side answers when this returns.
pub(crate) async fn scraper(path: &Path, name: &str, more: &[&str]) -> Result<Child, BoxError> {
    let key = KeyPair::generate();
    let key_file = path.join(format!("{name}.key"));
    identity::create_key(&key_file, &key)?;
    let ports = [free()?, free()?];
    let flags = [
        format!("--key={}", key_file.display()),
        format!("--secret-file={}", path.join("secret").display()),
        format!("--data-dir={}", path.join(name).display()),
        format!("--http={}", ports[0]),
        format!("--listen={}", ports[1]),
    ];
    let mut command = vec![env!("CARGO_BIN_EXE_narthex").to_owned(), "scraper".to_owned()];
    command.extend(flags);
    command.extend(more.iter().map(|&flag| flag.to_owned()));
    let child = Child::start(command, Some(key.public()), ports, path.join(format!("{name}.log")))?;
    until(|| async { get(child.http, "/-/healthy").await.is_ok() }).await;
    Ok(child)
}

/// A node; its HTTP side answers when this returns.
pub(crate) async fn node(path: &Path, name: &str, more: &[&str]) -> Result<Child, BoxError> {
    let key = KeyPair::generate();
    let key_file = path.join(format!("{name}.key"));
    identity::create_key(&key_file, &key)?;
    let ports = [free()?, free()?];
    let mut command = vec![env!("CARGO_BIN_EXE_narthex").to_owned(), "node".to_owned()];
    command.extend([
        format!("--key={}", key_file.display()),
        format!("--data-dir={}", path.join(name).display()),
        format!("--http={}", ports[0]),
        format!("--listen={}", ports[1]),
    ]);
    command.extend(more.iter().map(|&flag| flag.to_owned()));
    let child = Child::start(command, Some(key.public()), ports, path.join(format!("{name}.log")))?;
    until(|| async { get(child.http, "/-/healthy").await.is_ok() }).await;
    Ok(child)
}

/// A nats-server, its URL, and where its counters are.
pub(crate) async fn nats_server(program: &Path, path: &Path) -> Result<(Child, String, SocketAddr), BoxError> {
    let ports = [free()?, free()?];
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut command = vec![text(program), "-js".to_owned(), "-a".to_owned(), ports[1].ip().to_string()];
    command.extend(["-p".to_owned(), ports[1].port().to_string(), "-m".to_owned(), ports[0].port().to_string()]);
    command.extend(["-sd".to_owned(), text(&path.join("jetstream"))]);
    let child = Child::start(command, None, ports, path.join("nats.log"))?;
    until(|| async { get(ports[0], "/varz").await.is_ok() }).await;
    Ok((child, format!("nats://{}", ports[1]), ports[0]))
}

pub(crate) async fn nats_counters(monitor: SocketAddr) -> Result<Counters, BoxError> {
    Ok(serde_json::from_str(&get(monitor, "/varz").await?.1)?)
}

/// Status and body.
pub(crate) async fn get(from: SocketAddr, path: &str) -> Result<(u16, String), BoxError> {
    request(from, path, "").await
}

/// As [`get`], with further headers, each with its end of line.
pub(crate) async fn request(from: SocketAddr, path: &str, headers: &str) -> Result<(u16, String), BoxError> {
    let mut stream = TcpStream::connect(from).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {from}\r\n{headers}\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

async fn until<F: Future<Output = bool>>(mut done: impl FnMut() -> F) {
    while !done().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
