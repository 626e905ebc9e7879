//! narthex in the lab: relays at open sites, a scraper and agents wherever the test wants them.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use narthex::identity::{self, KeyPair, PeerAddr};
use tempfile::TempDir;

use crate::support::{
    SOON, eventually, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper, narthex, scrape_path, text},
    http,
    lab::{Kind, Lab, Site},
    process::Process,
};

/// The body of every exporter here.
pub(crate) const BODY: &str = "lab_up 1\n";
/// Where relays listen.
const PORT: u16 = 19_961;

/// A public node that relays.
pub(crate) struct Relay {
    pub(crate) site: Site,
    pub(crate) peer: PeerAddr,
    name: String,
    directory: PathBuf,
    process: Process,
}

impl Relay {
    /// `count` of them, at open sites, listening when this returns.
    #[track_caller]
    fn start(lab: &mut Lab, count: usize, directory: &Path) -> Vec<Self> {
        let start = |number| {
            let (site, name, key) = (lab.site(Kind::Open), format!("relay-{number}"), KeyPair::generate());
            identity::create_key(&directory.join(format!("{name}.key")), &key).expect("the key is written");
            let peer = PeerAddr::at(key.public(), site.public().to_string(), PORT);
            let process = spawn_relay(&site, &name, directory);
            Self { site, peer, name, directory: directory.to_owned(), process }
        };
        (1..=count).map(start).collect()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.process = spawn_relay(&self.site, &self.name, &self.directory);
    }
}

/// A lab, the directory of its relays, and `count` relays. None, with the reason in the output, where there is no lab.
#[track_caller]
pub(crate) fn with_relays(count: usize) -> Option<(Lab, TempDir, Vec<Relay>)> {
    let mut lab = Lab::new()?;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let relays = Relay::start(&mut lab, count, directory.path());
    Some((lab, directory, relays))
}

/// `--bootstrap` for each of them, by the address family that the kind has.
fn bootstrap(relays: &[Relay], kind: Kind) -> Vec<String> {
    let address = |relay: &Relay| match kind {
        Kind::SixOnly => PeerAddr::at(relay.peer.key, relay.site.public_v6().to_string(), PORT),
        _ => relay.peer.clone(),
    };
    relays.iter().flat_map(|relay| ["--bootstrap".to_owned(), address(relay).to_string()]).collect()
}

#[track_caller]
fn spawn_relay(site: &Site, name: &str, directory: &Path) -> Process {
    let mut command = narthex("node");
    command.args(["--relay", "--log-level", "debug", "--key", &text(&directory.join(format!("{name}.key")))]);
    command.args(["--data-dir", &text(&directory.join(format!("{name}-data")))]);
    command.args(["--listen", &format!("0.0.0.0:{PORT}"), "--external", &format!("{}:{PORT}", site.public())]);
    command.args(["--listen", &format!("[::]:{PORT}"), "--external", &format!("[{}]:{PORT}", site.public_v6())]);
    let process = site.enter(|| Process::spawn(name, directory, &mut command));
    eventually_true("the relay listens", SOON, || {
        site.enter(|| std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))).is_ok()
    });
    process
}

/// A scraper at a site, which knows only the relays. Declared so that processes end before their namespaces.
pub(crate) struct Seer {
    pub(crate) scraper: Scraper,
    pub(crate) fleet: Fleet,
    pub(crate) site: Site,
}

impl Seer {
    #[track_caller]
    pub(crate) fn start(lab: &mut Lab, kind: Kind, relays: &[Relay]) -> Self {
        let (site, fleet, known) = (lab.site(kind), Fleet::new(), bootstrap(relays, kind));
        let flags: Vec<&str> = known.iter().map(String::as_str).chain(["--log-level", "debug"]).collect();
        let any = if kind == Kind::SixOnly { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let scraper = site.enter(|| fleet.scraper_on(any, &flags));
        Self { scraper, fleet, site }
    }

    /// `direct`, `relayed` or `none`, as Prometheus would learn it; empty if the alias is not listed.
    pub(crate) fn path(&self, alias: &str) -> String {
        let listed = self.site.enter(|| self.scraper.listed());
        let path = |alias: &str| Some(listed?.get(alias)?.label("__meta_narthex_path").to_owned());
        path(alias).unwrap_or_default()
    }

    /// A scrape as Prometheus does it: the body, or what is wrong.
    pub(crate) fn scrape(&self, alias: &str) -> Result<String, String> {
        let answer = self.site.enter(|| http::get(self.scraper.http, &scrape_path(alias), &[]));
        let answer = answer.map_err(|error| error.to_string())?;
        let body = answer.text();
        if answer.status == 200 && answer.complete { Ok(body) } else { Err(format!("{}: {body}", answer.status)) }
    }

    /// Waits until it can be reached through so many relays.
    #[track_caller]
    pub(crate) fn wait_relays(&self, count: usize) {
        eventually_true(&format!("reachable through {count} relays"), SOON * 3, || {
            self.site.enter(|| self.scraper.count(&["narthex_relays"])) == count as f64
        });
    }

    /// Waits for a scrape that succeeds.
    #[track_caller]
    pub(crate) fn wait_scraped(&self, alias: &str, within: Duration) {
        eventually(&format!("a scrape of {alias} succeeds"), within, || self.scrape(alias).ok());
    }

    /// Waits for that path.
    #[track_caller]
    pub(crate) fn wait_path(&self, alias: &str, path: &str, within: Duration) {
        eventually_true(&format!("{alias} is {path}"), within, || self.path(alias) == path);
    }
}

/// An agent at a site, with an exporter beside it. It knows the scraper's key and the relays.
pub(crate) struct Agent {
    pub(crate) process: Process,
    pub(crate) started: Instant,
    name: String,
    flags: Vec<String>,
}

impl Agent {
    /// Starts one whose name is its alias.
    #[track_caller]
    pub(crate) fn start(name: &str, site: &Site, relays: &[Relay], seer: &Seer) -> Self {
        Self::start_with(name, site, relays, seer, BODY)
    }

    /// Starts one beside an exporter with this body.
    #[track_caller]
    pub(crate) fn start_with(name: &str, site: &Site, relays: &[Relay], seer: &Seer, body: &str) -> Self {
        let exporter = site.enter(|| Exporter::start([("/metrics", Reply::text(body))]));
        let mut flags = bootstrap(relays, site.kind());
        flags.extend(["--log-level".to_owned(), "debug".to_owned()]);
        flags.extend(["--scraper".to_owned(), seer.scraper.key.to_string()]);
        flags.extend(["--target".to_owned(), format!("{name}={}", exporter.url("/metrics"))]);
        let started = Instant::now();
        let process = spawn_agent(name, site, seer, &flags);
        Self { process, started, name: name.to_owned(), flags }
    }

    /// Starts it again.
    #[track_caller]
    pub(crate) fn restart(&mut self, site: &Site, seer: &Seer) {
        self.process = spawn_agent(&self.name, site, seer, &self.flags);
    }
}

fn spawn_agent(name: &str, site: &Site, seer: &Seer, flags: &[String]) -> Process {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    site.enter(|| seer.fleet.agent(name, &flags))
}

/// A duration in a table.
pub(crate) struct Seconds(pub(crate) Option<Duration>);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => f.pad(&format!("{:.2} s", time.as_secs_f64())),
            None => f.pad("-"),
        }
    }
}
