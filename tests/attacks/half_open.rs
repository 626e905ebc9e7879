//! Strangers open connections and say nothing. Newcomers still get in, and so does the fleet after a restart.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use narthex::{Client, identity::PeerAddr};
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
    runtime::{self, Runtime},
    time::{self, MissedTickBehavior},
};

use crate::{
    MACHINE,
    support::{
        SOON, eventually_true,
        fleet::{Fleet, Scraper},
        honest::Honest,
        netns::Namespace,
        ports::free_port,
        process::Process,
    },
};

/// Where the scraper listens for its fleet, and for newcomers: on one host a client's address is the one that it dials.
const FLEET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const NEWCOMERS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// Public addresses of the attacker.
const HOSTILE: u8 = 30;
/// Connections a second.
const RATE: u64 = 1000;
/// Hostile connections that are held, and opened again a moment after the scraper has closed them.
const HELD: usize = 10_000;
const REOPENED_AFTER: Duration = Duration::from_secs(2);
/// Half-open connections die after 5 s: by then the places that there are have all been taken.
const FILLED: usize = 6 * RATE as usize;
const CLIENTS: usize = 30;
/// How long a newcomer may take to register while the attack lasts: longer than an attempt, which a flooded listener may lose.
const REGISTERED: Duration = SOON;
/// How long the fleet may take to be scraped again.
const SCRAPED: Duration = SOON;

#[test]
fn a_newcomer_registers_during_a_flood_from_thirty_addresses() {
    newcomers_register_during_a_flood(HOSTILE);
}

#[test]
fn a_newcomer_registers_during_a_flood_from_nine_addresses() {
    newcomers_register_during_a_flood(9);
}

#[test]
fn a_newcomer_registers_during_a_flood_from_its_own_private_address() {
    let _alone = MACHINE.blocking_lock();
    let (fleet, scraper) = Fleet::with_scraper();
    let at = scraper.peer();
    let flood = Attack::flood(&at, vec![Ipv4Addr::LOCALHOST.into()]);
    flood.wait_opened(FILLED);
    newcomer(&fleet, &scraper, &at);
}

#[test]
fn ten_thousand_strangers_keep_neither_the_restarted_fleet_nor_a_newcomer_out() {
    let _alone = MACHINE.blocking_lock();
    rlimit::increase_nofile_limit(u64::MAX).expect("a file for each connection");
    let Some(internet) = internet(HOSTILE) else { return };
    internet.enter(|| {
        let (fleet, mut scraper, newcomers) = start();
        let clients = Runtime::new().expect("a runtime");
        let (peer, secret) = (scraper.peer(), fleet.secret.clone());
        let _clients = clients.block_on(async {
            let mut clients = Vec::new();
            for number in 0..CLIENTS {
                let builder = Client::builder(peer.clone(), secret.clone()).alias(alias(number));
                let client = builder.metrics(|| Ok::<_, Infallible>("m 1\n".to_owned())).start();
                clients.push(client.await.expect("the client starts"));
            }
            clients
        });
        eventually_true("the fleet is scraped", SOON, || is_scraped(&scraper));

        let honest = Honest::clients(&fleet, &scraper);
        let attack = Attack::hold(&newcomers, hostile(HOSTILE));
        attack.wait_opened(HELD);
        assert_eq!(scraper.process.terminate(SOON).code(), Some(0));
        scraper.restart();
        eventually_true("the fleet is scraped again", SCRAPED, || is_scraped(&scraper));
        let joined = newcomer(&fleet, &scraper, &newcomers);
        honest.report("10 000 half-open connections and a restart", &scraper, joined, attack);
    });
}

#[track_caller]
fn newcomers_register_during_a_flood(addresses: u8) {
    let _alone = MACHINE.blocking_lock();
    let Some(internet) = internet(addresses) else { return };
    internet.enter(|| {
        let (fleet, scraper, newcomers) = start();
        let honest = Honest::clients(&fleet, &scraper);
        let flood = Attack::flood(&newcomers, hostile(addresses));
        flood.wait_opened(FILLED);
        let joined = newcomer(&fleet, &scraper, &newcomers);
        let peak = scraper.count(&["narthex_handshakes_in_flight_peak"]);
        assert!(peak <= 512.0, "{peak} half-open connections");
        let attack = format!("{RATE} connections a second from {addresses} addresses");
        assert_eq!(honest.report(attack, &scraper, joined, flood), 0, "honest scrapes failed");
    });
}

/// A host with this many public addresses of the attacker. UDP is dropped: QUIC is no way round the flood.
#[track_caller]
fn internet(hostile: u8) -> Option<Namespace> {
    if !Namespace::available() {
        return None;
    }
    let host = Namespace::new("flood");
    let own = [FLEET, NEWCOMERS].into_iter().map(IpAddr::from);
    let lines: Vec<String> =
        own.chain(self::hostile(hostile)).map(|address| format!("addr add {address}/32 dev lo")).collect();
    host.ip(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    host.nft("table inet flood {\nchain out {\ntype filter hook output priority filter\nmeta l4proto udp drop\n}\n}");
    Some(host)
}

fn hostile(count: u8) -> Vec<IpAddr> {
    (1..=count).map(|last| Ipv4Addr::new(203, 0, 113, last).into()).collect()
}

/// A scraper, and where newcomers dial it.
#[track_caller]
fn start() -> (Fleet, Scraper, PeerAddr) {
    let (fleet, port) = (Fleet::new(), free_port());
    let second = SocketAddr::from((NEWCOMERS, port)).to_string();
    let scraper = fleet.scraper_on(FLEET.into(), &["--listen", &second]);
    let newcomers = PeerAddr::at(scraper.key, NEWCOMERS.to_string(), port);
    (fleet, scraper, newcomers)
}

/// A client that nobody has seen before registers in time; gives how long it took.
#[track_caller]
fn newcomer(fleet: &Fleet, scraper: &Scraper, at: &PeerAddr) -> Duration {
    let begun = Instant::now();
    let flags = [format!("--scraper={at}"), "--target=newcomer=http://127.0.0.1:9/".to_owned()];
    let _agent: Process = fleet.agent("newcomer", &flags.each_ref().map(String::as_str));
    let listed = || scraper.listed().is_some_and(|listed| listed.contains_key("newcomer"));
    eventually_true("the newcomer registers", REGISTERED, listed);
    begun.elapsed()
}

fn alias(number: usize) -> String {
    format!("client-{number}")
}

fn is_scraped(scraper: &Scraper) -> bool {
    (0..CLIENTS).all(|number| scraper.scrape(&alias(number), SOON).status == 200)
}

/// Connections on which nothing is sent. Dropping it ends them.
struct Attack {
    opened: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Attack {
    /// Opens [`RATE`] connections a second, each held until the scraper closes it.
    fn flood(at: &PeerAddr, sources: Vec<IpAddr>) -> Self {
        Self::start(at, |to, opened| async move {
            let mut tick = time::interval(Duration::from_millis(10));
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut sources = sources.into_iter().cycle();
            loop {
                tick.tick().await;
                for from in sources.by_ref().take(RATE as usize / 100) {
                    let opened = Arc::clone(&opened);
                    tokio::spawn(async move {
                        opened.fetch_add(1, Relaxed);
                        let _ = hold(from, to).await; // the scraper's answer is its own
                    });
                }
            }
        })
    }

    /// Holds [`HELD`] connections, and opens each again a moment after it was closed.
    fn hold(at: &PeerAddr, sources: Vec<IpAddr>) -> Self {
        Self::start(at, |to, opened| async move {
            for from in sources.into_iter().cycle().take(HELD) {
                let opened = Arc::clone(&opened);
                tokio::spawn(async move {
                    loop {
                        opened.fetch_add(1, Relaxed);
                        let _ = hold(from, to).await;
                        time::sleep(REOPENED_AFTER).await;
                    }
                });
            }
        })
    }

    fn start<F: Future<Output = ()> + Send + 'static>(
        at: &PeerAddr,
        attack: impl FnOnce(SocketAddr, Arc<AtomicUsize>) -> F,
    ) -> Self {
        let at = at.hint.as_ref().expect("an address").host_port();
        let to = SocketAddr::new(at.ip().expect("an IP address"), at.port);
        let opened = Arc::<AtomicUsize>::default();
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        runtime.spawn(attack(to, Arc::clone(&opened)));
        Self { opened, _runtime: runtime }
    }

    #[track_caller]
    fn wait_opened(&self, count: usize) {
        eventually_true(&format!("the attacker opens {count} connections"), SOON, || {
            self.opened.load(Relaxed) >= count
        });
    }
}

async fn hold(from: IpAddr, to: SocketAddr) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let mut stream: TcpStream = socket.connect(to).await?;
    // Whatever the scraper says first, and then its end.
    tokio::io::copy(&mut (&mut stream).take(u64::MAX), &mut tokio::io::sink()).await.map(drop)
}
