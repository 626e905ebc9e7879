//! Metrics that are fetched when they are asked for: an async closure as a source.
//!
//! ```text
//! cargo run --example source_async -- <scraper key>@<host>:<port> keys/fleet.secret
//! ```

use std::{error::Error, path::Path, sync::Arc, time::Duration};

use narthex::{
    Client, PeerAddr,
    client::{Source, from_async},
    identity::load_secret,
};
use tokio::{fs, signal, time::timeout};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(scraper), Some(secret)) = (args.next(), args.next()) else { return Err("SCRAPER SECRET_FILE".into()) };
    let secret = load_secret(Path::new(&secret))?;
    let client = Client::builder(scraper.parse::<PeerAddr>()?, secret).alias("load-1").metrics(load()).start().await?;
    signal::ctrl_c().await?;
    client.shutdown().await;
    Ok(())
}

/// The machine's load, read at each pull. When the scrape's deadline passes, the closure's future is dropped.
pub(crate) fn load() -> Arc<dyn Source> {
    from_async(|_request| async {
        let loadavg = timeout(Duration::from_secs(1), fs::read_to_string("/proc/loadavg")).await??;
        let load1 = loadavg.split(' ').next().unwrap_or("NaN");
        Ok::<_, Box<dyn Error + Send + Sync>>(format!("# TYPE load1 gauge\nload1 {load1}\n"))
    })
}
