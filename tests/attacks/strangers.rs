//! Peers without the secret cannot keep the others from registering, and peers with it cannot fill the log.

use std::{convert::Infallible, time::Duration};

use narthex::{
    Client, KeyPair, TargetBuilder,
    client::{Event, EventKind},
};
use tokio::{runtime::Runtime, sync::broadcast};

use crate::support::{SOON, crowd::Crowd, eventually_true, fleet::Fleet, fleet::Scraper, honest::Honest};

/// More than the places that there are for register exchanges.
const CROWD: usize = 700;
/// How soon an honest newcomer registers, whoever else wants to.
const WELCOME: Duration = Duration::from_secs(5);
/// Aliases that one peer may hold, but for some.
const MANY: usize = 250;

/// A client in this process, with one target for each alias.
async fn client(fleet: &Fleet, scraper: &Scraper, aliases: impl IntoIterator<Item = String>) -> Client {
    let builder = Client::builder(scraper.peer(), fleet.secret.clone()).key(KeyPair::generate());
    let builder = aliases.into_iter().fold(builder, |builder, alias| builder.target(target(&alias)));
    builder.start().await.expect("the client starts")
}

fn target(alias: &str) -> TargetBuilder {
    TargetBuilder::new(alias).metrics(|| Ok::<_, Infallible>("m 1\n".to_owned()))
}

/// Counts the events so far that are meant.
fn count(events: &mut broadcast::Receiver<Event>, meant: impl Fn(&EventKind) -> bool) -> usize {
    std::iter::from_fn(|| events.try_recv().ok()).filter(|event| meant(&event.kind)).count()
}

#[test]
fn strangers_that_begin_a_registration_and_wait_keep_no_newcomer_out() {
    let (fleet, scraper) = Fleet::with_scraper();
    let runtime = Runtime::new().expect("a runtime");
    let _old = runtime.block_on(client(&fleet, &scraper, ["old".to_owned()]));
    scraper.wait_scraped("old");

    let mut honest = Honest::clients(&fleet, &scraper);
    let crowd = Crowd::gather(&scraper.peer(), CROWD);
    for name in ["new-1", "new-2", "new-3"] {
        let _new = runtime.block_on(client(&fleet, &scraper, [name.to_owned()]));
        let listed = || scraper.listed().is_some_and(|listed| listed.contains_key(name));
        eventually_true(&format!("{name} is listed"), WELCOME, listed);
        assert_eq!(scraper.scrape("old", SOON).status, 200);
    }
    let joined = honest.newcomer(&fleet, &scraper);
    assert_eq!(honest.report("700 strangers that wait", &scraper, joined, crowd), 0, "honest scrapes failed");
}

#[test]
fn a_fleet_comes_back_after_a_restart_among_strangers() {
    let (fleet, mut scraper) = Fleet::with_scraper();
    let runtime = Runtime::new().expect("a runtime");
    let names: Vec<_> = (0..30).map(|n| format!("old-{n}")).collect();
    let clients: Vec<_> = names.iter().map(|name| runtime.block_on(client(&fleet, &scraper, [name.clone()]))).collect();
    names.iter().for_each(|name| drop(scraper.wait_scraped(name)));

    let mut honest = Honest::clients(&fleet, &scraper);
    let crowd = Crowd::gather(&scraper.peer(), CROWD);
    let mut events: Vec<_> = clients.iter().map(Client::events).collect();
    scraper.process.kill();
    scraper.restart();
    let mut renewed = vec![0; clients.len()];
    eventually_true("all have renewed", SOON, || {
        for (renewed, events) in renewed.iter_mut().zip(&mut events) {
            *renewed += count(events, |event| matches!(event, EventKind::Registered { .. }));
        }
        renewed.iter().all(|renewed| *renewed > 0)
    });
    names.iter().for_each(|name| drop(scraper.wait_scraped(name)));
    let joined = honest.newcomer(&fleet, &scraper);
    honest.report("700 strangers and a restart", &scraper, joined, crowd);
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
