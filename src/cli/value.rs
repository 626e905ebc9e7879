//! Parsers for the values of flags.

use std::{error::Error, num::NonZeroU32, str::FromStr, time::Duration};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use http::HeaderName;

use crate::{
    agent::ExporterUrl,
    http::nameable_header,
    identity::{HostPort, PeerAddr},
    scraper::AliasPolicy,
    scraper::HookCommand,
    telemetry::Chain,
    wire::{Alias, Labels, Target},
};

/// Fewest bytes of a circuit: two handshakes and a scrape.
const LEAST_CIRCUIT: u64 = 64 << 10;
/// Longest duration: far beyond any use, and safely added to any clock.
const MAX_DURATION: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// `ALIAS=URL` of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TargetUrl {
    pub(super) alias: Alias,
    pub(super) url: ExporterUrl,
}

impl FromStr for TargetUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (alias, url) = text.split_once('=').ok_or("expected ALIAS=URL, as in host-1=http://127.0.0.1:9100")?;
        let alias = alias.parse().map_err(chain)?;
        Ok(Self { alias, url: url.parse().map_err(chain)? })
    }
}

/// `K=V`: a label of every target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) name: String,
    pub(super) value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE, as in region=eu")?;
        Labels::default().insert(name, value).map_err(chain)?;
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// A peer, with or without its dial address.
pub(super) fn peer(text: &str) -> Result<PeerAddr, String> {
    text.parse().map_err(chain)
}

/// A peer with its dial address: the first peer cannot be looked up.
pub(super) fn bootstrap(text: &str) -> Result<PeerAddr, String> {
    match peer(text)? {
        PeerAddr { hint: None, .. } => Err("expected <public key>@<host>:<port>: where to begin must be known".into()),
        peer => Ok(peer),
    }
}

pub(super) fn service(text: &str) -> Result<String, String> {
    Target::check_name("service", text).map(|()| text.to_owned()).map_err(chain)
}

/// A host name for the label `hostname`.
pub(super) fn hostname(text: &str) -> Result<String, String> {
    Target::check_name("hostname", text).map(|()| text.to_owned()).map_err(chain)
}

/// A header of a scrape that may be passed on.
pub(super) fn request_header(text: &str) -> Result<HeaderName, &'static str> {
    nameable_header(text).ok_or("no header that can be passed on")
}

/// A host without a port, as a URL names one.
pub(super) fn host(text: &str) -> Result<String, String> {
    let host = format!("{text}:80").parse::<HostPort>().map_err(chain)?;
    Ok(host.host)
}

/// A command that runs without a shell.
pub(super) fn command(text: &str) -> Result<HookCommand, String> {
    text.parse().map_err(chain)
}

/// A duration longer than zero.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match duration_or_zero(text)? {
        Duration::ZERO => Err("must be longer than 0".into()),
        span => Ok(span),
    }
}

pub(super) fn duration_or_zero(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).map_err(|_| "expected a duration such as 90s, 5m or 3h")?;
    if span > MAX_DURATION {
        return Err("must be at most 10 years".into());
    }
    Ok(span)
}

/// A number of bytes: `65536`, `64KiB`, `64MiB`, `1GiB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    const EXPECTED: &str = "expected a number of bytes such as 65536, 64KiB, 64MiB or 1GiB";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u64 = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(EXPECTED.into()),
    };
    match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(0) | None => Err(EXPECTED.into()),
        Some(bytes) => Ok(bytes),
    }
}

/// As [`bytes`], and enough for a log of several files.
pub(super) fn log_bytes(text: &str) -> Result<u64, String> {
    let size = bytes(text)?;
    if size < 1 << 20 { Err("expected 1MiB at least".to_owned()) } else { Ok(size) }
}

/// As [`bytes`], and enough for a scrape and the handshakes at both ends of a circuit.
pub(super) fn circuit_bytes(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        ..LEAST_CIRCUIT => Err("must be at least 64KiB: a circuit begins with handshakes".into()),
        bytes => Ok(bytes),
    }
}

/// A policy for an alias that is held.
pub(super) fn alias_policy() -> impl TypedValueParser<Value = AliasPolicy> {
    let policies = PossibleValuesParser::new([
        PossibleValue::new("live")
            .help("Once the holder was away for the takeover grace; a kept key, once its lease has lapsed too"),
        PossibleValue::new("pinned").help("Not until the alias is gone, or released with narthex alias release"),
        PossibleValue::new("overwrite").help("At any time: the last one wins"),
    ]);
    policies.try_map(|policy| policy.parse())
}

/// A number from 1.
pub(super) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number from 1".into()),
        Ok(number) => Ok(number),
    }
}

/// A number from 1 to 2^32 - 1.
pub(super) fn count32(text: &str) -> Result<u32, String> {
    rate(text).map(NonZeroU32::get)
}

pub(super) fn rate(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| "expected a whole number from 1 to 4294967295".into())
}

/// The first item that occurs twice.
pub(super) fn duplicate<T: Ord>(items: impl IntoIterator<Item = T>) -> Option<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    items.sort_unstable();
    let twice = items.windows(2).position(|pair| pair[0] == pair[1])?;
    Some(items.swap_remove(twice))
}

/// An error with its causes, because clap shows only the error's own text.
fn chain(error: impl Error + 'static) -> String {
    Chain(&error).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_headers_of_a_connection_cannot_be_passed_on() {
        assert_eq!(request_header("X-Scope-OrgID"), Ok(HeaderName::from_static("x-scope-orgid")));
        for name in ["Authorization", "cookie", "Proxy-Authorization", "Host", "Connection", "Expect", "", "a b"] {
            assert_eq!(request_header(name), Err("no header that can be passed on"), "{name}");
        }
    }

    #[test]
    fn targets_that_cannot_be_asked_are_refused_with_the_reason() {
        assert_eq!("a=https://h".parse::<TargetUrl>().expect("fine").url.to_string(), "https://h/metrics");
        for (text, reason) in [
            ("host-1", "expected ALIAS=URL"),
            ("a b=http://h", "alias \"a b\" is not 1 to 128"),
            ("a=ftp://h/metrics", "only http://, https:// and unix:"),
            ("a=127.0.0.1:9100", "expected a URL"),
            ("a=http://u:p@h/", "user name or password"),
        ] {
            let error = text.parse::<TargetUrl>().expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn durations_and_sizes_have_bounds() {
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration_or_zero("0s"), Ok(Duration::ZERO));
        for text in ["0s", "", "10", "-1s", "1000years"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(circuit_bytes("64KiB"), Ok(64 << 10));
        assert!(circuit_bytes("65535").expect_err("too few").contains("64KiB"));
        for text in ["", "0", "64M", "-1", "99999999999GiB", "KiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bootstrap_peer_needs_an_address() {
        let key = crate::identity::KeyPair::from_seed(&[5; 32]).public();
        assert!(bootstrap(&key.to_string()).expect_err("refused").contains("@<host>:<port>"));
        assert_eq!(bootstrap(&format!("{key}@h:1")).expect("fine").key, key);
    }
}
