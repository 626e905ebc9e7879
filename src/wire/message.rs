//! The messages of the register protocol, as values.

use std::mem;

use serde::{Deserialize, Serialize};

use super::{GroupMember, Labels, Target, TargetError};
use crate::identity::PublicKey;

/// The protocol's name on a link. The Noise handshake is bound to this name.
pub const REGISTER_PROTOCOL: &str = "/narthex/register/1";

/// A client's request to a scraper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterRequest {
    /// Registers the peer's whole set of targets.
    Register(Register),
    /// Releases every alias of the peer.
    Release,
    /// Asks for the status of aliases and claims none. Scrapers of earlier versions end the stream.
    Probe(Probe),
    /// As [`Register`](Self::Register), from a process that says which it is. Scrapers of earlier versions end the stream.
    RegisterFrom(RegisterFrom),
    /// As [`Release`](Self::Release), from a process that says which it is. Scrapers of earlier versions end the stream.
    ReleaseFrom(InstanceId),
    /// Asks for the other scrapers of the group. Scrapers of earlier versions end the stream.
    Group,
    /// As [`RegisterFrom`](Self::RegisterFrom), with targets that stand in no list. Scrapers of earlier versions end the stream.
    RegisterUnlisted(RegisterUnlisted),
    /// Asks for these bytes again, to see whether long packets pass in both directions. Changes nothing. Scrapers of earlier
    /// versions end the stream.
    Echo(Vec<u8>),
}

/// The whole set of a peer's targets. Registering again renews; a target left out is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The host of the peer, by the peer's own account.
    pub hostname: String,
    /// Everything the peer wants listed.
    pub claims: Vec<Claim>,
}

/// A registration, and which process it is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterFrom {
    /// The targets.
    pub register: Register,
    /// The process.
    pub instance: InstanceId,
    /// True if the peer keeps its key across restarts: its aliases are then not given away while it is only cut off.
    pub kept: bool,
}

/// A registration of which some targets stand in no list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterUnlisted {
    /// The targets, and which process they are from.
    pub from: RegisterFrom,
    /// Their places among the claims, from 0.
    pub unlisted: Vec<u32>,
}

impl From<RegisterFrom> for RegisterRequest {
    /// The request that says all of it, and that the most scrapers know.
    fn from(mut from: RegisterFrom) -> Self {
        let marked = (0..)
            .zip(&mut from.register.claims)
            .filter_map(|(place, claim)| mem::take(&mut claim.unlisted).then_some(place));
        let unlisted: Vec<u32> = marked.collect();
        match unlisted.is_empty() {
            true => Self::RegisterFrom(from),
            false => Self::RegisterUnlisted(RegisterUnlisted { from, unlisted }),
        }
    }
}

impl From<RegisterUnlisted> for RegisterFrom {
    /// The registration with the marks at its claims. A place that no claim has marks nothing.
    fn from(RegisterUnlisted { mut from, unlisted }: RegisterUnlisted) -> Self {
        for place in unlisted {
            if let Some(claim) = from.register.claims.get_mut(place as usize) {
                claim.unlisted = true;
            }
        }
        from
    }
}

/// Names one run of a process, at random: it tells a process that reconnects from another one with the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InstanceId(pub [u8; 16]);

/// Aliases whose status is asked. Changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Unchecked [`Alias`](super::Alias)es.
    pub aliases: Vec<String>,
}

/// One target from the wire, unchecked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// An unchecked [`Alias`](super::Alias).
    pub alias: String,
    /// An unchecked [`Target::service`].
    pub service: String,
    /// Unchecked [`Labels`].
    pub labels: Vec<(String, String)>,
    /// True if the target stands in no list. Crosses the wire in [`RegisterUnlisted`].
    #[serde(skip)]
    pub unlisted: bool,
}

impl Claim {
    /// Checks every field.
    ///
    /// # Errors
    /// [`TargetError`] names the field that cannot be listed.
    pub fn check(&self) -> Result<Target, TargetError> {
        let alias = self.alias.parse()?;
        Target::check_name("service", &self.service)?;
        let mut labels = Labels::default();
        for (name, value) in &self.labels {
            labels.insert(name, value)?;
        }
        Ok(Target { alias, service: self.service.clone(), labels, listed: !self.unlisted })
    }
}

impl From<&Target> for Claim {
    fn from(target: &Target) -> Self {
        Self {
            alias: target.alias.to_string(),
            service: target.service.clone(),
            labels: target.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            unlisted: !target.listed,
        }
    }
}

/// A scraper's reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterReply {
    /// Each claim was granted or refused.
    Registered(Registered),
    /// Every alias of the peer is free.
    Released,
    /// The peer registers too often.
    SlowDown {
        /// Milliseconds to wait before the next attempt.
        retry_after_ms: u64,
    },
    /// The scraper cannot answer now: its table is loading or its store is failing.
    Unavailable,
    /// The whole message is refused: too many claims, or an invalid host name.
    Malformed,
    /// The reply to [`Probe`].
    Probed(Probed),
    /// The reply to [`RegisterFrom`] and [`InstanceId`]: another running process has the peer's key. Nothing has changed.
    InUse,
    /// As [`Registered`](Self::Registered), and another process with the same key was refused lately.
    Contested(Registered),
    /// The reply to [`Group`](RegisterRequest::Group): the other scrapers, none if there is no group.
    Group(Vec<GroupMember>),
    /// The reply to [`Echo`](RegisterRequest::Echo).
    Echo(Vec<u8>),
}

/// The status of the aliases of a [`Probe`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// The scraper's clock, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// One per alias, in the order of the aliases.
    pub statuses: Vec<AliasStatus>,
}

/// The status of an alias at a scraper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AliasStatus {
    /// Nobody holds the alias.
    Free,
    /// Nobody holds the alias, and the table has no room for another.
    Full,
    /// The text is no valid alias.
    Invalid,
    /// A peer holds the alias.
    Held {
        /// The holder.
        holder: PublicKey,
        /// True if the holder has a link now.
        linked: bool,
        /// What protects the alias from other peers.
        guard: AliasGuard,
    },
}

/// What protects a held alias from other peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AliasGuard {
    /// Nothing: another peer may take the alias now.
    None,
    /// The holder's link, its lease if it keeps its key, or a grace after either: policy `live`.
    Live,
    /// The lease, until it is gone or released: policy `pinned`.
    Pinned,
}

/// The reply to [`Register`] and [`RegisterFrom`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Life of the leases in milliseconds, from now. Clients renew at a third of it.
    pub lease_ms: u64,
    /// One outcome per claim, in the order of the claims.
    pub outcomes: Vec<AliasOutcome>,
}

/// The outcome of one claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AliasOutcome {
    /// The peer holds the alias, and the lease is on disk.
    Granted {
        /// True if the alias is new or has changed; false for a plain renewal.
        updated: bool,
    },
    /// The claim is refused.
    Refused(AliasRefusal),
}

/// Why a claim was refused. A short code: details stay in the scraper's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum AliasRefusal {
    /// Another peer holds the alias and the alias policy protects it.
    #[error("taken: another peer holds this alias")]
    Taken,
    /// The alias, the service name or a label cannot be listed, or they are too long together.
    #[error("invalid: the alias, the service or a label cannot be listed, or they are too long together")]
    Invalid,
    /// The message has the same alias twice.
    #[error("duplicate: this alias is claimed twice")]
    Duplicate,
    /// The scraper's table, or the peer's share of it, is full.
    #[error("full: the scraper's table, or this client's share of it, has no room")]
    Full,
    /// The client's secret or ticket is not for this alias. Clients of earlier versions cannot read the reply.
    #[error("out of scope: this client's ticket, secret or key is for other aliases")]
    OutOfScope,
}
