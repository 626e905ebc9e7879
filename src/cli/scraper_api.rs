//! The HTTP API of a running scraper, as `targets`, `scrape`, `alias`, `file-sd` and the doctor use it.

use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task, time,
};

use super::{
    defaults,
    http_config::{Credentials, HttpClient},
    scraper_url::{ScraperUrl, Server},
    value,
};
use crate::{agent::TlsError, socket_file::SocketPath, wire::SCRAPE_TIMEOUT_HEADER};

/// Longest answer: a table of 100 000 aliases with all labels is not much bigger.
const MAX_ANSWER: usize = 256 << 20;
/// Longest body of an error: the scraper sends one line, and the start of any other page is enough.
const MAX_REFUSAL: usize = 4096;

/// The address of a running scraper, and the longest wait for an answer.
#[derive(Debug, clap::Args)]
pub(super) struct ScraperApi {
    /// HTTP address of the scraper, or unix:PATH of its socket
    #[arg(long, value_name = "URL", default_value = defaults::scraper_url())]
    url: ScraperUrl,
    /// Longest wait for the whole answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = value::duration)]
    timeout: Duration,
    #[command(flatten)]
    credentials: Credentials,
    /// The flag with the address, for errors.
    #[arg(skip = "--url")]
    flag: &'static str,
}

impl ScraperApi {
    /// The scraper at the URL that `flag` gave.
    pub(super) fn at(url: ScraperUrl, timeout: Duration, credentials: Credentials, flag: &'static str) -> Self {
        Self { url, timeout, credentials, flag }
    }

    /// Runs requests to their end, within the timeout.
    pub(super) async fn within<T>(&self, question: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        time::timeout(self.timeout, question).await.unwrap_or_else(|_| {
            Err(anyhow!("the scraper at {} did not answer within {:?}; see --timeout", self.url, self.timeout))
        })
    }

    /// Sends a request, and gives a successful answer. The error of any other answer is the scraper's own line.
    pub(super) async fn ask(&self, method: Method, path: &str) -> anyhow::Result<Response<Incoming>> {
        let answer = self.send(method, path).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        Err(refusal(status, answer.into_body()).await)
    }

    fn no_tls(&self, error: TlsError) -> anyhow::Error {
        anyhow::Error::from(error)
            .context(format!("no TLS with the scraper at {}; see tls_config in --http-config.file", self.url))
    }

    /// Sends a request, and gives the whole body of a successful answer.
    pub(super) async fn read(&self, method: Method, path: &str) -> anyhow::Result<Bytes> {
        let body = Limited::new(self.ask(method, path).await?.into_body(), MAX_ANSWER).collect().await;
        Ok(body.map_err(|error| anyhow!(error)).context("the scraper's answer was cut")?.to_bytes())
    }

    async fn send(&self, method: Method, path: &str) -> anyhow::Result<Response<Incoming>> {
        let unreachable = || format!("cannot reach the scraper at {}; is it running? see {}", self.url, self.flag);
        let credentials = self.credentials.clone();
        let HttpClient { headers, tls } = task::spawn_blocking(move || credentials.read()).await??;
        let (mut sender, hint) = match &self.url.server {
            Server::Tcp { tls: is_tls, authority } => {
                let host = authority.host().trim_start_matches('[').trim_end_matches(']');
                let port = authority.port_u16().unwrap_or(if *is_tls { 443 } else { 80 });
                let stream = TcpStream::connect((host, port)).await.with_context(unreachable)?;
                if *is_tls {
                    let stream = tls.connect(host, stream).await.map_err(|error| self.no_tls(error))?;
                    (sender(stream).await.with_context(unreachable)?, "")
                } else {
                    (sender(stream).await.with_context(unreachable)?, "; does it speak TLS, https://?")
                }
            }
            Server::Unix(path) => {
                let path = SocketPath::of(path).with_context(unreachable)?;
                let stream = UnixStream::connect(&path).await.with_context(unreachable)?;
                let hint = "; does it speak TLS? commands have none on a socket";
                (sender(stream).await.with_context(unreachable)?, hint)
            }
        };
        let mut request = Request::builder()
            .method(method)
            .uri(self.url.target(path))
            .header(header::HOST, self.url.host())
            .header(header::USER_AGENT, concat!("narthex/", env!("CARGO_PKG_VERSION")))
            .header(SCRAPE_TIMEOUT_HEADER, HeaderValue::try_from(self.timeout.as_secs_f64().to_string())?)
            .body(Empty::<Bytes>::new())?;
        request.headers_mut().extend(headers);
        let answer = sender.send_request(request).await;
        answer.with_context(|| format!("the scraper at {} broke off before answering{hint}", self.url))
    }
}

/// Over a connection, whose task ends with the last answer. Request and body report its errors.
async fn sender(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> hyper::Result<http1::SendRequest<Empty<Bytes>>> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// The first line of the body, else the status.
async fn refusal(status: StatusCode, body: Incoming) -> anyhow::Error {
    let text = match Limited::new(body, MAX_REFUSAL).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(_) => String::new(),
    };
    match text.lines().next().map(str::trim) {
        Some(line) if status == StatusCode::UNAUTHORIZED && !line.is_empty() => {
            anyhow!("{line}: give the right one in --http-config.file ({})", status.as_u16())
        }
        Some(line) if status == StatusCode::FORBIDDEN && line.starts_with("user ") => {
            anyhow!("{line}: it is given in the scraper's --web.users-file ({})", status.as_u16())
        }
        Some(line) if !line.is_empty() => anyhow!("{line} ({})", status.as_u16()),
        _ => anyhow!("the scraper answered {status}"),
    }
}
