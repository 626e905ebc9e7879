//! The clients, in a process of their own: library clients, each with a key and several aliases.

use std::fmt;

use futures::{StreamExt, TryStreamExt, stream};
use narthex::{Client, KeyPair, PeerAddr, SharedSecret, TargetBuilder, client::EventKind};

use crate::BoxError;

/// Clients that register at the same time: not a crowd, whose links would be made twice.
const AT_ONCE: usize = 8;

/// What the clients of a process are.
#[derive(clap::Args)]
pub(crate) struct Clients {
    secret: SharedSecret,
    first: usize,
    count: usize,
    aliases: usize,
    body: usize,
    scrapers: Vec<PeerAddr>,
}

impl Clients {
    /// Prints a line once each client is registered with the scraper that it was given, and runs until killed.
    pub(crate) async fn run(&self) -> Result<(), BoxError> {
        let body: String = LINE.chars().cycle().take(self.body).collect();
        let starting = stream::iter(self.first..self.first + self.count).map(|number| self.start(number, &body));
        let _clients: Vec<Client> = starting.buffer_unordered(AT_ONCE).try_collect().await?;
        println!("registered");
        std::future::pending().await
    }

    async fn start(&self, number: usize, body: &str) -> Result<Client, BoxError> {
        let given = &self.scrapers[number % self.scrapers.len()];
        let targets = (0..self.aliases).map(|one| {
            let body = body.to_owned();
            let target = TargetBuilder::new(alias(number, one)).service("bench").label("region", "eu-central-1");
            target.metrics(move || Ok::<_, fmt::Error>(body.clone()))
        });
        let builder = Client::builder(given.clone(), self.secret.clone()).key(KeyPair::generate());
        let client = targets.fold(builder.hostname(HOST), |builder, target| builder.target(target)).start().await?;
        let mut events = client.events();
        while !matches!(events.recv().await?.kind, EventKind::Registered { .. }) {}
        Ok(client)
    }
}

pub(crate) fn alias(client: usize, number: usize) -> String {
    format!("client-{client:06}-{number:03}")
}

const HOST: &str = "host-1.example.com";
const LINE: &str = "bench_metric_total{label=\"value\",other=\"some other value\"} 123456789\n";
