//! A fleet: one secret, one scraper, and whoever registers with it, all in one temporary directory.

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use narthex::identity::{self, KeyPair, PeerAddr, PublicKey, SharedSecret};
use serde::Deserialize;
use tempfile::TempDir;

use super::{
    SOON, eventually, eventually_true,
    http::{self, Answer},
    ports::{free_port, loopback},
    process::Process,
};

/// For an agent whose targets are in files.
pub(crate) const NO_TARGETS: [(&str, &str); 0] = [];

/// The directory, the secret and the scraper's key that a test's processes share.
pub(crate) struct Fleet {
    directory: TempDir,
    pub(crate) secret: SharedSecret,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("narthex-test-").tempdir().expect("a temporary directory");
        let fleet = Self { directory, secret: SharedSecret::generate() };
        identity::create_secret(&fleet.secret_file(), &fleet.secret).expect("the secret is written");
        fleet
    }

    /// A fleet and its scraper, ready.
    #[track_caller]
    pub(crate) fn with_scraper() -> (Self, Scraper) {
        let fleet = Self::new();
        let scraper = fleet.scraper(&[]);
        (fleet, scraper)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn secret_file(&self) -> PathBuf {
        self.path().join("fleet.secret")
    }

    /// A secret file that the scraper knows nothing of.
    pub(crate) fn wrong_secret_file(&self) -> PathBuf {
        let path = self.path().join("wrong.secret");
        if !path.exists() {
            identity::create_secret(&path, &SharedSecret::generate()).expect("the secret is written");
        }
        path
    }

    /// A scraper with its own key, data directory and ports, and `more` flags; ready when this returns.
    #[track_caller]
    pub(crate) fn scraper(&self, more: &[&str]) -> Scraper {
        self.scraper_on(Ipv4Addr::LOCALHOST.into(), more)
    }

    /// As [`scraper`](Self::scraper), listening for peers on this address.
    #[track_caller]
    pub(crate) fn scraper_on(&self, ip: IpAddr, more: &[&str]) -> Scraper {
        self.start_named("scraper", ip, more)
    }

    /// As [`scraper`](Self::scraper), one of several.
    #[track_caller]
    pub(crate) fn scraper_named(&self, name: &str, more: &[&str]) -> Scraper {
        self.start_named(name, Ipv4Addr::LOCALHOST.into(), more)
    }

    #[track_caller]
    fn start_named(&self, name: &str, ip: IpAddr, more: &[&str]) -> Scraper {
        let key = KeyPair::generate();
        let key_file = self.path().join(format!("{name}.key"));
        identity::create_key(&key_file, &key).expect("the key is written");
        let mut command = narthex("scraper");
        command.args(["--key", &text(&key_file)]);
        command.args(["--secret-file", &text(&self.secret_file())]);
        command.args(["--data-dir", &text(&self.path().join(format!("{name}-data")))]);
        command.args(more);
        let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
        let http = loopback(free_port());
        let p2p = SocketAddr::new(ip, free_port());
        let process = start_scraper(self.path(), &arguments, http, p2p);
        let mut scraper =
            Scraper { key: key.public(), http, p2p, arguments, directory: self.path().to_owned(), process };
        scraper.wait_ready();
        scraper
    }

    /// A node that others bootstrap from; listening when this returns.
    #[track_caller]
    pub(crate) fn node(&self) -> Node {
        self.node_with(&[])
    }

    /// As [`node`](Self::node), with `more` flags.
    #[track_caller]
    pub(crate) fn node_with(&self, more: &[&str]) -> Node {
        self.start_node(|_| more.iter().map(|&flag| flag.to_owned()).collect())
    }

    /// As [`node`](Self::node), one that relays.
    #[track_caller]
    pub(crate) fn relay(&self) -> Node {
        // All are on loopback: a doctor would else wait long for a dial-back.
        let flags = |address: SocketAddr| {
            ["--relay", "--allow-private-dial-back", "--external", &address.to_string()].map(String::from).into()
        };
        self.start_node(flags)
    }

    #[track_caller]
    fn start_node(&self, more: impl FnOnce(SocketAddr) -> Vec<String>) -> Node {
        let key = KeyPair::generate();
        identity::create_key(&self.path().join("node.key"), &key).expect("the key is written");
        let port = free_port();
        let mut command = narthex("node");
        command.args(["--key", &text(&self.path().join("node.key")), "--listen", &loopback(port).to_string()]);
        command.args(["--data-dir", &text(&self.path().join("node-data"))]).args(more(loopback(port)));
        let process = Process::spawn("node", self.path(), &mut command);
        eventually_true("the node listens", SOON, || std::net::TcpStream::connect(loopback(port)).is_ok());
        Node { peer: PeerAddr::at(key.public(), "127.0.0.1", port), process }
    }

    /// An agent called `name` with a key and data directory of its own, the fleet's secret, and these flags.
    #[track_caller]
    pub(crate) fn agent(&self, name: &str, flags: &[&str]) -> Process {
        self.agent_with(name, &self.secret_file(), &[], flags)
    }

    /// As [`agent`](Self::agent), of this scraper, with a target for each alias and URL and `more` flags.
    #[track_caller]
    pub(crate) fn agent_of<A: fmt::Display, U: fmt::Display>(
        &self,
        scraper: &Scraper,
        name: &str,
        targets: impl IntoIterator<Item = (A, U)>,
        more: &[&str],
    ) -> Process {
        let mut flags = vec![format!("--scraper={}", scraper.peer())];
        flags.extend(targets.into_iter().map(|(alias, url)| format!("--target={alias}={url}")));
        flags.extend(more.iter().map(|&flag| flag.to_owned()));
        self.agent(name, &flags.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// As [`agent`](Self::agent), with another secret and these environment variables.
    #[track_caller]
    pub(crate) fn agent_with(&self, name: &str, secret_file: &Path, env: &[(&str, &str)], flags: &[&str]) -> Process {
        let mut command = narthex("agent");
        command.envs(env.iter().copied()).args(["--secret-file", &text(secret_file)]);
        command.args(["--data-dir", &text(&self.path().join(format!("{name}-data")))]).args(flags);
        Process::spawn(name, self.path(), &mut command)
    }
}

pub(crate) struct Node {
    pub(crate) peer: PeerAddr,
    pub(crate) process: Process,
}

/// A scraper process, which can be killed and started again on the same data.
pub(crate) struct Scraper {
    pub(crate) key: PublicKey,
    pub(crate) http: SocketAddr,
    p2p: SocketAddr,
    arguments: Vec<String>,
    directory: PathBuf,
    pub(crate) process: Process,
}

impl Scraper {
    /// The port for peers.
    pub(crate) fn port(&self) -> u16 {
        self.p2p.port()
    }

    /// Its key with the hint where it listens.
    pub(crate) fn peer(&self) -> PeerAddr {
        PeerAddr::at(self.key, self.p2p.ip().to_string(), self.p2p.port())
    }

    /// Starts again with the same key, data and HTTP address; the process must have ended.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.restart_with(|command, directory| Process::spawn("scraper", directory, command));
    }

    /// As [`restart`](Self::restart), spawned by `spawn`, which gets the command and the fleet's directory.
    #[track_caller]
    pub(crate) fn restart_with(&mut self, spawn: impl FnOnce(&mut Command, &Path) -> Process) {
        assert!(self.process.exited().is_some(), "the scraper has ended");
        let mut command = scraper_command(&self.arguments, self.http, self.p2p);
        self.process = spawn(&mut command, &self.directory);
        self.wait_ready();
    }

    /// As [`restart`](Self::restart), of a scraper that answers and may not be ready.
    #[track_caller]
    pub(crate) fn restart_unready(&mut self) {
        assert!(self.process.exited().is_some(), "the scraper has ended");
        let mut command = scraper_command(&self.arguments, self.http, self.p2p);
        self.process = Process::spawn("scraper", &self.directory, &mut command);
        self.wait_answering("/-/healthy");
    }

    /// From its next start on it listens for peers on another port.
    pub(crate) fn move_to_another_port(&mut self) {
        self.p2p.set_port(free_port());
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        http::get(self.http, path, &[]).unwrap_or_else(|error| panic!("GET {path} at the scraper: {error}"))
    }

    /// Scrapes an alias as Prometheus does, with this timeout.
    #[track_caller]
    pub(crate) fn scrape(&self, alias: &str, timeout: Duration) -> Answer {
        let timeout = timeout.as_secs_f64().to_string();
        let headers = [("Accept", "text/plain"), ("X-Prometheus-Scrape-Timeout-Seconds", timeout.as_str())];
        http::get(self.http, &scrape_path(alias), &headers)
            .unwrap_or_else(|error| panic!("scrape of {alias} at the scraper: {error}"))
    }

    /// Scrapes an alias with these headers.
    #[track_caller]
    pub(crate) fn ask(&self, alias: &str, headers: &[(&str, &str)]) -> Answer {
        http::get(self.http, &scrape_path(alias), headers).expect("the scraper answers")
    }

    /// Waits until a scrape of the alias answers 200, and gives its body.
    #[track_caller]
    pub(crate) fn wait_scraped(&self, alias: &str) -> String {
        eventually(&format!("a scrape of {alias} succeeds"), SOON, || {
            let answer = http::get(self.http, &scrape_path(alias), &[]).ok()?;
            (answer.status == 200 && answer.complete).then(|| answer.text())
        })
    }

    /// The http_sd list by alias, if it is there.
    pub(crate) fn listed(&self) -> Option<BTreeMap<String, Listed>> {
        let answer = http::get(self.http, "/sd", &[]).ok().filter(|answer| answer.status == 200)?;
        let entries: Vec<Listed> = serde_json::from_slice(&answer.body).expect("http_sd is JSON");
        Some(entries.into_iter().map(|entry| (entry.label("instance").to_owned(), entry)).collect())
    }

    #[track_caller]
    pub(crate) fn wait_listed(&self, alias: &str) -> Listed {
        eventually(&format!("{alias} is listed"), SOON, || self.listed()?.remove(alias))
    }

    #[track_caller]
    pub(crate) fn wait_unlisted(&self, alias: &str) {
        let absent = || self.listed().is_some_and(|listed| !listed.contains_key(alias));
        eventually_true(&format!("{alias} leaves the list"), SOON, absent);
    }

    /// The scraper's own samples: `name{labels}` and value, in the order of the exposition.
    pub(crate) fn samples(&self) -> Vec<(String, f64)> {
        let exposition = self.get("/metrics").text();
        let lines = exposition.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| line.rsplit_once(' '));
        samples.map(|(name, value)| (name.to_owned(), value.parse().unwrap_or(f64::NAN))).collect()
    }

    /// The sum of its samples whose name and labels hold all of `words`.
    pub(crate) fn count(&self, words: &[&str]) -> f64 {
        let holds = |name: &str| words.iter().all(|word| name.contains(word));
        self.samples().iter().filter(|(name, _)| holds(name)).map(|(_, value)| value).sum()
    }

    /// Waits until [`count`](Self::count) has passed `before`.
    #[track_caller]
    pub(crate) fn wait_counted(&self, words: &[&str], before: f64) {
        eventually_true(&format!("a counter of {words:?} grows beyond {before}"), SOON, || self.count(words) > before);
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        self.wait_answering("/-/ready");
    }

    #[track_caller]
    fn wait_answering(&mut self, path: &str) {
        let address = self.http;
        eventually_true(&format!("the scraper answers 200 to {path}"), SOON, || {
            if let Some(status) = self.process.exited() {
                panic!("the scraper ended at its start with {status}:\n{}", self.process.log());
            }
            http::get(address, path, &[]).is_ok_and(|answer| answer.status == 200)
        });
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listed {
    pub(crate) targets: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Listed {
    /// The value of a label, empty if it is not there.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

pub(crate) fn scrape_path(alias: &str) -> String {
    format!("/scrape/{alias}/metrics")
}

/// `narthex COMMAND`, deaf to the environment's own settings.
pub(crate) fn narthex(subcommand: &str) -> Command {
    let mut command = deaf();
    command.arg(subcommand);
    command
}

fn deaf() -> Command {
    deafened(Command::new(env!("CARGO_BIN_EXE_narthex")))
}

/// A command that hears none of the environment's own settings, as a shell that runs narthex.
pub(crate) fn deafened(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NARTHEX_")) {
        command.env_remove(name);
    }
    command
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("temporary paths are plain").to_owned()
}

fn start_scraper(directory: &Path, arguments: &Vec<String>, http: SocketAddr, p2p: SocketAddr) -> Process {
    fs::create_dir_all(directory).expect("the directory is there");
    Process::spawn("scraper", directory, &mut scraper_command(arguments, http, p2p))
}

fn scraper_command(arguments: &Vec<String>, http: SocketAddr, p2p: SocketAddr) -> Command {
    let mut command = deaf();
    command.args(arguments).args(["--http", &http.to_string()]).args(["--listen", &p2p.to_string()]);
    command
}
