//! Scrapes as Prometheus does: kept-alive HTTP/1.1 connections, one request at a time on each.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use crate::BoxError;

/// One measurement.
pub(crate) struct Measured {
    /// How long each scrape took, in microseconds, sorted.
    pub(crate) took: Vec<u32>,
    /// Bytes of all their bodies, as they came.
    pub(crate) bytes: u64,
    /// How long all of them took.
    pub(crate) length: Duration,
}

impl Measured {
    pub(crate) fn per_second(&self) -> f64 {
        self.took.len() as f64 / self.length.as_secs_f64()
    }

    pub(crate) fn bytes_each(&self) -> f64 {
        self.bytes as f64 / self.took.len() as f64
    }

    pub(crate) fn percentile_ms(&self, part: f64) -> f64 {
        let at = ((self.took.len() as f64 * part) as usize).min(self.took.len() - 1);
        f64::from(self.took[at]) / 1000.0
    }
}

/// Scrapes `at_once` at a time for `length`. `target` gives address and path of the n-th scrape. A status other than 200
/// or another length of the body fails the run.
pub(crate) async fn run(
    target: &(dyn Fn(usize) -> (String, String) + Sync),
    at_once: usize,
    length: Duration,
    expected: Option<usize>,
) -> Result<Measured, BoxError> {
    // Whatever the first requests set up is not measured.
    let targets: Vec<(String, String)> = (0..1000).map(target).collect();
    let (targets, next) = (Arc::new(targets), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let (warm, end) = (began + length / 5, began + length / 5 + length);
    let mut workers = JoinSet::new();
    for _ in 0..at_once {
        let (targets, next) = (Arc::clone(&targets), Arc::clone(&next));
        workers.spawn(async move {
            let mut connections: HashMap<String, SendRequest<Empty<Bytes>>> = HashMap::new();
            let (mut took, mut bytes) = (Vec::new(), 0);
            while Instant::now() < end {
                let (address, path) = &targets[next.fetch_add(1, Ordering::Relaxed) % targets.len()];
                let sender = match connections.get_mut(address) {
                    Some(sender) => sender,
                    None => connections.entry(address.clone()).or_insert(connect(address).await?),
                };
                let start = Instant::now();
                let len = get(sender, address, path).await?;
                if expected.is_some_and(|expected| expected != len) {
                    return Err(format!("{path}: {len} bytes came").into());
                }
                if start >= warm {
                    took.push(u32::try_from(start.elapsed().as_micros())?);
                    bytes += len as u64;
                }
            }
            Ok::<_, BoxError>((took, bytes))
        });
    }
    let (mut took, mut bytes) = (Vec::new(), 0);
    while let Some(worker) = workers.join_next().await {
        let (its_took, its_bytes) = worker??;
        took.extend(its_took);
        bytes += its_bytes;
    }
    if took.is_empty() {
        return Err("no scrape ended in time: measure for longer".into());
    }
    took.sort_unstable();
    Ok(Measured { took, bytes, length: Instant::now() - warm })
}

/// Bytes of one answer.
pub(crate) async fn length(address: &str, path: &str) -> Result<usize, BoxError> {
    get(&mut connect(address).await?, address, path).await
}

/// The body of an answer, which is text.
pub(crate) async fn text(address: &str, path: &str) -> Result<String, BoxError> {
    let request = Request::get(path).header("host", address).body(Empty::<Bytes>::new())?;
    let response = connect(address).await?.send_request(request).await?;
    if response.status() != 200 {
        return Err(format!("{path}: {}", response.status()).into());
    }
    Ok(String::from_utf8(response.collect().await?.to_bytes().into())?)
}

/// Releases an alias.
pub(crate) async fn release(address: &str, alias: &str) -> Result<(), BoxError> {
    let request = Request::delete(format!("/api/v1/aliases/{alias}")).header("host", address).body(Empty::new())?;
    connect(address).await?.send_request(request).await?;
    Ok(())
}

async fn connect(address: &str) -> Result<SendRequest<Empty<Bytes>>, BoxError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn get(sender: &mut SendRequest<Empty<Bytes>>, address: &str, path: &str) -> Result<usize, BoxError> {
    let request = Request::get(path)
        .header("host", address)
        .header("accept", "text/plain;version=0.0.4;q=1,*/*;q=0.1")
        .header("accept-encoding", "gzip")
        .header("x-prometheus-scrape-timeout-seconds", "10")
        .body(Empty::new())?;
    sender.ready().await?;
    let mut response = sender.send_request(request).await?;
    if response.status() != 200 {
        let body = response.collect().await?.to_bytes();
        return Err(format!("{path}: {}", String::from_utf8_lossy(&body)).into());
    }
    let mut len = 0;
    while let Some(frame) = response.frame().await {
        len += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(len)
}
