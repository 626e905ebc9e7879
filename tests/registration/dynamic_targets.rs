//! The targets of a running client can be replaced: the scraper follows at once, and pulls that may go on do.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::future::{self, BoxFuture, FutureExt};
use narthex::{
    Client, TargetBuilder,
    client::{BuildError, EventKind, Exposition, PullFailure, PullRequest, Source, SourceError},
};
use tokio::{
    sync::{Semaphore, broadcast},
    task,
    time::timeout,
};

use crate::support::{SOON, eventually_true, fleet::Fleet};

/// Longer than any test: what happens sooner was not the renewal.
const LEASE: [&str; 2] = ["--lease", "1h"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_set_of_targets_reaches_the_list_at_once() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&LEASE);
    let client = Client::builder(scraper.peer(), fleet.secret.clone())
        .target(text("web-1").label("region", "eu"))
        .target(text("web-2"))
        .start()
        .await
        .expect("the client starts");
    assert_eq!(scraper.wait_listed("web-1").label("region"), "eu");
    scraper.wait_listed("web-2");

    // Another label, no source: it keeps the one it has. One target goes, one comes.
    client.set_targets(vec![TargetBuilder::new("web-1").label("region", "us"), text("web-3")]).expect("fit");
    assert_eq!(scraper.wait_scraped("web-3"), "from{alias=\"web-3\"} 1\n");
    scraper.wait_unlisted("web-2");
    let relabelled = || scraper.wait_listed("web-1").label("region") == "us";
    eventually_true("web-1 has its new label", SOON, relabelled);
    assert_eq!(scraper.wait_scraped("web-1"), "from{alias=\"web-1\"} 1\n");

    let unfit = client.set_targets(vec![text("web-4"), TargetBuilder::new("web-5")]);
    assert!(matches!(unfit, Err(BuildError::NoMetrics(_))), "{unfit:?}");
    client.set_targets(vec![]).expect("none is a set, too");
    eventually_true("nothing is listed", SOON, || scraper.listed().is_some_and(|listed| listed.is_empty()));
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_targets_registers_those_that_come_later() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&LEASE);
    let builder = Client::builder(scraper.peer(), fleet.secret.clone());
    let client = builder.targets_later().start().await.expect("the client starts");
    client.set_targets(vec![text("late")]).expect("fit");
    assert_eq!(scraper.wait_scraped("late"), "from{alias=\"late\"} 1\n");
    client.shutdown().await;
    scraper.wait_unlisted("late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_of_a_removed_target_end_and_those_of_others_go_on() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&LEASE);
    let gate = Arc::new(Semaphore::new(0));
    let gated = || TargetBuilder::new("stays").metrics(Gated(Arc::clone(&gate)).source());
    let client = Client::builder(scraper.peer(), fleet.secret.clone())
        .target(gated())
        .target(TargetBuilder::new("goes").metrics(Hanging.source()))
        .start()
        .await
        .expect("the client starts");
    let mut events = client.events();
    scraper.wait_listed("stays");
    let ask = |alias: &'static str| {
        let (address, path) = (scraper.http, crate::support::fleet::scrape_path(alias));
        task::spawn_blocking(move || crate::support::http::get(address, &path, &[]).expect("an answer"))
    };
    let (stays, goes) = (ask("stays"), ask("goes"));
    for _ in 0..2 {
        next(&mut events, |kind| matches!(kind, EventKind::PullStarted { .. })).await;
    }

    client.set_targets(vec![TargetBuilder::new("stays").label("now", "alone")]).expect("fit");
    let failed = next(&mut events, |kind| matches!(kind, EventKind::PullFailed { .. })).await;
    let EventKind::PullFailed { alias, error, .. } = failed else { unreachable!("filtered") };
    assert!(alias.as_str() == "goes" && matches!(*error, PullFailure::Removed), "{alias}: {error}");
    assert_eq!(goes.await.expect("no panic").status, 502);

    gate.add_permits(1);
    assert_eq!(stays.await.expect("no panic").text(), "gated 1\n");
    client.shutdown().await;
}

fn text(alias: &str) -> TargetBuilder {
    let line = format!("from{{alias=\"{alias}\"}} 1\n");
    TargetBuilder::new(alias).metrics(move || Ok::<_, Infallible>(line.clone()))
}

async fn next(
    events: &mut broadcast::Receiver<narthex::client::Event>,
    fits: impl Fn(&EventKind) -> bool,
) -> EventKind {
    let found = async {
        loop {
            let kind = events.recv().await.expect("events go on").kind;
            if fits(&kind) {
                return kind;
            }
        }
    };
    timeout(SOON + Duration::from_secs(1), found).await.expect("it happens")
}

/// Never answers.
struct Hanging;

impl Hanging {
    fn source(self) -> Arc<dyn Source> {
        Arc::new(self)
    }
}

impl Source for Hanging {
    fn pull(&self, _: PullRequest) -> BoxFuture<'_, Result<Exposition, SourceError>> {
        future::pending().boxed()
    }
}

/// Answers when it is let.
struct Gated(Arc<Semaphore>);

impl Gated {
    fn source(self) -> Arc<dyn Source> {
        Arc::new(self)
    }
}

impl Source for Gated {
    fn pull(&self, _: PullRequest) -> BoxFuture<'_, Result<Exposition, SourceError>> {
        async {
            let _permit = self.0.acquire().await;
            Ok(Exposition::new("text/plain", "gated 1\n"))
        }
        .boxed()
    }
}
