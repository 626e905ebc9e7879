//! The messages of the register protocol, as values.

use serde::{Deserialize, Serialize};

use super::{Labels, Target, TargetError};
use crate::identity::PublicKey;

/// The name under which the protocol is negotiated on a link; it is also bound into the Noise handshake.
pub const REGISTER_PROTOCOL: &str = "/narthex/register/1";

/// What a client asks of a scraper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterRequest {
    /// States the peer's whole set of targets.
    Register(Register),
    /// Gives up every alias of the peer.
    Release,
    /// Asks how aliases stand, and claims none. A scraper that does not know it yet ends the stream.
    Probe(Probe),
}

/// The whole set of a peer's targets. Registering again renews; a target left out is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The host the peer runs on, as it says itself.
    pub hostname: String,
    /// Everything the peer wants listed.
    pub claims: Vec<Claim>,
}

/// Aliases to be looked at. Nothing changes by it, whoever asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Each to become an [`Alias`](super::Alias).
    pub aliases: Vec<String>,
}

/// One target as it came over the wire: nothing in it has been checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// To become an [`Alias`](super::Alias).
    pub alias: String,
    /// To become [`Target::service`].
    pub service: String,
    /// To become [`Labels`].
    pub labels: Vec<(String, String)>,
}

impl Claim {
    /// Checks every field.
    ///
    /// # Errors
    /// [`TargetError`] says which field cannot be listed.
    pub fn check(&self) -> Result<Target, TargetError> {
        let alias = self.alias.parse()?;
        Target::check_name("service", &self.service)?;
        let mut labels = Labels::default();
        for (name, value) in &self.labels {
            labels.insert(name, value)?;
        }
        Ok(Target { alias, service: self.service.clone(), labels })
    }
}

impl From<&Target> for Claim {
    fn from(target: &Target) -> Self {
        Self {
            alias: target.alias.to_string(),
            service: target.service.clone(),
            labels: target.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }
}

/// What a scraper answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterReply {
    /// The claims were looked at, one by one.
    Registered(Registered),
    /// Every alias of the peer is free again.
    Released,
    /// Too many registrations from this peer; try again after so many milliseconds.
    SlowDown {
        /// Milliseconds to wait.
        retry_after_ms: u64,
    },
    /// The scraper cannot answer now (its table is loading or its store is failing); try again later.
    Unavailable,
    /// The whole message is refused: it has too many claims, or an unfit host name.
    Malformed,
    /// The answer to [`Probe`].
    Probed(Probed),
}

/// How the aliases of a [`Probe`] stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// The scraper's clock, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// One per alias, in the order of the aliases.
    pub statuses: Vec<AliasStatus>,
}

/// How an alias stands at a scraper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AliasStatus {
    /// Nobody holds it.
    Free,
    /// Nobody holds it, and the table has no room for it.
    Full,
    /// It can never be held.
    Invalid,
    /// A peer holds it.
    Held {
        /// Which.
        holder: PublicKey,
        /// Whether the holder has a link now.
        linked: bool,
        /// What keeps another peer from taking it.
        guard: AliasGuard,
    },
}

/// What keeps a peer from taking an alias that another one holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AliasGuard {
    /// Nothing: it may be taken now.
    None,
    /// The holder's link, or that the scraper has just started and waits for its holders: policy `live`.
    Live,
    /// Its lease, until that is gone or released: policy `pinned`.
    Pinned,
}

/// The answer to [`Register`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Life of the leases in milliseconds, from now. Clients renew at a third of it.
    pub lease_ms: u64,
    /// One outcome per claim, in the order of the claims.
    pub outcomes: Vec<AliasOutcome>,
}

/// What became of one claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AliasOutcome {
    /// The alias is the peer's, on disk.
    Granted {
        /// True if the alias is new, or something about it changed; false for a plain renewal.
        updated: bool,
    },
    /// It is not.
    Refused(AliasRefusal),
}

/// Why an alias was not granted. A short code: details stay in the scraper's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum AliasRefusal {
    /// Another peer holds it and the alias policy protects it.
    #[error("taken: another peer holds this alias")]
    Taken,
    /// The alias, the service name or a label is not fit to be listed.
    #[error("invalid: the alias, the service or a label cannot be listed")]
    Invalid,
    /// The same alias stands twice in the message.
    #[error("duplicate: this alias is claimed twice")]
    Duplicate,
    /// The scraper's table is full.
    #[error("full: the scraper's table has no room")]
    Full,
}
