//! Addresses at which a peer can be dialled, as people write them.

use std::{fmt, net::IpAddr, str::FromStr};

use super::HostPort;

/// Most bytes of a URL's path: far more than a proxy needs to route by.
const MAX_PATH: usize = 128;

/// An address to dial a peer at, or at which others dial this process.
///
/// ```
/// use narthex::identity::DialAddress;
///
/// let plain: DialAddress = "scraper.example.org:19961".parse()?;
/// let behind_a_proxy: DialAddress = "wss://scraper.example.org/narthex".parse()?;
/// assert_eq!(behind_a_proxy.host_port().port, 443);
/// # Ok::<_, narthex::identity::DialAddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DialAddress {
    /// `<host>:<port>`: that TCP port, and the same UDP port for QUIC.
    HostPort(HostPort),
    /// `ws://` or `wss://`, for networks that let only HTTP(S) through.
    WebSocket(WebSocketUrl),
}

/// `ws://<host>[:80][/<path>]`, or `wss://<host>[:443][/<path>]`.
///
/// Both carry the same end-to-end encrypted link. TLS passes proxies that expect HTTPS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WebSocketUrl {
    /// True for `wss`.
    pub tls: bool,
    /// The server. Its name is sent in the `Host` header and expected in the certificate.
    pub host_port: HostPort,
    /// Begins with `/`. Reverse proxies route by path; narthex accepts any.
    pub path: String,
}

impl From<HostPort> for DialAddress {
    fn from(host_port: HostPort) -> Self {
        Self::HostPort(host_port)
    }
}

impl DialAddress {
    /// The host and its port.
    pub fn host_port(&self) -> &HostPort {
        match self {
            Self::HostPort(host_port) | Self::WebSocket(WebSocketUrl { host_port, .. }) => host_port,
        }
    }
}

impl fmt::Display for DialAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostPort(host_port) => host_port.fmt(f),
            Self::WebSocket(url) => url.fmt(f),
        }
    }
}

impl fmt::Display for WebSocketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, path) = (if self.tls { "wss" } else { "ws" }, self.path.as_str());
        write!(f, "{scheme}://{}{}", self.host_port, if path == "/" { "" } else { path })
    }
}

/// Why a text is not a [`DialAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialAddressError {
    /// The text has another form.
    #[error("expected <host>:<port>, with an IPv6 address in brackets, or ws://<host>:<port>/<path>, or wss:// so")]
    Form,
    /// Port 0 means any free port to a listener, and nothing to a dialler.
    #[error("nobody can be reached at port 0: give the port")]
    NoPort,
    /// An unspecified, multicast, broadcast or link-local address.
    #[error("{0} is not the address of one host that others reach: give that")]
    NotDialable(IpAddr),
}

impl FromStr for DialAddress {
    type Err = DialAddressError;

    fn from_str(text: &str) -> Result<Self, DialAddressError> {
        let address = Self::parse(text)?;
        match (address.host_port().port, address.host_port().ip()) {
            (0, _) => Err(DialAddressError::NoPort),
            (_, Some(ip)) if !is_dialable(ip) => Err(DialAddressError::NotDialable(ip)),
            _ => Ok(address),
        }
    }
}

impl DialAddress {
    fn parse(text: &str) -> Result<Self, DialAddressError> {
        let (tls, rest) = match text.split_once("://") {
            Some(("ws", rest)) => (false, rest),
            Some(("wss", rest)) => (true, rest),
            Some(_) => return Err(DialAddressError::Form),
            None => return text.parse().map(Self::HostPort).map_err(|_| DialAddressError::Form),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let has_port = !authority.ends_with(']') && authority.contains(':');
        let default_port = if tls { ":443" } else { ":80" };
        let host_port = format!("{authority}{}", if has_port { "" } else { default_port });
        let host_port = host_port.parse().map_err(|_| DialAddressError::Form)?;
        // The path is copied into a request line. Commas separate lists in environment variables.
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '?' | '#');
        if path.len() > MAX_PATH || !path.chars().all(plain) {
            return Err(DialAddressError::Form);
        }
        let path = if path.is_empty() { "/" } else { path }.to_owned();
        Ok(Self::WebSocket(WebSocketUrl { tls, host_port, path }))
    }
}

fn is_dialable(ip: IpAddr) -> bool {
    !match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast(),
        // A link-local address is ambiguous without the name of an interface.
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_as_they_are_printed() {
        for text in
            ["h:1", "[::1]:1", "ws://h:80", "ws://[::1]:8080/a/b", "wss://h.example:443/narthex", "wss://1.2.3.4:1"]
        {
            assert_eq!(text.parse::<DialAddress>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn a_url_has_the_usual_ports() {
        for (text, full) in
            [("ws://h", "ws://h:80"), ("wss://h/", "wss://h:443"), ("wss://[::1]/x", "wss://[::1]:443/x")]
        {
            assert_eq!(text.parse::<DialAddress>().expect(text).to_string(), full);
        }
    }

    #[test]
    fn what_would_not_survive_a_request_line_is_refused() {
        for text in ["ws://", "ws:///x", "ws://h:", "http://h:1", "WS://h", "ws://u:p@h", "ws://h/a b", "ws://h/\r\n"] {
            assert_eq!(text.parse::<DialAddress>(), Err(DialAddressError::Form), "{text}");
        }
        for text in ["ws://h/a?b", "ws://h/#", "ws://h/ä", "ws://h/a,b", &format!("ws://h/{}", "x".repeat(128))] {
            assert_eq!(text.parse::<DialAddress>(), Err(DialAddressError::Form), "{text}");
        }
    }

    #[test]
    fn an_address_of_no_single_host_is_refused() {
        for text in ["h:0", "192.0.2.1:0", "ws://h:0", "wss://h:0/x"] {
            assert_eq!(text.parse::<DialAddress>(), Err(DialAddressError::NoPort), "{text}");
        }
        for ip in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "fe80::1", "::ffff:0.0.0.0"] {
            let ip: IpAddr = ip.parse().expect("an address");
            let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
            for text in [format!("{host}:1"), format!("ws://{host}"), format!("wss://{host}:443/x")] {
                assert_eq!(text.parse::<DialAddress>(), Err(DialAddressError::NotDialable(ip)), "{text}");
            }
        }
    }
}
