//! Label values of the scraper's own metrics.

use crate::{
    telemetry::label_values,
    wire::{AliasOutcome, AliasRefusal},
};

label_values! {
    /// How a scrape through the scraper ended.
    pub(super) enum ScrapeOutcome {
        Ok = "ok",
        UnknownAlias = "unknown_alias",
        NotConnected = "not_connected",
        /// The link was lost before an answer began.
        Broken = "broken",
        Refused = "refused",
        /// The deadline passed before an answer began.
        Deadline = "deadline",
        /// The exposition stopped before its end.
        Cut = "cut",
        TooLarge = "too_large",
        /// Prometheus went away before the end.
        ClientGone = "client_gone",
        Overloaded = "overloaded",
        NotReady = "not_ready",
        BadRequest = "bad_request",
    }

    /// What became of a scrape that was asked of the other members of the group.
    pub(super) enum ForwardOutcome {
        /// An exposition began.
        Ok = "ok",
        /// No member has a link to the peer.
        NotLinked = "not_linked",
        /// A member has, and the pull failed.
        Failed = "failed",
        Busy = "busy",
        Deadline = "deadline",
    }

    /// How a request to the registration API ended.
    pub(super) enum BeaconOutcome {
        Registered = "registered",
        Updated = "updated",
        /// It said the same before.
        Renewed = "renewed",
        Unregistered = "unregistered",
        Listed = "listed",
        Unauthorized = "unauthorized",
        BadRequest = "bad_request",
        /// A limit of the table is reached.
        Full = "full",
        UnknownKind = "unknown_kind",
        Unavailable = "unavailable",
    }

    /// What became of a claim to an alias; from `SlowDown` on, of a whole message that was not looked into.
    pub(super) enum RegistrationOutcome {
        Updated = "updated",
        Renewed = "renewed",
        Taken = "taken",
        Invalid = "invalid",
        Duplicate = "duplicate",
        Full = "full",
        OutOfScope = "out_of_scope",
        SlowDown = "slow_down",
        Unavailable = "unavailable",
        Malformed = "malformed",
        Released = "released",
        Probed = "probed",
        /// The group was asked for.
        Group = "group",
        /// Another process holds the key.
        KeyInUse = "key_in_use",
    }

    /// Why a register handshake ended without a session.
    pub(super) enum HandshakeFailure {
        UnknownSecret = "unknown_secret",
        NotAdmitted = "not_admitted",
        BadProof = "bad_proof",
        /// The handshake's key is not the one that the link authenticated.
        WrongKey = "wrong_key",
        Malformed = "malformed",
        Timeout = "timeout",
        Broken = "broken",
        Busy = "busy",
    }

    /// How a request for the http_sd list was answered.
    pub(super) enum SdOutcome {
        Ok = "ok",
        /// The table is loading or its store fails: Prometheus keeps the list that it has.
        Unavailable = "unavailable",
        BadRequest = "bad_request",
        Overloaded = "overloaded",
    }

    /// How a write of the file_sd file went.
    pub(super) enum FileSdOutcome {
        Ok = "ok",
        /// The file is still what it was; the write will be tried again.
        Failed = "failed",
    }
}

impl From<&AliasOutcome> for RegistrationOutcome {
    fn from(outcome: &AliasOutcome) -> Self {
        match outcome {
            AliasOutcome::Granted { updated: true } => Self::Updated,
            AliasOutcome::Granted { updated: false } => Self::Renewed,
            AliasOutcome::Refused(AliasRefusal::Taken) => Self::Taken,
            AliasOutcome::Refused(AliasRefusal::Invalid) => Self::Invalid,
            AliasOutcome::Refused(AliasRefusal::Duplicate) => Self::Duplicate,
            AliasOutcome::Refused(AliasRefusal::Full) => Self::Full,
            AliasOutcome::Refused(AliasRefusal::OutOfScope) => Self::OutOfScope,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::check_labels;

    #[test]
    fn every_word_is_a_plain_label_value_at_its_own_index() {
        check_labels::<ScrapeOutcome>();
        check_labels::<ForwardOutcome>();
        check_labels::<RegistrationOutcome>();
        check_labels::<HandshakeFailure>();
        check_labels::<SdOutcome>();
        check_labels::<FileSdOutcome>();
    }
}
