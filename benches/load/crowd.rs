//! A fleet that comes at once, comes back at once after its scraper was killed, and ends at once.
//!
//! The scraper is the narthex of this build, the clients are library clients in a few processes. The clock runs from the
//! moment when all are told to start until the scraper lists and links all. Where `PUSHPROX_PROXY` and `PUSHPROX_CLIENT`
//! name its binaries, PushProx does the same in the same run, with a process for each client.

use std::{
    env,
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use narthex::{KeyPair, SharedSecret, identity};
use serde::Serialize;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{Args, BoxError, floor, process::Child, pushprox, scrape};

/// Processes that the clients are spread over.
const PROCESSES: usize = 4;
/// Between two looks at the scraper.
const LOOK: Duration = Duration::from_millis(100);
/// After which a crowd counts as lost.
const PATIENCE: Duration = Duration::from_secs(900);
/// A link that is lost sooner counts as refused, and would be redialled later.
const SETTLED: Duration = Duration::from_secs(3);
/// How long the crowd idles if the flag does not say.
const IDLE: Duration = Duration::from_secs(60);

/// One system with so many clients.
#[derive(Default, Serialize)]
pub(crate) struct Row {
    pub(crate) system: &'static str,
    pub(crate) clients: usize,
    pub(crate) coming: Step,
    pub(crate) links_each: f64,
    pub(crate) returning: Step,
    pub(crate) links_each_returning: f64,
    pub(crate) leaving: Step,
    /// Listed once all clients had ended.
    pub(crate) left: usize,
    /// What the front held more for each client, right after all were there, and after the idle time.
    pub(crate) kib_each: [f64; 2],
    pub(crate) idle_of_a_core: f64,
}

/// How long all took, and the CPU of the front for each.
#[derive(Clone, Copy, Default, Serialize)]
pub(crate) struct Step {
    pub(crate) seconds: f64,
    pub(crate) cpu_ms_each: f64,
}

impl Step {
    pub(crate) fn new(began: Instant, cpu: Duration, clients: usize) -> Self {
        Self { seconds: began.elapsed().as_secs_f64(), cpu_ms_each: cpu.as_secs_f64() * 1000.0 / clients as f64 }
    }
}

/// Measures each number of clients, and prints a table and JSON.
pub(crate) async fn measure(args: &Args) -> Result<(), BoxError> {
    let idle = args.idle.unwrap_or(IDLE);
    let [link, registration] = floor::measure().await?;
    println!("the scraper's part of the link's handshake: {link:?}, of the registration's: {registration:?}\n");
    let mut rows = Vec::new();
    for &clients in &args.crowd {
        rows.push(narthex(args, clients, idle).await?);
        if let (Some(proxy), Some(client)) = (env::var_os("PUSHPROX_PROXY"), env::var_os("PUSHPROX_CLIENT")) {
            rows.push(pushprox::measure(Path::new(&proxy), Path::new(&client), clients, idle).await?);
        }
    }
    println!(
        "| | clients | listed after s | CPU ms each | links each | returned after s | CPU ms each | links each | gone after s | CPU ms each | left | KiB each: at once | later | idle CPU of a core |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for row in &rows {
        let Row { system, clients, coming, links_each, returning, links_each_returning, leaving, left, .. } = row;
        println!(
            "| {system} | {clients} | {:.2} | {:.2} | {links_each:.2} | {:.2} | {:.2} | {links_each_returning:.2} | {:.2} | {:.2} | {left} | {:.1} | {:.1} | {:.2} % |",
            coming.seconds,
            coming.cpu_ms_each,
            returning.seconds,
            returning.cpu_ms_each,
            leaving.seconds,
            leaving.cpu_ms_each,
            row.kib_each[0],
            row.kib_each[1],
            row.idle_of_a_core * 100.0,
        );
    }
    println!("\n{}", serde_json::to_string(&rows)?);
    Ok(())
}

async fn narthex(args: &Args, clients: usize, idle: Duration) -> Result<Row, BoxError> {
    let program = args.narthex.clone().unwrap_or_else(|| env!("CARGO_BIN_EXE_narthex").into());
    let front = Front::new(program)?;
    let scraper = front.start()?;
    front.ready().await?;
    let before = scraper.memory_kib()?;
    let (aliases, crowd) = (clients * args.aliases, Crowd::gather(&front, clients, args.aliases)?);
    let mut row = Row { system: "narthex", clients, ..Row::default() };

    let (began, cpu) = (Instant::now(), scraper.cpu()?);
    crowd.tell("start")?;
    front.all_there(clients, aliases).await?;
    row.coming = Step::new(began, scraper.cpu()? - cpu, clients);
    row.links_each = crowd.links()? as f64 / clients as f64;
    row.kib_each[0] = (scraper.memory_kib()?.saturating_sub(before)) as f64 / clients as f64;
    eprintln!("{clients} came in {:.2} s, {:.2} ms of CPU each", row.coming.seconds, row.coming.cpu_ms_each);
    sleep(SETTLED).await;
    let cpu = scraper.cpu()?;
    sleep(idle).await;
    row.idle_of_a_core = (scraper.cpu()? - cpu).as_secs_f64() / idle.as_secs_f64().max(f64::MIN_POSITIVE);
    row.kib_each[1] = (scraper.memory_kib()?.saturating_sub(before)) as f64 / clients as f64;
    let linked = crowd.links()?;

    drop(scraper);
    let scraper = front.start()?;
    let began = Instant::now();
    front.all_there(clients, aliases).await?;
    row.returning = Step::new(began, scraper.cpu()?, clients);
    row.links_each_returning = (crowd.links()? - linked) as f64 / clients as f64;
    eprintln!("{clients} returned in {:.2} s, {:.2} ms of CPU each", row.returning.seconds, row.returning.cpu_ms_each);
    sleep(SETTLED).await;

    let (began, cpu) = (Instant::now(), scraper.cpu()?);
    crowd.tell("end")?;
    crowd.ended()?;
    row.leaving = Step::new(began, scraper.cpu()? - cpu, clients);
    row.left = front.listed().await?;
    eprintln!("{clients} ended in {:.2} s, {} stay listed", row.leaving.seconds, row.left);
    Ok(row)
}

/// The scraper's files and addresses, which outlive a kill.
pub(crate) struct Front {
    program: PathBuf,
    files: TempDir,
    peer: String,
    p2p: String,
    http: String,
}

impl Front {
    fn new(program: PathBuf) -> Result<Self, BoxError> {
        let files = tempfile::tempdir()?;
        let key = KeyPair::generate();
        identity::create_key(&files.path().join("key"), &key)?;
        identity::create_secret(&files.path().join("secret"), &SharedSecret::generate())?;
        let (p2p, http) = (free_address()?, free_address()?);
        Ok(Self { peer: format!("{}@{p2p}", key.public()), p2p, http, files, program })
    }

    fn file(&self, name: &str) -> String {
        let path: PathBuf = self.files.path().join(name);
        path.display().to_string()
    }

    fn start(&self) -> Result<Child, BoxError> {
        let (key, secret, data) = (self.file("key"), self.file("secret"), self.file("data"));
        let flags = ["--key", &key, "--secret-file", &secret, "--data-dir", &data];
        let addresses = ["--listen", &self.p2p, "--http", &self.http, "--log-level", "warn"];
        // All clients have one address.
        let limits = ["--max-connections-per-private-ip", "16000"];
        Child::run(&self.program, &[&["scraper"], &flags[..], &addresses[..], &limits[..]].concat())
    }

    async fn ready(&self) -> Result<(), BoxError> {
        until(async || scrape::text(&self.http, "/-/ready").await.is_ok()).await
    }

    /// Returns once each client is linked, listed, and has registered with this very process.
    async fn all_there(&self, clients: usize, aliases: usize) -> Result<(), BoxError> {
        until(async || {
            let Ok(samples) = scrape::text(&self.http, "/metrics").await else { return false };
            let count = |name: &str| sample(&samples, name) as usize;
            let registered = ["updated", "renewed"]
                .map(|outcome| count(&format!("narthex_registrations_total{{outcome=\"{outcome}\"}}")));
            registered.iter().sum::<usize>() >= aliases
                && count("narthex_aliases{state=\"active\"}") == aliases
                && count("narthex_links{path=\"direct\"}") == clients
        })
        .await?;
        let listed = self.listed().await?;
        if listed == aliases { Ok(()) } else { Err(format!("{listed} of {aliases} are in /sd").into()) }
    }

    async fn listed(&self) -> Result<usize, BoxError> {
        let list: Vec<serde_json::Value> = serde_json::from_str(&scrape::text(&self.http, "/sd").await?)?;
        Ok(list.len())
    }
}

/// The processes of the clients.
struct Crowd(Vec<Child>);

impl Crowd {
    fn gather(front: &Front, clients: usize, aliases: usize) -> Result<Self, BoxError> {
        let secret = identity::load_secret(Path::new(&front.file("secret")))?.expose_text();
        let children = (0..PROCESSES.min(clients)).map(|first| {
            let numbers = (first..clients).step_by(PROCESSES).len();
            let [first, numbers, aliases] = [first, numbers, aliases].map(|number| number.to_string());
            Child::start(&["crowd", &front.peer, &secret, &first, &numbers, &aliases])
        });
        let crowd = Self(children.collect::<Result<_, _>>()?);
        crowd.0.iter().try_for_each(|child| child.ready::<1>().map(drop))?;
        Ok(crowd)
    }

    fn tell(&self, word: &str) -> Result<(), BoxError> {
        self.0.iter().try_for_each(|child| child.tell(word))
    }

    /// Links that were made so far.
    fn links(&self) -> Result<usize, BoxError> {
        self.tell("links")?;
        let counts = self.0.iter().map(|child| Ok(child.ready::<1>()?[0].parse::<usize>()?));
        counts.sum::<Result<usize, BoxError>>()
    }

    fn ended(&self) -> Result<(), BoxError> {
        self.0.iter().try_for_each(|child| child.ready::<1>().map(drop))
    }
}

/// Waits until it holds.
pub(crate) async fn until(mut holds: impl AsyncFnMut() -> bool) -> Result<(), BoxError> {
    let began = Instant::now();
    while !holds().await {
        if began.elapsed() > PATIENCE {
            return Err(format!("not all were there after {PATIENCE:?}").into());
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// An address of this machine that nobody listens on.
pub(crate) fn free_address() -> Result<String, BoxError> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn sample(samples: &str, name: &str) -> f64 {
    let line = samples.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
}
