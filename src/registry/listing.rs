//! An alias as a group of the http_sd list, and what that costs.
//!
//! The budgets count these bytes and no others: labels are listed twice and escaped, so a registration of few bytes may
//! be a group of many.

use std::io::{self, Write};

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Lease, LeaseState};
use crate::{
    access::SecretName,
    identity::PublicKey,
    network::LinkPath,
    wire::{Alias, Labels, Target},
};

/// Prefix of the labels that only relabelling sees.
const META: &str = "__meta_narthex_";
/// As long as a name of a secret may be. Names change without a registration, so all count as this one does.
const LONGEST_NAME: &str = "----------------------------------------------------------------";
const _: () = assert!(LONGEST_NAME.len() == SecretName::MAX_LEN);

/// The labels of a group. Prometheus refuses a whole list for one bad label name: all of these are either ours or
/// [`Labels`], which are checked and cannot be one of ours.
pub(crate) struct Listing<'a> {
    alias: &'a Alias,
    peer: &'a PublicKey,
    service: &'a str,
    hostname: &'a str,
    labels: &'a Labels,
    state: LeaseState,
    path: Option<LinkPath>,
    secret: Option<&'a str>,
}

impl<'a> Listing<'a> {
    /// `secret` is the name of the secret that the lease was registered with.
    pub(crate) fn new(
        lease: &'a Lease,
        state: LeaseState,
        path: Option<LinkPath>,
        secret: Option<&'a SecretName>,
    ) -> Self {
        let Lease { alias, peer, service, hostname, labels, .. } = lease;
        Self { alias, peer, service, hostname, labels, state, path, secret: secret.map(SecretName::as_str) }
    }

    /// The value of a label that the alias is listed with; as in Prometheus, a label that is not there has an empty one.
    /// Labels for relabelling are none of these.
    pub(crate) fn label(lease: &'a Lease, name: &str) -> &'a str {
        match name {
            "instance" => lease.alias.as_str(),
            "service" => &lease.service,
            "hostname" => &lease.hostname,
            _ => lease.labels.value(name).unwrap_or_default(),
        }
    }

    /// The group but for the address to scrape: everything after `{"targets":["<address>"`.
    pub(crate) fn json(&self) -> Vec<u8> {
        let mut json = Vec::new();
        self.write(&mut json);
        json
    }

    fn write(&self, mut to: impl Write) {
        let written = to.write_all(br#"],"labels":"#).and_then(|()| {
            serde_json::to_writer(&mut to, self)?;
            to.write_all(b"}")
        });
        written.expect("strings are written to memory");
    }

    /// Bytes of the group with its longest path, state and name of a secret.
    fn most_bytes(self) -> u64 {
        let mut len = Len(0);
        let (path, secret) = (Some(LinkPath::Relayed), Some(LONGEST_NAME));
        Self { state: LeaseState::Active, path, secret, ..self }.write(&mut len);
        len.0
    }
}

/// Bytes of the group that the lease is listed as.
pub(super) fn lease_bytes(lease: &Lease) -> u64 {
    Listing::new(lease, LeaseState::Active, None, None).most_bytes()
}

/// Bytes of the group that the target would be listed as.
pub(super) fn target_bytes(target: &Target, peer: &PublicKey, hostname: &str) -> u64 {
    let Target { alias, service, labels, .. } = target;
    Listing { alias, peer, service, hostname, labels, state: LeaseState::Active, path: None, secret: None }.most_bytes()
}

/// `direct`, `relayed` or `none`.
pub(crate) fn path_label(path: Option<LinkPath>) -> &'static str {
    path.map_or("none", LinkPath::as_str)
}

impl Serialize for Listing<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let &Self { alias, peer, service, hostname, labels, state, path, secret } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("__metrics_path__", &format_args!("/scrape/{alias}/metrics"))?;
        map.serialize_entry("instance", alias)?;
        for (name, value) in [("service", service), ("hostname", hostname)] {
            if !value.is_empty() {
                map.serialize_entry(name, value)?;
                map.serialize_entry(&format_args!("{META}{name}"), value)?;
            }
        }
        for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
            map.serialize_entry(name, value)?;
            map.serialize_entry(&format_args!("{META}label_{name}"), value)?;
        }
        map.serialize_entry(&format_args!("{META}alias"), alias)?;
        map.serialize_entry(&format_args!("{META}public_key"), peer)?;
        map.serialize_entry(&format_args!("{META}path"), path_label(path))?;
        map.serialize_entry(&format_args!("{META}state"), state.as_str())?;
        if let Some(secret) = secret {
            map.serialize_entry(&format_args!("{META}secret"), secret)?;
        }
        map.end()
    }
}

/// Counts what is written.
struct Len(u64);

impl Write for Len {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(labels: &[(&str, &str)]) -> Lease {
        let mut checked = Labels::default();
        for (name, value) in labels {
            checked.insert(*name, *value).expect("fits");
        }
        Lease {
            service: "node_exporter".into(),
            hostname: "web-17.eu-central-1.example.com".into(),
            labels: checked,
            ..Lease::sample("web-17.eu-central-1")
        }
    }

    #[test]
    fn no_path_state_or_name_makes_a_group_longer_than_is_counted() {
        let lease = lease(&[("quoted", "\"\\\"\\"), ("empty", "")]);
        let name = LONGEST_NAME.parse().expect("a name");
        let lengths = [LeaseState::Active, LeaseState::Lapsed].into_iter().flat_map(|state| {
            let paths = [None, Some(LinkPath::Direct), Some(LinkPath::Relayed)];
            paths.map(|path| Listing::new(&lease, state, path, Some(&name)).json().len() as u64)
        });
        assert_eq!(lengths.max(), Some(lease_bytes(&lease)));
        let Lease { alias, service, labels, .. } = lease.clone();
        let target = Target { alias, service, labels, listed: true };
        assert_eq!(target_bytes(&target, &lease.peer, &lease.hostname), lease_bytes(&lease));
    }

    #[test]
    fn the_most_ordinary_aliases_of_a_peer_and_of_the_table_fit_the_budgets() {
        let labels = [("env", "production"), ("region", "eu-central-1"), ("team", "platform")];
        let ordinary = lease_bytes(&lease(&labels));
        let config = crate::registry::RegistryConfig::default();
        assert!((600..1024).contains(&ordinary), "{ordinary} bytes");
        assert!(ordinary * (config.max_per_peer as u64) <= config.max_peer_bytes);
        assert!(ordinary * (config.max_targets as u64) <= config.max_table_bytes);
    }
}
