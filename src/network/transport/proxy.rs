//! The HTTP proxy of the environment, for where only HTTP(S) gets out.
//!
//! `HTTPS_PROXY` or `ALL_PROXY` names it, `NO_PROXY` what is reached without it, both read as curl reads them. Every
//! TCP connection to a public host goes through it, by `CONNECT` and with the name as it was given: often nobody but
//! the proxy can resolve it.

use std::{env, io, pin::pin, time::Duration};

use futures::future::{self, Either};
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::{
    client::proxy::matcher::{Intercept, Matcher},
    rt::TokioIo,
};
use tokio::{net::TcpStream, time};

use crate::{
    identity::HostPort,
    network::{address, transport::dial_socket},
};

/// In the order in which the matcher reads them.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
/// Of a proxy without a port.
const DEFAULT_PORT: u16 = 80;
/// A proxy's answer to CONNECT is a few lines.
const MAX_HEAD: usize = 16 * 1024;
/// Most schemes of a proxy that are named: there are about a dozen.
const MAX_SCHEMES: usize = 16;
/// Longer words are no scheme.
const MAX_SCHEME: usize = 24;
/// Less than a whole handshake may take, so that the error names the proxy.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Which hosts are reached through a proxy.
pub(crate) struct Proxies(Matcher);

impl Proxies {
    pub(crate) fn from_env() -> Self {
        let given = VARIABLES.iter().find(|name| env::var(name).is_ok_and(|value| !value.is_empty()));
        if let Some(name) = given {
            let proxy = Matcher::builder().https(env::var(name).unwrap_or_default()).build();
            match proxy.intercept(&Uri::from_static("https://any.example/")) {
                Some(proxy) => {
                    tracing::info!(proxy = %without_password(&proxy), "TCP to public addresses goes through a proxy")
                }
                None => tracing::warn!(variable = name, "no proxy is used: expected http://[user:password@]host:port"),
            }
        }
        Self(Matcher::from_env())
    }

    /// The proxy that a connection to a host goes through. Private addresses are reached without one.
    pub(crate) fn before(&self, to: &HostPort) -> Option<Intercept> {
        if address::is_private_host(to) {
            return None;
        }
        self.0.intercept(&Uri::builder().scheme("https").authority(to.to_string()).path_and_query("/").build().ok()?)
    }
}

/// Why there is no way through the proxy. The operating system's error is part of the text, as this is where the chain
/// of causes is cut.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("the proxy {proxy} is none that can be used: HTTPS_PROXY must begin with http://")]
    Scheme { proxy: String },
    #[error("the proxy {proxy} of HTTPS_PROXY cannot be reached: {reason}")]
    Unreachable { proxy: String, reason: String },
    #[error("the proxy {proxy} wants a user and a password: HTTPS_PROXY must be http://USER:PASSWORD@HOST:PORT")]
    NoCredentials { proxy: String },
    #[error("the proxy {proxy} refuses the user and the password in HTTPS_PROXY")]
    WrongCredentials { proxy: String },
    #[error(
        "the proxy {proxy} wants {wanted}: narthex speaks Basic alone, so put a proxy between that speaks the other"
    )]
    OtherScheme { proxy: String, wanted: String },
    #[error(
        "the proxy {proxy} answered {status} to CONNECT {to}: it must allow that, or NO_PROXY must name the host if \
         there is a way past the proxy"
    )]
    Refused { proxy: String, status: StatusCode, to: HostPort },
    #[error("the proxy {proxy} does not answer as an HTTP proxy: {reason}")]
    Broken { proxy: String, reason: String },
}

/// A connection to the host through the proxy.
pub(crate) async fn connect(proxy: Intercept, to: &HostPort) -> Result<TcpStream, ProxyError> {
    let broken = |reason: String| ProxyError::Broken { proxy: without_password(&proxy), reason };
    match time::timeout(TIMEOUT, tunnel(&proxy, to)).await {
        Ok(tunnelled) => tunnelled,
        Err(_) => Err(broken(format!("nothing in {TIMEOUT:?}"))),
    }
}

async fn tunnel(proxy: &Intercept, to: &HostPort) -> Result<TcpStream, ProxyError> {
    let name = || without_password(proxy);
    let (Some(host), Some("http")) = (proxy.uri().host(), proxy.uri().scheme_str()) else {
        return Err(ProxyError::Scheme { proxy: name() });
    };
    let (host, port) = (host.trim_matches(['[', ']']), proxy.uri().port_u16().unwrap_or(DEFAULT_PORT));
    let unreachable = |error: io::Error| ProxyError::Unreachable { proxy: name(), reason: error.to_string() };
    let stream = dial_socket::connect_to_name(host, port).await.map_err(unreachable)?;

    let broken = |error: hyper::Error| ProxyError::Broken { proxy: name(), reason: error.to_string() };
    let to_text = to.to_string();
    let mut request = Request::builder().method(Method::CONNECT).uri(&to_text).header(header::HOST, &to_text);
    if let Some(credentials) = proxy.basic_auth() {
        request = request.header(header::PROXY_AUTHORIZATION, credentials);
    }
    let request = request.body(Empty::<&[u8]>::new()).expect("host:port is an authority");
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        match answer.status() {
            status if status.is_success() => hyper::upgrade::on(answer).await.map_err(broken), // RFC 9110, 9.3.6
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(match (schemes(answer.headers()), proxy.basic_auth()) {
                (schemes, _) if !schemes.is_empty() && !schemes.iter().any(|scheme| scheme == "basic") => {
                    ProxyError::OtherScheme { proxy: name(), wanted: schemes.join(" or ") }
                }
                (_, None) => ProxyError::NoCredentials { proxy: name() },
                (_, Some(_)) => ProxyError::WrongCredentials { proxy: name() },
            }),
            status => Err(ProxyError::Refused { proxy: name(), status, to: to.clone() }),
        }
    };
    let upgraded = match future::select(pin!(exchange), pin!(connection.with_upgrades())).await {
        Either::Left((exchanged, _)) => exchanged,
        // Errors of the connection reach the exchange.
        Either::Right((_, exchange)) => exchange.await,
    };
    let parts = upgraded?.downcast::<TokioIo<TcpStream>>().expect("it was made of one");
    // The dialler sends first in every protocol that we tunnel.
    if parts.read_buf.is_empty() {
        Ok(parts.io.into_inner())
    } else {
        Err(ProxyError::Broken { proxy: name(), reason: "bytes after its answer".to_owned() })
    }
}

/// The ways to prove oneself that a proxy offers (RFC 9110, section 11.7.1), in lower case. Commas part schemes as well as
/// their parameters, which have a `=`.
fn schemes(headers: &HeaderMap) -> Vec<String> {
    let challenges = headers.get_all(header::PROXY_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let words = challenges.flat_map(|text| text.split(',')).filter_map(|part| part.split_ascii_whitespace().next());
    let is_scheme =
        |word: &&str| word.len() <= MAX_SCHEME && word.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    words.filter(is_scheme).take(MAX_SCHEMES).map(str::to_ascii_lowercase).collect()
}

/// The URL of a proxy without its user and password.
fn without_password(proxy: &Intercept) -> String {
    let uri = proxy.uri();
    format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |at| at.as_str()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn schemes_are_distinguished_from_their_parameters() {
        for (challenges, found) in [
            (&["Negotiate", "NTLM"][..], &["negotiate", "ntlm"][..]),
            (&["Digest realm=\"a, b\", qop=\"auth\", BASIC realm=\"c\""], &["digest", "basic"]),
            (&["", "a(b", "=x"], &[]),
        ] {
            let mut headers = HeaderMap::new();
            for challenge in challenges {
                headers.append(header::PROXY_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            assert_eq!(schemes(&headers), found, "{challenges:?}");
        }
    }
}
