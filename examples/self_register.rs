//! A web service that Prometheus scrapes although nothing can reach it, and that has no listener for metrics.
//!
//! It links only the client (`narthex = { default-features = false, features = ["client"] }`):
//!
//! ```text
//! cargo run --example self_register -- <scraper key>[@host:port] keys/fleet.secret [<bootstrap peer>]
//! ```

#![allow(clippy::print_stdout)]

use std::{error::Error, path::Path, sync::Arc};

use axum::{Router, extract::State, routing::get};
use narthex::{Client, PeerAddr, identity::load_secret};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::{net::TcpListener, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: self_register SCRAPER SECRET_FILE [BOOTSTRAP]";
    let scraper: PeerAddr = args.next().ok_or(usage)?.parse()?;
    let secret = load_secret(Path::new(&args.next().ok_or(usage)?))?;
    let bootstrap: Option<PeerAddr> = args.next().map(|node| node.parse()).transpose()?;

    let hits = Counter::default();
    let mut registry = Registry::default();
    registry.register("hits", "Requests answered", hits.clone());

    let client = Client::builder(scraper, secret)
        .bootstrap(bootstrap)
        .alias("hello-1")
        .service("web")
        .label("region", "eu")
        .metrics(Arc::new(registry))
        .start()
        .await?;
    let mut events = client.events();
    tokio::spawn(async move {
        while let Ok(event) = events.recv().await {
            println!("{:?}", event.kind)
        }
    });

    let router = Router::new().route("/", get(hello)).with_state(hits);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/ counts its visitors; it is listed as hello-1", listener.local_addr()?);
    let stop = async {
        let _ = signal::ctrl_c().await;
    };
    axum::serve(listener, router).with_graceful_shutdown(stop).await?;
    client.shutdown().await; // releases the alias: it leaves the list, without an alert
    Ok(())
}

async fn hello(State(hits): State<Counter>) -> &'static str {
    hits.inc();
    "hello\n"
}
