//! Honest clients and their scrapes, before an attack and during it: what the attack costs those whom it is not about.

use std::{
    convert::Infallible,
    fmt::Display,
    io::{self, BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use narthex::{Client, identity::PeerAddr};
use tokio::runtime::{self, Runtime};

use super::{
    SOON, eventually_true,
    fleet::{Fleet, Scraper, scrape_path},
    http::Exchange,
};

/// Time between two scrapes. Every other one is on a connection that is kept.
const EVERY: Duration = Duration::from_millis(50);
/// Prometheus's own default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Fewest scrapes of a phase; `NARTHEX_FIGURES=300` gives better figures and longer tests.
const SCRAPES: usize = 40;
/// What a scraper has freed by now is free.
const CALM: Duration = Duration::from_secs(2);

/// A scrape: when it was begun, how long it took, and whether all of it came.
#[derive(Clone, Copy)]
struct Scrape {
    begun: Instant,
    took: Duration,
    answered: bool,
}

/// Scrapes some aliases in turn on a thread of its own until it is reported or dropped.
pub(crate) struct Honest {
    runtime: Runtime,
    clients: Vec<Client>,
    scrapes: Arc<Mutex<Vec<Scrape>>>,
    before: Vec<Scrape>,
    memory_before_kib: u64,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Honest {
    /// Three clients, registered; returns once enough has been measured in calm.
    #[track_caller]
    pub(crate) fn clients(fleet: &Fleet, scraper: &Scraper) -> Self {
        let aliases = ["honest-1", "honest-2", "honest-3"];
        let runtime = runtime();
        let clients = aliases.iter().map(|alias| runtime.block_on(client(fleet, &scraper.peer(), alias))).collect();
        Self::scraping_with(runtime, clients, scraper, &aliases)
    }

    /// As [`clients`](Self::clients), of aliases that are registered already.
    #[track_caller]
    pub(crate) fn scraping(scraper: &Scraper, aliases: &[&str]) -> Self {
        Self::scraping_with(runtime(), vec![], scraper, aliases)
    }

    #[track_caller]
    fn scraping_with(runtime: Runtime, clients: Vec<Client>, scraper: &Scraper, aliases: &[&str]) -> Self {
        aliases.iter().for_each(|alias| drop(scraper.wait_scraped(alias)));
        let (scrapes, stop) = (Arc::<Mutex<Vec<Scrape>>>::default(), Arc::<AtomicBool>::default());
        let paths: Vec<String> = aliases.iter().map(|alias| scrape_path(alias)).collect();
        let (http, results, stopped) = (scraper.http, Arc::clone(&scrapes), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut kept = None;
            for (number, path) in paths.iter().cycle().enumerate().take_while(|_| !stopped.load(Relaxed)) {
                let begun = Instant::now();
                let answer =
                    if number % 2 == 0 { scrape(http, path, &mut None) } else { scrape(http, path, &mut kept) };
                let scrape = Scrape { begun, took: begun.elapsed(), answered: answer.unwrap_or(false) };
                results.lock().expect("sound").push(scrape);
                thread::sleep(EVERY.saturating_sub(begun.elapsed()));
            }
        });
        let memory_before_kib = scraper.process.memory_kib();
        let mut honest =
            Self { runtime, clients, scrapes, before: vec![], memory_before_kib, stop, thread: Some(thread) };
        honest.wait_for_enough();
        honest.before = std::mem::take(&mut *honest.scrapes.lock().expect("sound"));
        honest
    }

    /// How long a client that nobody has seen before takes to register.
    #[track_caller]
    pub(crate) fn newcomer(&mut self, fleet: &Fleet, scraper: &Scraper) -> Duration {
        let begun = Instant::now();
        let alias = format!("newcomer-{}", self.clients.len());
        self.clients.push(self.runtime.block_on(client(fleet, &scraper.peer(), &alias)));
        scraper.wait_listed(&alias);
        begun.elapsed()
    }

    /// Prints a line of figures once enough has been measured, drops what runs the attack, and gives how many scrapes failed.
    #[track_caller]
    #[expect(clippy::print_stdout, reason = "the figures are for docs/attacks.md")]
    pub(crate) fn report(
        self,
        attack: impl Display,
        scraper: &Scraper,
        newcomer: Duration,
        running: impl Sized,
    ) -> usize {
        self.wait_for_enough();
        let during = std::mem::take(&mut *self.scrapes.lock().expect("sound"));
        drop(running);
        thread::sleep(CALM);
        let failed = during.iter().filter(|scrape| !scrape.answered).count();
        println!(
            "FIGURES {attack}: {} of {} answered, p99 {:.1} -> {:.1} ms, longest outage {:.1} s, newcomer {:.2} s, \
             memory {} -> {} MiB, peak {}",
            during.len() - failed,
            during.len(),
            p99_ms(&self.before),
            p99_ms(&during),
            longest_outage(&during).as_secs_f64(),
            newcomer.as_secs_f64(),
            self.memory_before_kib / 1024,
            scraper.process.memory_kib() / 1024,
            scraper.process.peak_memory_kib() / 1024,
        );
        failed
    }

    #[track_caller]
    fn wait_for_enough(&self) {
        let enough = std::env::var("NARTHEX_FIGURES").map_or(SCRAPES, |count| count.parse().expect("a number"));
        let longest = SOON + 2 * EVERY * u32::try_from(enough).expect("few");
        eventually_true("enough scrapes", longest, || self.scrapes.lock().expect("sound").len() >= enough);
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_none_or(|ended| ended.is_ok()) || thread::panicking(), "the scraping thread panicked");
    }
}

fn runtime() -> Runtime {
    runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

async fn client(fleet: &Fleet, scraper: &PeerAddr, alias: &str) -> Client {
    let builder = Client::builder(scraper.clone(), fleet.secret.clone()).alias(alias);
    builder.metrics(|| Ok::<_, Infallible>("m 1\n".to_owned())).start().await.expect("the client starts")
}

/// Scrapes on the connection that was kept, or on a new one; true for a whole 200. As Prometheus does, it asks again on
/// a new connection if the kept one was closed between two scrapes.
fn scrape(http: SocketAddr, path: &str, kept: &mut Option<BufReader<TcpStream>>) -> io::Result<bool> {
    let asked_on_kept = kept.take().and_then(|connection| ask(connection, path).ok());
    let mut exchange = match asked_on_kept {
        Some(exchange) => exchange,
        None => {
            let connection = TcpStream::connect_timeout(&http, TIMEOUT)?;
            connection.set_read_timeout(Some(TIMEOUT))?;
            ask(BufReader::new(connection), path)?
        }
    };
    let answered = exchange.status == 200 && exchange.read_body(|_| {});
    *kept = answered.then(|| exchange.into_connection());
    Ok(answered)
}

fn ask(mut connection: BufReader<TcpStream>, path: &str) -> io::Result<Exchange> {
    let timeout = TIMEOUT.as_secs();
    let head = format!("GET {path} HTTP/1.1\r\nHost: honest\r\nX-Prometheus-Scrape-Timeout-Seconds: {timeout}\r\n\r\n");
    connection.get_mut().write_all(head.as_bytes())?;
    Exchange::on(connection)
}

/// Of the answered scrapes: nearest rank.
fn p99_ms(scrapes: &[Scrape]) -> f64 {
    let mut took: Vec<Duration> = scrapes.iter().filter(|scrape| scrape.answered).map(|scrape| scrape.took).collect();
    took.sort_unstable();
    let rank = (took.len() * 99).div_ceil(100);
    rank.checked_sub(1).map_or(f64::NAN, |index| took[index].as_secs_f64() * 1000.0)
}

/// From the first failure of a row to the first answer after them, or to the end.
fn longest_outage(scrapes: &[Scrape]) -> Duration {
    let (mut longest, mut since) = (Duration::ZERO, None);
    for scrape in scrapes {
        if scrape.answered {
            since = None;
        } else {
            let since = *since.get_or_insert(scrape.begun);
            longest = longest.max(scrape.begun + scrape.took - since);
        }
    }
    longest
}
