//! A scraper inside another program, with a client that registers with it.
//!
//! ```text
//! cargo run --example embedded_scraper
//! ```

#![allow(clippy::print_stdout)]

use std::{convert::Infallible, error::Error};

use narthex::{Client, KeyPair, PeerAddr, Scraper, ScraperConfig, SharedSecret, client::EventKind, identity::HostPort};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let data = std::env::temp_dir().join(format!("narthex-embedded-{}", std::process::id()));
    let secret = SharedSecret::generate();
    let local = |port| HostPort::new("127.0.0.1", port);
    let mut config = ScraperConfig::new(KeyPair::generate(), vec![secret.clone()], &data);
    config.http = local(0).into();
    config.listen = vec![local(0)];
    let scraper = Scraper::start(config).await?;

    let at = scraper.listening().first().ok_or("the scraper listens nowhere")?;
    let address = PeerAddr::at(scraper.public_key(), at.ip().to_string(), at.port());
    let client = Client::builder(address, secret)
        .alias("here")
        .metrics(|| Ok::<_, Infallible>("answer 42\n".to_owned()))
        .start()
        .await?;
    let mut events = client.events();
    while !matches!(events.recv().await?.kind, EventKind::Registered { .. }) {}

    let at = scraper.http_addr().ok_or("HTTP has no address")?;
    println!("curl http://{at}/sd");
    println!("curl http://{at}/scrape/here/metrics");
    println!("Ctrl-C ends it");
    tokio::signal::ctrl_c().await?;
    client.shutdown().await;
    scraper.shutdown().await?;
    std::fs::remove_dir_all(data)?;
    Ok(())
}
