//! An export read back: every lease, or every line that is wrong; and what that changes in a table.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{BeaconLine, FORMAT, Header, Line, VERSION};
use crate::{
    identity::SecretIdError,
    registry::{Beacon, BeaconError, BeaconName, Change, Contents, Lease, Name},
    wire::{Labels, Target, TargetError},
};

/// A line that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {number}: {source}")]
pub(crate) struct BadLine {
    /// From 1.
    pub(crate) number: usize,
    source: LineError,
}

#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("the file cannot be read: {0}")]
    Read(io::Error),
    #[error("{0}")]
    Json(serde_json::Error),
    #[error("the first line of an export is missing")]
    NoHeader,
    #[error("the export has version {found}, of a later narthex: this one reads version {VERSION}")]
    Later { found: u32 },
    #[error("the export has version {found}, which no narthex writes")]
    NoVersion { found: u32 },
    #[error("{0}")]
    Unfit(#[from] TargetError),
    #[error("{0}")]
    Secret(#[from] SecretIdError),
    #[error("{field} is no time such as 2026-01-31T23:59:59Z")]
    Time { field: &'static str },
    #[error("{0}")]
    Beacon(#[from] BeaconError),
    #[error("{} {name} is there twice", name.what())]
    Twice { name: Name },
    #[error("lease_ms and expires_at stand together, and a lease is not 0")]
    Lease,
    #[error("the former lease is of another alias")]
    Former,
    #[error("the export has {found} entries and should have {expected}: was it cut?")]
    Count { found: usize, expected: usize },
}

/// What an import does to a table.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    pub(crate) changes: Vec<Change>,
    /// Aliases and beacons that the table did not have.
    pub(crate) added: usize,
    /// Aliases that the imported lease renewed later than the table's.
    pub(crate) replaced: usize,
    /// Aliases whose lease in the table is the same, or renewed later, and beacons that the table has.
    pub(crate) left: usize,
}

/// Reads what [`write`] wrote: everything, or every line that is wrong.
pub(crate) fn read(from: impl BufRead) -> Result<Contents, Vec<BadLine>> {
    let (mut contents, mut bad, mut names) = (Contents::default(), Vec::new(), BTreeSet::new());
    let (mut header, mut found) = (None, 0);
    for (number, line) in (1..).zip(from.lines()) {
        let of_line = |source| BadLine { number, source };
        let line = line.map_err(|error| vec![of_line(LineError::Read(error))])?;
        if number == 1 {
            header = Some(read_header(&line).map_err(|error| vec![of_line(error)])?);
            continue;
        }
        found += 1;
        let read = match &header {
            Some(header) if found > header.aliases => beacon(&line).map(|beacon| {
                let name = Name::Beacon(beacon.name.clone());
                contents.beacons.push(Arc::new(beacon));
                name
            }),
            _ => lease(&line).map(|lease| {
                let name = Name::Alias(lease.alias.clone());
                contents.leases.push(Arc::new(lease));
                name
            }),
        };
        match read {
            Ok(name) if names.contains(&name) => bad.push(of_line(LineError::Twice { name })),
            Ok(name) => drop(names.insert(name)),
            Err(error) => bad.push(of_line(error)),
        }
    }
    match header.map(|header| header.aliases.saturating_add(header.beacons)) {
        None => bad.push(BadLine { number: 1, source: LineError::NoHeader }),
        Some(expected) if found != expected => {
            bad.push(BadLine { number: found + 1, source: LineError::Count { found, expected } });
        }
        Some(_) => {}
    }
    if bad.is_empty() { Ok(contents) } else { Err(bad) }
}

/// What has to change so that the table has what is imported too. Of two leases of an alias the later renewal wins; a beacon
/// of the table stays as it is.
pub(crate) fn merge(held: &Contents, imported: Contents) -> Merge {
    let leases: BTreeMap<_, _> = held.leases.iter().map(|lease| (&lease.alias, lease)).collect();
    let beacons: BTreeSet<_> = held.beacons.iter().map(|beacon| &beacon.name).collect();
    let mut merge = Merge::default();
    for lease in imported.leases {
        match leases.get(&lease.alias) {
            Some(held) if held.renewed_at >= lease.renewed_at => {
                merge.left += 1;
                continue;
            }
            Some(_) => merge.replaced += 1,
            None => merge.added += 1,
        }
        merge.changes.push(Change::Put(lease));
    }
    for beacon in imported.beacons {
        match beacons.contains(&beacon.name) {
            true => merge.left += 1,
            false => {
                merge.added += 1;
                merge.changes.push(Change::PutBeacon(beacon));
            }
        }
    }
    merge
}

fn read_header(line: &str) -> Result<Header, LineError> {
    let header: Header = serde_json::from_str(line).map_err(|_| LineError::NoHeader)?;
    if header.format != FORMAT {
        return Err(LineError::NoHeader);
    }
    match header.version {
        1..=VERSION => Ok(header),
        0 => Err(LineError::NoVersion { found: 0 }),
        found => Err(LineError::Later { found }),
    }
}

fn lease(line: &str) -> Result<Lease, LineError> {
    let line: Line = serde_json::from_str(line).map_err(LineError::Json)?;
    line.lease()
}

fn beacon(line: &str) -> Result<Beacon, LineError> {
    let line: BeaconLine = serde_json::from_str(line).map_err(LineError::Json)?;
    let registered_at = time("registered_at", &line.registered_at)?;
    let expires_at = line.expires_at.map(|end| time("expires_at", &end)).transpose()?;
    let lease = line.lease_ms.map(Duration::from_millis);
    if lease.is_some() != expires_at.is_some() || lease.is_some_and(|lease| lease.is_zero()) {
        return Err(LineError::Lease);
    }
    let beacon = Beacon::new(BeaconName::new(line.kind, line.key)?, line.data, lease, registered_at)?;
    Ok(Beacon { expires_at, ..beacon })
}

impl Line {
    fn lease(self) -> Result<Lease, LineError> {
        Target::check_name("service", &self.service)?;
        Target::check_name("hostname", &self.hostname)?;
        let mut labels = Labels::default();
        for (name, value) in self.labels {
            labels.insert(name, value)?;
        }
        let former = self.former.map(|former| {
            if former.alias == self.alias { former.lease().map(Arc::new) } else { Err(LineError::Former) }
        });
        Ok(Lease {
            alias: self.alias.parse()?,
            peer: self.peer,
            service: self.service,
            hostname: self.hostname,
            labels,
            listed: self.listed,
            kept: self.kept,
            secret: self.secret.map(|secret| secret.parse()).transpose()?,
            former: former.transpose()?,
            registered_at: time("registered_at", &self.registered_at)?,
            renewed_at: time("renewed_at", &self.renewed_at)?,
            expires_at: time("expires_at", &self.expires_at)?,
        })
    }
}

fn time(field: &'static str, text: &str) -> Result<SystemTime, LineError> {
    humantime::parse_rfc3339(text).map_err(|_| LineError::Time { field })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{
        identity::KeyPair,
        registry::backup::{END_OF_9999, write},
    };

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    fn lease(alias: &str) -> Lease {
        let mut labels = Labels::default();
        labels.insert("region", "eu \"1\"\u{e9}").expect("fits");
        let mut lease =
            Lease { labels, renewed_at: at(1) + Duration::from_millis(7), expires_at: at(601), ..Lease::sample(alias) };
        lease.former = Some(Arc::new(Lease { peer: KeyPair::from_seed(&[8; 32]).public(), ..lease.clone() }));
        lease
    }

    fn plain(alias: &str) -> Lease {
        Lease { former: None, secret: None, service: String::new(), labels: Labels::default(), ..lease(alias) }
    }

    fn contents(leases: &[Lease]) -> Contents {
        Contents::of(leases.iter().cloned().map(Arc::new).collect())
    }

    fn text(contents: &Contents) -> String {
        let mut bytes = Vec::new();
        write(contents, at(2), &mut bytes).expect("a vector takes all");
        String::from_utf8(bytes).expect("text")
    }

    fn written(leases: &[Lease]) -> String {
        text(&contents(leases))
    }

    fn problems(text: &str) -> Vec<String> {
        read(text.as_bytes()).expect_err("is wrong").iter().map(BadLine::to_string).collect()
    }

    #[test]
    fn the_lines_of_an_export_are_unchanged_since_version_1() {
        let text = written(&[plain("a"), lease("web-1")]);
        let header = format!(
            r#"{{"format":"narthex aliases","version":1,"narthex":"{}","exported_at":"2023-11-14T22:13:22.000Z","aliases":2}}"#,
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(text.lines().collect::<Vec<_>>(), [&header, V1[0], V1[1]]);
        assert_eq!(read(text.as_bytes()).expect("reads"), contents(&[plain("a"), lease("web-1")]));
    }

    const V1: [&str; 2] = [
        r#"{"alias":"a","state":"active","peer":"7jfgaa9nutjyixzikb7tgmsf9gkwq7iqz498zr1nd5ig1fng4esy","kept":true,"service":"","hostname":"h1","labels":{},"registered_at":"2023-11-14T22:13:20.000Z","renewed_at":"2023-11-14T22:13:21.007Z","expires_at":"2023-11-14T22:23:21.000Z"}"#,
        r#"{"alias":"web-1","state":"active","peer":"7jfgaa9nutjyixzikb7tgmsf9gkwq7iqz498zr1nd5ig1fng4esy","kept":true,"service":"web","hostname":"h1","labels":{"region":"eu \"1\"é"},"secret":"abababababababab","registered_at":"2023-11-14T22:13:20.000Z","renewed_at":"2023-11-14T22:13:21.007Z","expires_at":"2023-11-14T22:23:21.000Z","former":{"alias":"web-1","state":"active","peer":"nqcxcmdpdjnzawp4pjfi6xp7f7w93kj1naoa51r3x3yszwm71xfy","kept":true,"service":"web","hostname":"h1","labels":{"region":"eu \"1\"é"},"secret":"abababababababab","registered_at":"2023-11-14T22:13:20.000Z","renewed_at":"2023-11-14T22:13:21.007Z","expires_at":"2023-11-14T22:23:21.000Z"}}"#,
    ];

    #[test]
    fn the_lines_of_beacons_are_unchanged_since_version_2() {
        let stays = Beacon::sample("k", "a\n");
        let lease = Some(Duration::from_secs(90));
        let ends = Beacon::new(BeaconName::new("k", "b").expect("a name"), "é".to_owned(), lease, at(1));
        let beacons = [stays, ends.expect("a beacon")].map(Arc::new).into();
        let all = Contents { beacons, ..contents(&[plain("a")]) };
        let lines = text(&all);
        let lines: Vec<_> = lines.lines().collect();
        assert!(
            lines[0].contains(r#""version":2"#) && lines[0].ends_with(r#""aliases":1,"beacons":2}"#),
            "{}",
            lines[0]
        );
        let v2 = [
            V1[0],
            r#"{"kind":"k","key":"a\n","data":"{\"targets\":[\"10.0.0.1:9100\"]}","registered_at":"2023-11-14T22:13:20.000Z"}"#,
            r#"{"kind":"k","key":"b","data":"é","registered_at":"2023-11-14T22:13:21.000Z","lease_ms":90000,"expires_at":"2023-11-14T22:14:51.000Z"}"#,
        ];
        assert_eq!(lines[1..], v2);
        assert_eq!(read(lines.join("\n").as_bytes()).expect("reads"), all);
        let merge =
            super::merge(&Contents { beacons: vec![Arc::clone(&all.beacons[0])], ..Contents::default() }, all.clone());
        assert_eq!((merge.added, merge.replaced, merge.left), (2, 0, 1));
        assert_eq!(merge.changes[1], Change::PutBeacon(Arc::clone(&all.beacons[1])));
    }

    #[test]
    fn an_alias_that_is_not_listed_is_in_an_export_of_version_3() {
        let unlisted = Lease { listed: false, ..plain("a") };
        let former = Lease { former: Some(Arc::new(Lease { listed: false, ..plain("b") })), ..plain("b") };
        for lease in [unlisted, former] {
            let text = written(std::slice::from_ref(&lease));
            assert!(text.contains("\"version\":3") && text.contains("\"labels\":{},\"listed\":false"), "{text}");
            assert_eq!(read(text.as_bytes()).expect("reads"), contents(&[lease]));
        }
    }

    #[test]
    fn whatever_is_stored_can_be_written_and_read() {
        let end = UNIX_EPOCH + END_OF_9999;
        let odd = Lease { expires_at: end + Duration::from_secs(1 << 40), registered_at: UNIX_EPOCH, ..plain("a") };
        let read = read(written(&[odd]).as_bytes()).expect("reads");
        assert_eq!((read.leases[0].registered_at, read.leases[0].expires_at), (UNIX_EPOCH, end));
        assert_eq!(super::read(written(&[]).as_bytes()).expect("reads"), Contents::default());
    }

    #[test]
    fn every_bad_line_is_named_by_its_number() {
        let text = written(&[plain("a"), plain("b"), plain("c"), plain("d"), plain("e"), lease("f")]);
        let lines: Vec<&str> = text.lines().collect();
        let swap = |line: usize, from: &str, to: &str| lines[line].replace(from, to);
        let bad = [
            lines[0].to_owned(),
            swap(1, "\"alias\":\"a\"", "\"alias\":\"a b\""),
            swap(2, "\"renewed_at\":\"2023-11-14T22:13:21.007Z\"", "\"renewed_at\":\"yesterday\""),
            lines[3].to_owned(),
            swap(4, "\"alias\":\"d\"", "\"alias\":\"c\""),
            swap(5, "\"kept\"", "\"more\":1,\"kept\""),
            swap(6, "\"secret\":\"ab", "\"secret\":\"zz"),
        ];
        let problems = problems(&bad.join("\n"));
        let named: Vec<&str> = problems.iter().map(|problem| problem.split(": ").next().expect("a number")).collect();
        assert_eq!(named, ["line 2", "line 3", "line 5", "line 6", "line 7"], "{problems:?}");
    }

    #[test]
    fn what_is_cut_or_no_export_of_this_version_is_refused() {
        let text = written(&[plain("a"), plain("b")]);
        let cut: Vec<&str> = text.lines().take(2).collect();
        assert_eq!(problems(&cut.join("\n")), ["line 2: the export has 1 entries and should have 2: was it cut?"]);
        let newer = text.replacen("\"version\":1", "\"version\":4", 1);
        assert!(problems(&newer)[0].contains("version 4, of a later narthex"), "{:?}", problems(&newer));
        let none = text.replacen("\"version\":1", "\"version\":0", 1);
        assert!(problems(&none)[0].contains("version 0, which no narthex writes"), "{:?}", problems(&none));
        for other in ["", "{}", "[]", "up 1", "\n\n"] {
            assert_eq!(problems(other), ["line 1: the first line of an export is missing"]);
        }
    }

    #[test]
    fn of_two_leases_of_an_alias_the_later_renewal_wins() {
        let renewed = |alias: &str, seconds| Lease { renewed_at: at(seconds), ..plain(alias) };
        let held = contents(&[renewed("later", 1), renewed("older", 3), renewed("same", 2)]);
        let imported = contents(&["later", "older", "same", "new"].map(|alias| renewed(alias, 2)));
        let merge = merge(&held, imported);
        assert_eq!((merge.added, merge.replaced, merge.left), (1, 1, 2));
        assert_eq!(merge.changes, ["later", "new"].map(|alias| Change::Put(Arc::new(renewed(alias, 2)))));
    }
}
