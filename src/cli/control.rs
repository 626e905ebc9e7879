//! What a command asks the scraper whose data directory it was given, over the control socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, time};
use zeroize::Zeroizing;

use super::data_dir;
use crate::{scraper::CONTROL_SOCKET, socket_file::SocketPath};

/// Longest wait for the whole answer: 100 000 aliases take a second.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The scraper of this host and user, that a command asks.
#[derive(Debug, clap::Args)]
pub(super) struct OwnScraper {
    /// The data directory of the running scraper [default: $STATE_DIRECTORY, else ~/.local/state/narthex/scraper]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl OwnScraper {
    /// What the scraper answers, from JSON.
    pub(super) async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, json: Bytes) -> anyhow::Result<T> {
        let dir = data_dir::path(self.data_dir.as_deref(), "scraper")?;
        let Some(answer) = send(&dir, method, path, json).await? else {
            bail!("no scraper runs with the data directory {}: start it, or give its --data-dir", dir.display());
        };
        let answer = Zeroizing::new(answer.to_vec()); // may hold a ticket
        serde_json::from_slice(&answer).context("the scraper's answer is none; is it of another version?")
    }
}

/// The answer of the scraper that runs in the data directory; `None` if none does.
pub(super) async fn ask(data_dir: &Path, path: &str) -> anyhow::Result<Option<Bytes>> {
    send(data_dir, Method::GET, path, Bytes::new()).await
}

/// As [`ask`], by another method and with some JSON.
pub(super) async fn send(data_dir: &Path, method: Method, path: &str, json: Bytes) -> anyhow::Result<Option<Bytes>> {
    let file = data_dir.join(CONTROL_SOCKET);
    let connected = match SocketPath::of(&file) {
        Ok(path) => UnixStream::connect(&path).await,
        Err(error) => Err(error),
    };
    let stream = match connected {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        stream => stream.with_context(|| format!("cannot reach the scraper by {}", file.display()))?,
    };
    let answer = time::timeout(TIMEOUT, answer(stream, method, path, json)).await;
    let answer = answer.with_context(|| format!("the scraper at {} did not answer", file.display()))?;
    answer.with_context(|| format!("the scraper at {}", file.display())).map(Some)
}

async fn answer(stream: UnixStream, method: Method, path: &str, json: Bytes) -> anyhow::Result<Bytes> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The task ends with the answer, which reports its errors.
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header(header::HOST, "narthex");
    let request = request.header(header::CONTENT_TYPE, "application/json").body(Full::new(json))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await.context("its answer was cut")?.to_bytes();
    if !status.is_success() {
        bail!("{}", String::from_utf8_lossy(&body).trim_end());
    }
    Ok(body)
}
