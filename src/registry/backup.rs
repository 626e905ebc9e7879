//! The table as text, which this version and later ones read back.
//!
//! JSON lines: the first is a [`Header`], each further one a [`Line`], an alias, in the order of the names. There is nothing
//! secret in them: peers are named by their public keys, secrets by their ids.

#[cfg(feature = "cli")]
mod import;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::Lease;
use crate::identity::PublicKey;

#[cfg(feature = "cli")]
pub(crate) use import::{Merge, merge, read};

/// What the first line says of the rest.
const FORMAT: &str = "narthex aliases";
/// Grows with a change that earlier versions could not read.
const VERSION: u32 = 1;
/// RFC 3339 ends with the year 9999; a stored time may be anything.
const END_OF_9999: Duration = Duration::from_secs(253_402_300_799);

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    /// The version of narthex that wrote the lines.
    #[serde(default)]
    narthex: String,
    #[serde(default)]
    exported_at: String,
    /// How many lines follow.
    aliases: usize,
}

/// An alias, or the lease that it was taken from. Times are RFC 3339, in UTC.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    alias: String,
    /// When exported, for the reader: `active` or `lapsed`.
    state: String,
    peer: PublicKey,
    /// True if the peer keeps its key across restarts.
    kept: bool,
    service: String,
    hostname: String,
    labels: BTreeMap<String, String>,
    /// The id of the shared secret that was proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    registered_at: String,
    renewed_at: String,
    expires_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    former: Option<Box<Line>>,
}

/// Writes all leases, which are in the order of their aliases.
pub(crate) fn write(leases: &[Arc<Lease>], now: SystemTime, to: &mut impl Write) -> io::Result<()> {
    let header = Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        narthex: env!("CARGO_PKG_VERSION").to_owned(),
        exported_at: text(now),
        aliases: leases.len(),
    };
    let mut line = |json: serde_json::Result<String>| writeln!(to, "{}", json?);
    line(serde_json::to_string(&header))?;
    leases.iter().try_for_each(|lease| line(serde_json::to_string(&Line::of(lease, now))))
}

impl Line {
    fn of(lease: &Lease, now: SystemTime) -> Self {
        let own = |text: &str| text.to_owned();
        Self {
            alias: lease.alias.to_string(),
            state: own(lease.state(now).as_str()),
            peer: lease.peer,
            kept: lease.kept,
            service: lease.service.clone(),
            hostname: lease.hostname.clone(),
            labels: lease.labels.iter().map(|(name, value)| (own(name), own(value))).collect(),
            secret: lease.secret.map(|secret| secret.to_string()),
            registered_at: text(lease.registered_at),
            renewed_at: text(lease.renewed_at),
            expires_at: text(lease.expires_at),
            former: lease.former.as_ref().map(|former| Box::new(Self::of(former, now))),
        }
    }
}

fn text(at: SystemTime) -> String {
    let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default().min(END_OF_9999);
    humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch).to_string()
}
