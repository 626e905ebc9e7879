//! A web service whose router has `/metrics` already: the router as a source, with no listener for Prometheus.
//!
//! ```text
//! cargo run --example source_axum --features tower -- <scraper key>@<host>:<port> keys/fleet.secret
//! ```

use std::{error::Error, path::Path};

use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use narthex::{
    Client, PeerAddr,
    client::{Exposition, Tower},
    identity::load_secret,
};
use tokio::{net::TcpListener, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(scraper), Some(secret)) = (args.next(), args.next()) else { return Err("SCRAPER SECRET_FILE".into()) };
    let secret = load_secret(Path::new(&secret))?;
    let client = Client::builder(scraper.parse::<PeerAddr>()?, secret).alias("web-1").metrics(Tower::new(router()));
    let client = client.start().await?;

    let stop = async {
        let _ = signal::ctrl_c().await;
    };
    axum::serve(TcpListener::bind("127.0.0.1:0").await?, router()).with_graceful_shutdown(stop).await?;
    client.shutdown().await;
    Ok(())
}

/// Of its routes the scraper reaches `/metrics` and no other.
pub(crate) fn router() -> Router {
    let metrics = || async { ([(CONTENT_TYPE, Exposition::TEXT)], "# TYPE visitors gauge\nvisitors 3\n") };
    Router::new().route("/", get(|| async { "hello\n" })).route("/metrics", get(metrics))
}
