//! A peer as people write it: a public key, optionally with an address to dial first.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{DialAddress, DialAddressError, KeyError, PublicKey};

/// A peer, written `<public key>` or `<public key>@<dial address>`. The address saves the look-up by key.
///
/// ```
/// use narthex::{KeyPair, PeerAddr};
///
/// let key = KeyPair::generate().public();
/// let scraper = PeerAddr::at(key, "scraper.example.org", 19961);
/// assert_eq!(scraper, format!("{key}@scraper.example.org:19961").parse()?);
/// # Ok::<_, narthex::identity::PeerAddrError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerAddr {
    /// The peer's identity. Whoever answers at `hint` must prove this key.
    pub key: PublicKey,
    /// The address to dial first.
    pub hint: Option<DialAddress>,
}

impl PeerAddr {
    /// A peer at a known host and port.
    pub fn at(key: PublicKey, host: impl Into<String>, port: u16) -> Self {
        Self { key, hint: Some(HostPort::new(host, port).into()) }
    }

    /// The peer once for each of its addresses; once without one if there is none.
    #[cfg(feature = "scraper")]
    pub(crate) fn at_each(key: PublicKey, addresses: &[DialAddress]) -> Vec<Self> {
        match addresses {
            [] => vec![key.into()],
            addresses => addresses.iter().map(|hint| Self { key, hint: Some(hint.clone()) }).collect(),
        }
    }
}

impl From<PublicKey> for PeerAddr {
    fn from(key: PublicKey) -> Self {
        Self { key, hint: None }
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hint {
            Some(hint) => write!(f, "{}@{hint}", self.key),
            None => self.key.fmt(f),
        }
    }
}

/// Why a text is not a [`PeerAddr`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerAddrError {
    /// The part before `@`.
    #[error("expected <public key>, <public key>@<host>:<port> or <public key>@wss://<host>")]
    Key(#[source] KeyError),
    /// The part after `@`.
    #[error("after the @ of a peer")]
    Hint(#[source] DialAddressError),
}

impl FromStr for PeerAddr {
    type Err = PeerAddrError;

    fn from_str(text: &str) -> Result<Self, PeerAddrError> {
        let (key, hint) = match text.split_once('@') {
            Some((key, hint)) => (key, Some(hint.parse().map_err(PeerAddrError::Hint)?)),
            None => (text, None),
        };
        Ok(Self { key: key.parse().map_err(PeerAddrError::Key)?, hint })
    }
}

/// A host (name, IPv4, or IPv6 in brackets) and a port. Peers use the UDP port for QUIC and the same TCP port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct HostPort {
    /// A name or an address, an IPv6 one without its brackets.
    pub host: String,
    /// 0 means any free port to a listener.
    pub port: u16,
}

impl HostPort {
    /// A host, an IPv6 address without its brackets, and a port.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// The host as an address, if it is one and not a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a text is not a [`HostPort`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected <host>:<port>, with an IPv6 address in brackets")]
#[non_exhaustive]
pub struct HostPortError;

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let (host, port) = text.rsplit_once(':').ok_or(HostPortError)?;
        let port = port.parse().map_err(|_| HostPortError)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(v6) if matches!(v6.parse(), Ok(IpAddr::V6(_))) => v6,
            Some(_) => return Err(HostPortError),
            None => host,
        };
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || host.len() > 253 || !(host.chars().all(name) || host.parse::<IpAddr>().is_ok()) {
            return Err(HostPortError);
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl Serialize for PeerAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PeerAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_parsed_as_they_are_printed() {
        let key = crate::identity::KeyPair::from_seed(&[5; 32]).public();
        for hint in ["", "@example.org:19961", "@[::1]:1", "@wss://example.org:443/narthex"] {
            let text = format!("{key}{hint}");
            assert_eq!(text.parse::<PeerAddr>().expect("reads").to_string(), text);
        }
    }

    #[test]
    fn bad_hosts_and_ports_are_refused() {
        for text in ["", ":1", "host", "host:", "host:65536", "::1:80x", "[::1:80", "[name]:80", "a b:1", "a/b:1"] {
            assert_eq!(text.parse::<HostPort>(), Err(HostPortError), "{text}");
        }
    }
}
