//! Clients whose registrations are acknowledged.

use std::convert::Infallible;

use narthex::{
    Client,
    client::{EventKind, TargetBuilder},
};
use tokio::time::timeout;

use crate::support::{
    SOON,
    fleet::{Fleet, Scraper},
};

/// A client that begins to register these aliases.
pub(crate) async fn start(fleet: &Fleet, scraper: &Scraper, aliases: &[String]) -> Client {
    let metrics = || Ok::<_, Infallible>("m 1\n".to_owned());
    let builder = Client::builder(scraper.peer(), fleet.secret.clone());
    let builder =
        aliases.iter().fold(builder, |builder, alias| builder.target(TargetBuilder::new(alias).metrics(metrics)));
    builder.start().await.expect("the client starts")
}

/// A client whose aliases the scraper has acknowledged, every one.
pub(crate) async fn registered(fleet: &Fleet, scraper: &Scraper, aliases: &[String]) -> Client {
    let client = start(fleet, scraper, aliases).await;
    let mut events = client.events();
    let acknowledged = async {
        let mut left = aliases.len();
        while left > 0 {
            match events.recv().await.expect("events go on").kind {
                EventKind::Registered { .. } => left -= 1,
                EventKind::RegisterFailed { error, .. } => panic!("not registered: {error}"),
                _ => {}
            }
        }
    };
    timeout(SOON, acknowledged).await.expect("the scraper acknowledges");
    client
}
