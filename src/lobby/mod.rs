//! Lobby's discovery: hosts of a group, each with labels, shown by Lobby's HTTP API.
//!
//! The scraper keeps the group ([`crate::scraper`]); agents say what their host's labels are, over the link, and ask for the
//! list, so that every host answers for the whole group.

#[cfg(feature = "nats")]
mod bus;
mod http;
mod targets;

use std::{collections::HashSet, sync::Arc};

use serde::Serialize;

#[cfg(feature = "nats")]
pub(crate) use bus::Bus;
pub(crate) use http::{LobbyListener, LobbyToken};

use crate::wire::LobbyHost;

/// Port of targets that name none: node_exporter's, as with lobbyd.
pub(crate) const NODE_EXPORTER_PORT: u16 = 9100;

/// Longest name of a host, in bytes.
const MAX_HOSTNAME: usize = 253;
/// Longest label, in bytes.
const MAX_LABEL: usize = 1024;
/// Most labels of a host.
const MAX_LABELS: usize = 1000;
/// Most bytes of all labels of a host: they are stored as one record.
const MAX_BYTES: usize = 48 << 10;

/// A host of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Host {
    pub(crate) hostname: String,
    /// Sorted, each once.
    pub(crate) labels: Vec<String>,
    /// Seconds of Unix time; 0 where the host speaks of itself.
    pub(crate) last_check: u64,
}

/// Why a host cannot be listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostError {
    #[error("the host's name {0:?} is empty, too long, or has control characters or spaces")]
    Hostname(String),
    #[error("the label {0:?} is empty, too long, or has control characters")]
    Label(String),
    #[error("{0} labels are too many: limit is {MAX_LABELS}")]
    Labels(usize),
    #[error("labels of {0} bytes are too long: limit is {MAX_BYTES}")]
    Bytes(usize),
}

impl Host {
    /// A host with these labels, in any order.
    pub(crate) fn new(hostname: String, mut labels: Vec<String>, last_check: u64) -> Result<Self, HostError> {
        if hostname.is_empty()
            || hostname.len() > MAX_HOSTNAME
            || hostname.contains(|c: char| c.is_control() || c == ' ')
        {
            return Err(HostError::Hostname(hostname));
        }
        if let Some(unfit) = labels.iter().find(|label| !is_label(label)) {
            return Err(HostError::Label(unfit.chars().take(MAX_LABEL).collect()));
        }
        labels.sort_unstable();
        labels.dedup();
        if labels.len() > MAX_LABELS {
            return Err(HostError::Labels(labels.len()));
        }
        let bytes = labels.iter().map(String::len).sum();
        if bytes > MAX_BYTES {
            return Err(HostError::Bytes(bytes));
        }
        Ok(Self { hostname, labels, last_check })
    }
}

impl From<&LobbyHost> for Host {
    fn from(LobbyHost { hostname, labels, seen, .. }: &LobbyHost) -> Self {
        Self { hostname: hostname.clone(), labels: labels.clone(), last_check: *seen }
    }
}

/// True of what can be a label.
pub(crate) fn is_label(label: &str) -> bool {
    !label.is_empty() && label.len() <= MAX_LABEL && !label.contains(|c: char| c.is_control() && c != '\t')
}

/// Why there is no list now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoList(pub(crate) String);

/// Why labels were not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LabelsError {
    /// The request is at fault.
    #[error("{0}")]
    Invalid(String),
    /// This side is.
    #[error("{0}")]
    Failed(String),
}

/// The hosts of another group, which are listed beside those of ours.
pub(crate) trait Others: Send + Sync + 'static {
    /// All of them, in the order of their names.
    fn hosts(&self) -> Result<Vec<LobbyHost>, NoList>;
}

/// Our hosts and those of others, in the order of their names. A name that is ours is not theirs.
pub(crate) fn beside(ours: Vec<LobbyHost>, mut others: Vec<LobbyHost>) -> Vec<LobbyHost> {
    let named: HashSet<&str> = ours.iter().map(|host| host.hostname.as_str()).collect();
    others.retain(|host| !named.contains(host.hostname.as_str()));
    others.extend(ours);
    others.sort_unstable_by(|one, other| one.hostname.cmp(&other.hostname));
    others
}

/// What to do with labels of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LabelsChange {
    Add,
    Delete,
}

/// A group, as one of its members sees it.
pub(crate) trait Group: Send + Sync + 'static {
    /// This host, as of now.
    fn own(&self) -> impl Future<Output = Result<Host, LabelsError>> + Send;

    /// All hosts, in the order of their names.
    fn hosts(&self) -> impl Future<Output = Result<Arc<[Host]>, NoList>> + Send;

    /// Changes the labels that this host was given at run time.
    fn change(&self, change: LabelsChange, labels: Vec<String>)
    -> impl Future<Output = Result<(), LabelsError>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_plain_name_and_its_labels_in_order_and_each_once() {
        let labels = ["b", "a", "b"].map(String::from).to_vec();
        let host = Host::new("h".into(), labels, 0).expect("fit");
        assert_eq!(host.labels, ["a", "b"]);
        for name in ["", "a b", "a\n", &"x".repeat(254)] {
            assert!(matches!(Host::new(name.into(), vec![], 0), Err(HostError::Hostname(_))), "{name:?}");
        }
        for label in ["", "a\nb", &"x".repeat(1025)] {
            assert!(matches!(Host::new("h".into(), vec![label.into()], 0), Err(HostError::Label(_))), "{label:?}");
        }
        let many = (0..=MAX_LABELS).map(|n| n.to_string()).collect();
        assert_eq!(Host::new("h".into(), many, 0), Err(HostError::Labels(MAX_LABELS + 1)));
        let long = (0..49).map(|n| format!("{n:1024}")).collect();
        assert_eq!(Host::new("h".into(), long, 0), Err(HostError::Bytes(49 << 10)));
    }
}
