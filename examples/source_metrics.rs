//! A service that counts with the `metrics` facade: its Prometheus recorder as a source.
//!
//! ```text
//! cargo run --example source_metrics --features metrics -- <scraper key>@<host>:<port> keys/fleet.secret
//! ```

use std::{error::Error, path::Path};

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use narthex::{Client, PeerAddr, identity::load_secret};
use tokio::signal;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(scraper), Some(secret)) = (args.next(), args.next()) else { return Err("SCRAPER SECRET_FILE".into()) };
    let secret = load_secret(Path::new(&secret))?;
    let client = Client::builder(scraper.parse::<PeerAddr>()?, secret).alias("jobs-1").metrics(recorder()?);
    let client = client.start().await?;
    metrics::counter!("jobs_total", "kind" => "demo").increment(1);
    metrics::histogram!("job_seconds").record(0.25);
    signal::ctrl_c().await?;
    client.shutdown().await;
    Ok(())
}

/// Records whatever the program counts from now on. The source also does the recorder's upkeep.
pub(crate) fn recorder() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new().install_recorder()
}
