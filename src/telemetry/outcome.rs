//! The words that stand as label values in the scraper's own metrics.

use super::word::words;
use crate::wire::{AliasOutcome, AliasRefusal};

words! {
    /// How a scrape through the scraper ended.
    pub enum ScrapeOutcome {
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
        /// Whoever asked went away before the end.
        ClientGone = "client_gone",
        /// Too many scrapes at once.
        Overloaded = "overloaded",
        /// The table of aliases is not loaded yet.
        NotReady = "not_ready",
        /// The request itself makes no sense.
        BadRequest = "bad_request",
    }
}

words! {
    /// What became of a claim to an alias, or of a whole registration that was not looked into.
    pub enum RegistrationOutcome {
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

words! {
    /// Why a register handshake ended without a session.
    pub enum HandshakeRefusal {
        /// No secret with that id is known here.
        UnknownSecret = "unknown_secret",
        /// The proof of the secret does not verify.
        BadProof = "bad_proof",
        /// The handshake's key is not the one that the link authenticated.
        WrongKey = "wrong_key",
        /// Bytes that are no handshake.
        Malformed = "malformed",
        /// It took too long.
        Timeout = "timeout",
        /// The link was lost meanwhile.
        Broken = "broken",
        /// Too many handshakes at once.
        Busy = "busy",
    }
}

words! {
    /// How a request for the http_sd list was answered.
    pub enum SdOutcome {
        /// With the list.
        Ok = "ok",
        /// The table is loading or its store fails: Prometheus keeps the list that it has.
        Unavailable = "unavailable",
        /// A filter that is none.
        BadRequest = "bad_request",
    }
}

words! {
    /// How a write of the file_sd file went.
    pub enum FileSdOutcome {
        /// The file holds the list.
        Ok = "ok",
        /// The file is still what it was; the write will be tried again.
        Failed = "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::word::check, *};

    #[test]
    fn every_word_is_a_plain_label_value_at_its_own_index() {
        check::<ScrapeOutcome>();
        check::<RegistrationOutcome>();
        check::<HandshakeRefusal>();
        check::<SdOutcome>();
        check::<FileSdOutcome>();
    }
}
