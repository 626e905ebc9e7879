//! Peers without the secret cannot keep the others from registering, and peers with it cannot fill the log.

use std::{
    convert::Infallible,
    thread,
    time::{Duration, Instant},
};

use narthex::{Client, KeyPair, TargetBuilder, client::EventKind, identity::PeerAddr};
use tokio::{runtime::Runtime, sync::oneshot, time::timeout};

use crate::support::{
    SOON,
    crowd::Crowd,
    eventually_true,
    fleet::{Fleet, Scraper},
    honest::Honest,
    ports::free_port,
    stranger,
};

/// More than the places that there are for register exchanges.
const CROWD: usize = 700;
/// Connections that there are, all wanted by strangers.
const LINKS: usize = 240;
/// How soon an honest newcomer registers, whoever else wants to.
const WELCOME: Duration = Duration::from_secs(5);
/// How soon the fleet is scraped again after a restart.
const BACK: Duration = Duration::from_secs(10);
/// A scraper closes the link of a peer that has proved nothing for 30 s; it looks every 10 s.
const STRANGERS_CUT: Duration = Duration::from_secs(45);
/// Aliases that one peer may hold, but for some.
const MANY: usize = 250;

/// A client in this process, with one target for each alias.
async fn client(fleet: &Fleet, scraper: &Scraper, aliases: impl IntoIterator<Item = String>) -> Client {
    client_with(KeyPair::generate(), fleet, scraper, aliases).await
}

async fn client_with(
    key: KeyPair,
    fleet: &Fleet,
    scraper: &Scraper,
    aliases: impl IntoIterator<Item = String>,
) -> Client {
    let builder = Client::builder(scraper.peer(), fleet.secret.clone()).key(key);
    let builder = aliases.into_iter().fold(builder, |builder, alias| builder.target(target(&alias)));
    builder.start().await.expect("the client starts")
}

fn target(alias: &str) -> TargetBuilder {
    TargetBuilder::new(alias).metrics(|| Ok::<_, Infallible>("m 1\n".to_owned()))
}

#[test]
fn strangers_that_begin_a_registration_and_wait_keep_no_newcomer_out() {
    let (fleet, scraper) = Fleet::with_scraper();
    let runtime = Runtime::new().expect("a runtime");
    let _old = runtime.block_on(client(&fleet, &scraper, ["old".to_owned()]));
    scraper.wait_scraped("old");

    let mut honest = Honest::clients(&fleet, &scraper);
    let crowd = Crowd::gather(&[scraper.peer()], CROWD);
    for name in ["new-1", "new-2", "new-3"] {
        let _new = runtime.block_on(client(&fleet, &scraper, [name.to_owned()]));
        let listed = || scraper.listed().is_some_and(|listed| listed.contains_key(name));
        eventually_true(&format!("{name} is listed"), WELCOME, listed);
        assert_eq!(scraper.scrape("old", SOON).status, 200);
    }
    let joined = honest.newcomer(&fleet, &scraper);
    assert_eq!(honest.report("700 strangers that wait", &scraper, joined, crowd), 0, "honest scrapes failed");
}

/// Before: 17 of 30 were registered after 20 s, and 6 links were cut within 45 s.
#[test]
fn a_fleet_comes_back_after_a_restart_among_strangers() {
    let (fleet, mut scraper) = Fleet::with_scraper();
    let runtime = Runtime::new().expect("a runtime");
    let members: Vec<_> = (0..30).map(|n| (KeyPair::generate(), format!("old-{n}"))).collect();
    let start = |scraper: &Scraper| -> Vec<Client> {
        let start = |(key, name): &(KeyPair, String)| {
            runtime.block_on(client_with(key.clone(), &fleet, scraper, [name.clone()]))
        };
        members.iter().map(start).collect()
    };
    let clients = start(&scraper);
    members.iter().for_each(|(_, name)| drop(scraper.wait_scraped(name)));

    let mut honest = Honest::clients(&fleet, &scraper);
    let crowd = Crowd::gather(&[scraper.peer()], CROWD);
    scraper.process.kill();
    drop(clients);
    crowd.wait_lost();
    scraper.restart();
    // The strangers are there first, as the fleet waits a moment before it dials again.
    crowd.wait_gathered();

    let clients = start(&scraper);
    let mut events: Vec<_> = clients.iter().map(Client::events).collect();
    let (mut registered, mut cut) = (vec![false; clients.len()], 0);
    let mut watch = |time: Duration| {
        let end = Instant::now() + time;
        while Instant::now() < end {
            for (registered, events) in registered.iter_mut().zip(&mut events) {
                for event in std::iter::from_fn(|| events.try_recv().ok()) {
                    *registered |= matches!(event.kind, EventKind::Registered { .. });
                    cut += usize::from(matches!(event.kind, EventKind::LinkDown { .. }));
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
        (registered.iter().filter(|registered| **registered).count(), cut)
    };
    let soon = watch(SOON);
    let later = watch(STRANGERS_CUT - SOON);
    assert_eq!((soon, later), ((clients.len(), 0), (clients.len(), 0)), "registered and cut, soon and later");
    members.iter().for_each(|(_, name)| drop(scraper.wait_scraped(name)));
    let joined = honest.newcomer(&fleet, &scraper);
    honest.report("700 strangers and a restart", &scraper, joined, crowd);
}

/// Strangers that have finished the handshake of their connections, from other addresses than the fleet's.
#[test]
fn strangers_that_hold_every_connection_keep_neither_the_restarted_fleet_nor_a_newcomer_out() {
    let (fleet, port) = (Fleet::new(), free_port());
    let hostile: Vec<_> = (1..=12).map(|last| format!("127.0.1.{last}")).collect();
    let listen = hostile.iter().map(|host| format!("--listen={host}:{port}"));
    let flags: Vec<_> = listen.chain([format!("--max-connections={LINKS}")]).collect();
    let mut scraper = fleet.scraper(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let runtime = Runtime::new().expect("a runtime");
    let members: Vec<_> = (0..10).map(|number| format!("member-{number}")).collect();
    let start = |name: &String| runtime.block_on(client(&fleet, &scraper, [name.clone()]));
    let _clients: Vec<_> = members.iter().map(start).collect();
    members.iter().for_each(|name| drop(scraper.wait_scraped(name)));

    let mut honest = Honest::clients(&fleet, &scraper);
    let hostile: Vec<_> = hostile.into_iter().map(|host| PeerAddr::at(scraper.key, host, port)).collect();
    let crowd = Crowd::gather(&hostile, LINKS);
    scraper.process.kill();
    crowd.wait_lost();
    scraper.restart();
    // The strangers are there first, as the fleet waits a moment before it dials again.
    crowd.wait_gathered();
    let scraped = || members.iter().all(|name| scraper.scrape(name, SOON).status == 200);
    eventually_true("the fleet is scraped again", BACK, scraped);
    welcome(&fleet, &scraper, &runtime);
    let joined = honest.newcomer(&fleet, &scraper);
    honest.report("strangers on every connection and a restart", &scraper, joined, crowd);
}

/// As a tenant does behind the same router.
#[test]
fn strangers_that_hold_every_connection_of_an_address_do_not_keep_its_newcomers_out() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[&format!("--max-connections-per-private-ip={LINKS}")]);
    let runtime = Runtime::new().expect("a runtime");
    let _old = runtime.block_on(client(&fleet, &scraper, ["old".to_owned()]));
    scraper.wait_scraped("old");
    let mut honest = Honest::clients(&fleet, &scraper);
    let crowd = Crowd::gather(&[scraper.peer()], LINKS + LINKS / 12);
    welcome(&fleet, &scraper, &runtime);
    let joined = honest.newcomer(&fleet, &scraper);
    assert!(scraper.count(&["narthex_limit_refusals_total", "max_connections_per_private_ip"]) > 0.0);
    let attack = "strangers on every connection of the address";
    assert_eq!(honest.report(attack, &scraper, joined, crowd), 0, "honest scrapes failed");
}

/// A peer that reads nothing would keep a connection that is being closed, and its place, for ever.
#[test]
fn a_stranger_that_reads_nothing_loses_its_place_all_the_same() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&["--max-connections-per-private-ip=10"]);
    let runtime = Runtime::new().expect("a runtime");
    let (is_stuck, stuck) = oneshot::channel();
    let peer = scraper.peer();
    let deaf = runtime.spawn(async move {
        stranger::read_nothing(&peer, &KeyPair::generate(), || is_stuck.send(()).expect("the test waits")).await
    });
    runtime.block_on(stuck).expect("the stranger links");
    let _crowd = Crowd::gather(&[scraper.peer()], 10);
    let ended = runtime.block_on(async { timeout(SOON, deaf).await });
    assert!(ended.expect("the connection ends in time").expect("sound").is_err(), "the scraper closed the connection");
}

/// A client that nobody has seen before registers in time.
#[track_caller]
fn welcome(fleet: &Fleet, scraper: &Scraper, runtime: &Runtime) {
    let _new = runtime.block_on(client(fleet, scraper, ["new".to_owned()]));
    let listed = || scraper.listed().is_some_and(|listed| listed.contains_key("new"));
    eventually_true("a newcomer is listed", WELCOME, listed);
}

#[test]
fn peers_that_claim_what_others_hold_write_few_lines_to_the_log() {
    let (fleet, scraper) = Fleet::with_scraper();
    let runtime = Runtime::new().expect("a runtime");
    let names: Vec<_> = (0..MANY).map(|n| format!("held-{n}")).collect();
    let _holder = runtime.block_on(client(&fleet, &scraper, names.clone()));
    scraper.wait_listed(&names[MANY - 1]);

    let mut honest = Honest::clients(&fleet, &scraper);
    let others: Vec<_> = (0..8).map(|_| runtime.block_on(client(&fleet, &scraper, names.clone()))).collect();
    let refused = ["narthex_takeovers_total", "refused"];
    for round in 1..=8_u8 {
        // A change of the targets is registered at once.
        for client in &others {
            let claim = |name: &String| target(name).label("round", round.to_string());
            client.set_targets(names.iter().map(claim).collect()).expect("fit");
        }
        let before = scraper.count(&refused);
        scraper.wait_counted(&refused, before);
    }
    let joined = honest.newcomer(&fleet, &scraper);
    assert_eq!(honest.report("8 keys that claim 250 held aliases", &scraper, joined, others), 0, "scrapes failed");
    let claims = f64::from(8 * u16::try_from(MANY).expect("few"));
    assert!(scraper.count(&refused) >= 2.0 * claims, "every refusal is counted");
    let log = scraper.process.log();
    let lines = log.lines().filter(|line| line.contains("alias refused")).count();
    assert!((8..=8 * 30).contains(&lines), "{lines} lines");
    assert!(log.len() < 200_000, "{} bytes", log.len());
    assert!(scraper.process.log_line(&["alias refused", "and 247 more"]).is_some());
}
