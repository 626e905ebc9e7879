//! Many clients at once, all of them relayed: through a scraper's TCP alone, and from one office's address.
//!
//! As many as failed before; `NARTHEX_CLIENTS=300` takes so many, for some minutes.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    env,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use narthex::{Client, PeerAddr, client::EventKind};
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    rig::{self, Relay, Seer},
    support::{
        eventually_true,
        lab::{Kind, Lab, Site},
    },
};

/// On a machine that has other work.
const WITHIN: Duration = Duration::from_secs(180);

/// One crowd at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Clients that come at once: on a busy machine, the handshakes of more take longer than they may.
const AT_ONCE: usize = 16;

/// Each of a scraper's connections over TCP has room for 80 circuits.
#[test]
fn relayed_clients_are_scraped_over_tcp_alone() {
    scraped(Kind::UdpBlocked, &[clients(120) / 4; 4]);
}

/// An address had 64 connections.
#[test]
fn relayed_clients_behind_one_address_are_scraped() {
    scraped(Kind::Cone, &[clients(100)]);
}

fn clients(usually: usize) -> usize {
    env::var("NARTHEX_CLIENTS").map_or(usually, |count| count.parse().expect("a number of clients"))
}

/// The clients of one office, in one process.
struct Office {
    runtime: Runtime,
    clients: Vec<Client>,
    site: Site,
}

impl Office {
    #[track_caller]
    fn start(lab: &mut Lab, number: usize, count: usize, relays: &[Relay], seer: &Seer) -> Self {
        let site = lab.site(Kind::Symmetric);
        let nodes: Vec<PeerAddr> = relays.iter().map(|relay| relay.peer.clone()).collect();
        let start = async |client: usize| {
            let builder = Client::builder(seer.scraper.key, seer.fleet.secret.clone()).bootstrap(nodes.clone());
            let builder = builder.alias(alias(number, client)).metrics(|| Ok::<_, Infallible>(rig::BODY.to_owned()));
            let client = builder.start().await.expect("the client starts");
            let mut events = client.events();
            while !matches!(events.recv().await.expect("an event").kind, EventKind::Registered { .. }) {}
            client
        };
        let registered =
            async { timeout(WITHIN, stream::iter(0..count).map(start).buffer_unordered(AT_ONCE).collect()).await };
        let (runtime, clients) = site.enter(|| {
            let runtime = Runtime::new().expect("a runtime");
            let clients = runtime.block_on(registered).expect("all are registered in time");
            (runtime, clients)
        });
        Self { runtime, clients, site }
    }

    fn stop(self) {
        let Self { runtime, clients, site } = self;
        drop(clients);
        runtime.shutdown_background();
        drop(site);
    }
}

fn alias(office: usize, client: usize) -> String {
    format!("office-{office}-client-{client}")
}

/// Offices behind symmetric NATs with so many clients each are all scraped by a scraper here, through one relay.
#[track_caller]
#[expect(clippy::print_stdout, reason = "the time is a result")]
fn scraped(scraper: Kind, offices: &[usize]) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    rlimit::increase_nofile_limit(u64::MAX).expect("a file for each link");
    let Some((mut lab, _directory, relays)) = rig::with_relays(1) else { return };
    let seer = Seer::start(&mut lab, scraper, &relays);
    seer.wait_relays(1);
    let begun = Instant::now();
    let started: Vec<Office> = offices
        .iter()
        .zip(0..)
        .map(|(count, number)| Office::start(&mut lab, number, *count, &relays, &seer))
        .collect();
    let mut missing: BTreeSet<String> =
        offices.iter().zip(0..).flat_map(|(count, office)| (0..*count).map(move |one| alias(office, one))).collect();
    let all = missing.len();
    eventually_true("all are scraped", WITHIN, || {
        missing.retain(|alias| seer.scrape(alias).as_deref() != Ok(rig::BODY));
        missing.is_empty()
    });
    println!("{all} clients in {} offices: all scraped after {:?}", offices.len(), begun.elapsed());
    let relayed = (0..offices.len()).filter(|office| seer.path(&alias(*office, 0)) == "relayed").count();
    assert_eq!(relayed, offices.len(), "nothing else leads out of a symmetric NAT");
    started.into_iter().for_each(Office::stop);
}
