//! Label values of the scraper's own metrics.

use crate::{
    telemetry::label_values,
    wire::{AliasOutcome, AliasRefusal},
};

label_values! {
    /// How a scrape through the scraper ended.
    pub(super) enum ScrapeOutcome {
        /// The whole exposition was handed on.
        Ok = "ok",
        /// No peer holds the alias.
        UnknownAlias = "unknown_alias",
        /// The peer has no link.
        NotConnected = "not_connected",
        /// The link was lost before an answer began.
        Broken = "broken",
        /// The peer answered with an error.
        Refused = "refused",
        /// The deadline passed before an answer began.
        Deadline = "deadline",
        /// The exposition stopped before its end.
        Cut = "cut",
        /// The exposition is larger than the limit.
        TooLarge = "too_large",
        /// Prometheus went away before the end.
        ClientGone = "client_gone",
        /// Too many scrapes at once.
        Overloaded = "overloaded",
        /// The table of aliases is not loaded yet.
        NotReady = "not_ready",
        /// The request itself makes no sense.
        BadRequest = "bad_request",
    }
}

label_values! {
    /// What became of a claim to an alias, or of a whole registration that was not looked into.
    pub(super) enum RegistrationOutcome {
        /// Granted, and new or changed.
        Updated = "updated",
        /// Granted as it was.
        Renewed = "renewed",
        /// Another peer holds the alias.
        Taken = "taken",
        /// The alias, the service or a label cannot be listed.
        Invalid = "invalid",
        /// Claimed twice in one message.
        Duplicate = "duplicate",
        /// The table has no room.
        Full = "full",
        /// A whole message: the peer registers too often.
        SlowDown = "slow_down",
        /// A whole message: the table is loading or its store fails.
        Unavailable = "unavailable",
        /// A whole message: too many claims, or an unfit host name.
        Malformed = "malformed",
        /// A whole message: the peer gave up its aliases.
        Released = "released",
        /// A whole message: the peer asked how aliases stand.
        Probed = "probed",
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
        }
    }
}

label_values! {
    /// Why a register handshake ended without a session.
    pub(super) enum HandshakeFailure {
        /// No secret with that id is known here.
        UnknownSecret = "unknown_secret",
        /// The proof of the secret does not verify.
        BadProof = "bad_proof",
        /// The handshake's key is not the one that the link authenticated.
        WrongKey = "wrong_key",
        /// Bytes that are no handshake.
        Malformed = "malformed",
        /// The handshake took too long.
        Timeout = "timeout",
        /// The link was lost meanwhile.
        Broken = "broken",
        /// Too many handshakes at once.
        Busy = "busy",
    }
}

label_values! {
    /// How a request for the http_sd list was answered.
    pub(super) enum SdOutcome {
        /// With the list.
        Ok = "ok",
        /// The table is loading or its store fails: Prometheus keeps the list that it has.
        Unavailable = "unavailable",
        /// A filter that is none.
        BadRequest = "bad_request",
    }
}

label_values! {
    /// How a write of the file_sd file went.
    pub(super) enum FileSdOutcome {
        /// The file holds the list.
        Ok = "ok",
        /// The file is still what it was; the write will be tried again.
        Failed = "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::check_labels;

    #[test]
    fn every_word_is_a_plain_label_value_at_its_own_index() {
        check_labels::<ScrapeOutcome>();
        check_labels::<RegistrationOutcome>();
        check_labels::<HandshakeFailure>();
        check_labels::<SdOutcome>();
        check_labels::<FileSdOutcome>();
    }
}
