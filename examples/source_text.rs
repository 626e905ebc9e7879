//! Metrics that a library writes into a buffer, in a format that it names: a text callback as a source.
//!
//! OpenTelemetry's text exporters work like this. (`opentelemetry-prometheus` gives a `prometheus::Registry` instead,
//! which is a source by itself: feature `prometheus`.)
//!
//! ```text
//! cargo run --example source_text -- <scraper key>@<host>:<port> keys/fleet.secret
//! ```

use std::{error::Error, io::Write, path::Path, time::Instant};

use narthex::{
    Client, PeerAddr,
    client::{Exposition, Text},
    identity::load_secret,
};
use tokio::signal;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(scraper), Some(secret)) = (args.next(), args.next()) else { return Err("SCRAPER SECRET_FILE".into()) };
    let secret = load_secret(Path::new(&secret))?;
    let client = Client::builder(scraper.parse::<PeerAddr>()?, secret).alias("text-1").metrics(orders());
    let client = client.start().await?;
    signal::ctrl_c().await?;
    client.shutdown().await;
    Ok(())
}

/// OpenMetrics, with an exemplar, which the older text format has not. The callback may block.
pub(crate) fn orders() -> Text {
    let began = Instant::now();
    Text::writing(Exposition::OPEN_METRICS, move |out| {
        let orders = began.elapsed().as_secs();
        writeln!(out, "# HELP orders Orders taken.\n# TYPE orders counter")?;
        writeln!(out, "orders_total {orders} # {{trace_id=\"4bf92f3577b34da6\"}} 1")?;
        writeln!(out, "# EOF")?;
        Ok(())
    })
}
