//! The limits that refuse work, and how often each did: for the metrics, and for the log.

use std::fmt::Display;

use prometheus_client::metrics::{counter::Counter, family::Family};

use super::{LabelValue, LogPace, label_values, metric::Label};

label_values! {
    /// A limit that refuses work, by the name of the setting that changes it, which is its flag's with underscores.
    pub(crate) enum Limit {
        Connections = "max_connections",
        ConnectionsPerPeer = "max_connections_per_peer",
        ConnectionsPerIp = "max_connections_per_ip",
        AnnouncementsPerNetwork = "max_announcements_per_network",
        RelayReservations = "relay_reservations",
        RelayCircuits = "relay_circuits",
        RelayCircuitsPerPeer = "relay_circuits_per_peer",
        DialBacks = "max_dial_backs",
        DialBacksPerPeer = "max_dial_backs_per_peer",
        Aliases = "max_aliases",
        AliasesPerPeer = "max_aliases_per_peer",
        AliasesPerSecret = "max_aliases_per_secret",
        Registrations = "max_registrations",
        RegistrationsPerIp = "max_registrations_per_ip",
        RegistrationsPerPeer = "max_registrations_per_peer",
        RegistrationRate = "max_registration_rate",
        WaitingRegistrations = "max_waiting_registrations",
        Strangers = "max_strangers_per_ip",
        SharedStrangers = "max_strangers_per_shared_ip",
        AliasBytes = "max_alias_bytes",
        PeerBytes = "max_peer_bytes",
        SecretBytes = "max_secret_bytes",
        TableBytes = "max_table_bytes",
        PullsPerAlias = "max_pulls_per_alias",
        PullsPerPeer = "max_pulls_per_peer",
        Scrapes = "max_scrapes",
        SdReaders = "max_sd_readers",
        HttpConnections = "max_http_connections",
        HttpConnectionsPerIp = "max_http_connections_per_ip",
        ConnectionsPerPrivateIp = "max_connections_per_private_ip",
        HalfOpen = "max_half_open",
        HalfOpenPerIp = "max_half_open_per_ip",
        HalfOpenPerPrivateIp = "max_half_open_per_private_ip",
    }
}

/// The refusals of every limit since the start.
#[derive(Debug)]
pub(crate) struct Refusals {
    #[cfg(any(feature = "scraper", feature = "node"))]
    family: Family<Label, Counter>,
    limits: Vec<Refused>,
}

/// The refusals of one limit.
#[derive(Debug)]
struct Refused {
    count: Counter,
    log: LogPace,
}

impl Refusals {
    pub(crate) fn new() -> Self {
        let family = Family::<Label, Counter>::default();
        let limit = |limit: &Limit| Refused {
            count: family.get_or_create_owned(&[("limit", limit.as_str())]),
            log: LogPace::default(),
        };
        Self {
            limits: Limit::ALL.iter().map(limit).collect(),
            #[cfg(any(feature = "scraper", feature = "node"))]
            family,
        }
    }

    /// Shows the counts as `limit_refusals_total`.
    #[cfg(any(feature = "scraper", feature = "node"))]
    pub(crate) fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        registry.register("limit_refusals", "Work that a limit refused", self.family.clone());
    }

    /// Counts one refusal, and logs the first within a minute. `what` says what was refused, in a text fit for the log.
    pub(crate) fn count(&self, limit: Limit, what: impl Display) {
        let refused = &self.limits[limit.index()];
        refused.count.inc();
        if let Some(count) = refused.log.due() {
            tracing::warn!(limit = limit.setting(), count, last = %what, "a limit refuses work; the next such line in a minute");
        }
    }

    #[cfg(test)]
    pub(crate) fn counted(&self, limit: Limit) -> u64 {
        self.limits[limit.index()].count.get()
    }
}

impl Limit {
    /// The name of the setting, as flags write it.
    pub(crate) fn setting(self) -> String {
        self.as_str().replace('_', "-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::check_labels;

    #[test]
    fn each_limit_has_a_label_of_its_own() {
        check_labels::<Limit>();
    }

    #[test]
    fn refusals_are_counted_by_their_limit() {
        let refusals = Refusals::new();
        (0..3).for_each(|_| refusals.count(Limit::ConnectionsPerIp, "192.0.2.7"));
        assert_eq!(refusals.counted(Limit::ConnectionsPerIp), 3);
    }
}
