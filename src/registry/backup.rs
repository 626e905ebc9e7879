//! The table as text, which this version and later ones read back.
//!
//! JSON lines: the first is a [`Header`], each further one a [`Line`], an alias, in the order of the names; then come the
//! beacons, each a [`BeaconLine`]. Of narthex's own there is nothing secret in them: peers are named by their public keys, secrets
//! by their ids. The data of a beacon is what its caller gave.

#[cfg(feature = "cli")]
mod import;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{Beacon, Contents, Lease};
use crate::identity::PublicKey;

#[cfg(feature = "cli")]
pub(crate) use import::{Merge, merge, read};

/// What the first line says of the rest.
const FORMAT: &str = "narthex aliases";
/// Grows with a change that earlier versions could not read: version 2 has beacons, version 3 aliases that are not listed. An
/// export has the first version that can say what is in it.
const VERSION: u32 = 3;
const WITH_BEACONS: u32 = 2;
const WITHOUT_BEACONS: u32 = 1;
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
    /// How many lines follow, of aliases and of beacons.
    aliases: usize,
    #[serde(default, skip_serializing_if = "is_zero")]
    beacons: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn listed() -> bool {
    true
}

fn is_listed(listed: &bool) -> bool {
    *listed
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
    #[serde(default = "listed", skip_serializing_if = "is_listed")]
    listed: bool,
    /// The id of the shared secret that was proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    registered_at: String,
    renewed_at: String,
    expires_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    former: Option<Box<Line>>,
}

/// A beacon. Times are RFC 3339, in UTC.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BeaconLine {
    kind: String,
    key: String,
    data: String,
    registered_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

/// Writes all leases and beacons, which are in the order of their names.
pub(crate) fn write(Contents { leases, beacons }: &Contents, now: SystemTime, to: &mut impl Write) -> io::Result<()> {
    let header = Header {
        format: FORMAT.to_owned(),
        version: match leases.iter().all(|lease| all_listed(lease)) {
            false => VERSION,
            true if beacons.is_empty() => WITHOUT_BEACONS,
            true => WITH_BEACONS,
        },
        narthex: env!("CARGO_PKG_VERSION").to_owned(),
        exported_at: text(now),
        aliases: leases.len(),
        beacons: beacons.len(),
    };
    let mut line = |json: serde_json::Result<String>| writeln!(to, "{}", json?);
    line(serde_json::to_string(&header))?;
    leases.iter().try_for_each(|lease| line(serde_json::to_string(&Line::of(lease, now))))?;
    beacons.iter().try_for_each(|beacon| line(serde_json::to_string(&BeaconLine::of(beacon))))
}

/// True if the lease and the one before are listed.
fn all_listed(lease: &Lease) -> bool {
    lease.listed && lease.former.as_ref().is_none_or(|former| former.listed)
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
            listed: lease.listed,
            secret: lease.secret.map(|secret| secret.to_string()),
            registered_at: text(lease.registered_at),
            renewed_at: text(lease.renewed_at),
            expires_at: text(lease.expires_at),
            former: lease.former.as_ref().map(|former| Box::new(Self::of(former, now))),
        }
    }
}

impl BeaconLine {
    fn of(beacon: &Beacon) -> Self {
        Self {
            kind: beacon.name.kind().to_owned(),
            key: beacon.name.key().to_owned(),
            data: beacon.data.clone(),
            registered_at: text(beacon.registered_at),
            lease_ms: beacon.lease.map(|lease| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)),
            expires_at: beacon.expires_at.map(text),
        }
    }
}

fn text(at: SystemTime) -> String {
    let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default().min(END_OF_9999);
    humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch).to_string()
}
