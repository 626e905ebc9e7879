//! What would stand in a scraper's way, for whoever asks before one is started: changes nothing.

use std::time::Duration;

use async_nats::{ConnectOptions, connection::State};
use tokio::{net::TcpStream, time};

use super::{bucket::Bucket, session::WatchError};
use crate::{
    nats::{Connection, NatsConfig},
    telemetry::escaped,
};

/// How often it is looked whether the connection is there.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is said of a server that says nothing.
const SILENT: &str = "it does not answer";

/// What was found of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbedBucket {
    /// A scraper would make it.
    Missing,
    /// One with so many keys.
    Keys(u64),
}

/// Connects as a scraper does, and looks for the bucket.
///
/// # Errors
/// What stands in the way, in one line.
pub(crate) async fn probe_bucket(config: &NatsConfig, patience: Duration) -> Result<ProbedBucket, String> {
    // The client of NATS does not say what keeps it from connecting.
    let connected = config.url.addresses().map(|address| Box::pin(TcpStream::connect(address)));
    let connected = time::timeout(patience, futures::future::select_ok(connected)).await;
    connected.map_err(|_| SILENT.to_owned())?.map_err(|error| error.to_string())?;

    let connected = config.connect_with(ConnectOptions::new(), |_| {}).await.map_err(|error| error.to_string())?;
    let Connection { client, mut fault, .. } = connected;
    let is_connected = || client.connection_state() == State::Connected;
    let ended = async {
        let mut faults = 0;
        while !is_connected() && faults < config.url.addresses().len() {
            faults += usize::from(matches!(time::timeout(LOOK_EVERY, fault.changed()).await, Ok(Ok(()))));
        }
    };
    let _ = time::timeout(patience, ended).await;
    if !is_connected() {
        let fault = escaped(&fault.borrow()).into_owned();
        return Err(if fault.is_empty() { SILENT.to_owned() } else { fault });
    }
    // Another server may have failed before.
    fault.mark_unchanged();
    let bucket = Bucket::of(client.clone(), &config.url)?;
    let looked = bucket.look().await.map_err(|error| match fault.has_changed() {
        // What may not be asked is not answered.
        Ok(true) => escaped(&fault.borrow()).into_owned(),
        _ => error,
    });
    match looked? {
        None => Ok(ProbedBucket::Missing),
        Some(info) if info.config.max_age.is_zero() => Ok(ProbedBucket::Keys(info.state.messages)),
        Some(info) => Err(WatchError::MaxAge(info.config.max_age).to_string()),
    }
}
