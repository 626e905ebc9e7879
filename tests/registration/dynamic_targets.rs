//! The targets of a running client can be replaced: the scraper follows at once, and pulls that may go on do.

use std::{convert::Infallible, future, sync::Arc, thread};

use narthex::{
    TargetBuilder,
    client::{BuildError, EventKind, PullFailure, from_async},
};
use tokio::sync::Semaphore;

use crate::support::{
    SOON, eventually_true,
    fleet::{Fleet, scrape_path},
    http,
    linked::Linked,
};

/// Longer than any test: what happens sooner was not the renewal.
const LEASE: [&str; 2] = ["--lease", "1h"];

#[test]
fn a_replaced_set_of_targets_reaches_the_list_at_once() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&LEASE);
    let linked = Linked::start(&fleet, &scraper, |builder| {
        builder.target(text("web-1").label("region", "eu")).target(text("web-2"))
    });
    assert_eq!(scraper.wait_listed("web-1").label("region"), "eu");
    scraper.wait_listed("web-2");

    // Another label, no source: it keeps the one it has. One target goes, one comes.
    let set = vec![TargetBuilder::new("web-1").label("region", "us"), text("web-3")];
    linked.client.set_targets(set).expect("fit");
    assert_eq!(scraper.wait_scraped("web-3"), "from{alias=\"web-3\"} 1\n");
    scraper.wait_unlisted("web-2");
    let relabelled = || scraper.wait_listed("web-1").label("region") == "us";
    eventually_true("web-1 has its new label", SOON, relabelled);
    assert_eq!(scraper.wait_scraped("web-1"), "from{alias=\"web-1\"} 1\n");

    let unfit = linked.client.set_targets(vec![text("web-4"), TargetBuilder::new("web-5")]);
    assert!(matches!(unfit, Err(BuildError::NoMetrics(_))), "{unfit:?}");
    linked.client.set_targets(vec![]).expect("none is a set, too");
    eventually_true("nothing is listed", SOON, || scraper.listed().is_some_and(|listed| listed.is_empty()));
    linked.stop();
}

#[test]
fn a_client_without_targets_registers_those_that_come_later() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&LEASE);
    let linked = Linked::start(&fleet, &scraper, |builder| builder.targets_later());
    linked.client.set_targets(vec![text("late")]).expect("fit");
    assert_eq!(scraper.wait_scraped("late"), "from{alias=\"late\"} 1\n");
    linked.stop();
    scraper.wait_unlisted("late");
}

#[test]
fn pulls_of_a_removed_target_end_and_those_of_others_go_on() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&LEASE);
    let gate = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&gate);
    let gated = from_async(move |_| {
        let gate = Arc::clone(&waits);
        async move {
            let _permit = gate.acquire().await;
            Ok::<_, Infallible>("gated 1\n".to_owned())
        }
    });
    let hanging = from_async(|_| future::pending::<Result<String, Infallible>>());
    let mut linked = Linked::start(&fleet, &scraper, |builder| {
        let stays = TargetBuilder::new("stays").metrics(gated);
        builder.target(stays).target(TargetBuilder::new("goes").metrics(hanging))
    });
    scraper.wait_listed("stays");
    let ask = |alias: &'static str| {
        let address = scraper.http;
        thread::spawn(move || http::get(address, &scrape_path(alias), &[]).expect("an answer"))
    };
    let (stays, goes) = (ask("stays"), ask("goes"));
    for _ in 0..2 {
        linked.wait_event(|kind| matches!(kind, EventKind::PullStarted { .. }).then_some(()));
    }

    linked.client.set_targets(vec![TargetBuilder::new("stays").label("now", "alone")]).expect("fit");
    let (alias, error) = linked.wait_event(|kind| match kind {
        EventKind::PullFailed { alias, error, .. } => Some((alias.clone(), error.clone())),
        _ => None,
    });
    assert!(alias.as_str() == "goes" && matches!(*error, PullFailure::Removed), "{alias}: {error}");
    assert_eq!(goes.join().expect("no panic").status, 502);

    gate.add_permits(1);
    assert_eq!(stays.join().expect("no panic").text(), "gated 1\n");
    linked.stop();
}

fn text(alias: &str) -> TargetBuilder {
    let line = format!("from{{alias=\"{alias}\"}} 1\n");
    TargetBuilder::new(alias).metrics(move || Ok::<_, Infallible>(line.clone()))
}
