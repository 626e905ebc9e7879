//! Why the network could not start, and why a peer could not be reached.
//!
//! Errors are data: who asks for the kind of an [`Attempt`] need not read its text. No text names a command-line flag:
//! the `narthex` command adds the flag that mends an error.

use std::{error::Error, fmt, io, sync::Arc};

use libp2p::noise;

use crate::{
    identity::{DialAddress, HostPort, PublicKey},
    network::links::status::LinkTransport,
};

/// Why the network could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// A listen address is used by another process, or belongs to another host.
    #[error("cannot listen on {address} (TCP and UDP)")]
    Listen {
        /// As the configuration has it.
        address: HostPort,
        /// The operating system's error.
        source: io::Error,
    },
    /// A listen address for WebSocket links is in use, perhaps by this process, or belongs to another host.
    #[error("cannot listen for WebSocket links on {address}")]
    ListenWebSocket {
        /// As the configuration has it.
        address: HostPort,
        /// The operating system's error.
        source: io::Error,
    },
    /// A scraper or a node that listens nowhere serves nobody.
    #[error("no listen address: a scraper or a node needs at least one, of a family that this host has")]
    NoListen,
    /// A bootstrap node without a dial address cannot be dialled.
    #[error("bootstrap node {0} needs its address: give it as <key>@<host>:<port>")]
    BootstrapAddress(PublicKey),
    /// A bootstrap node has the key of this peer itself.
    #[error("bootstrap node {0} is this peer's own key: give another node, or none")]
    BootstrapSelf(PublicKey),
    /// An external address is a name that does not resolve.
    #[error("external address {0} does not resolve")]
    External(DialAddress),
    /// A relay without a public address makes nobody reachable. An external address mends that.
    #[error("a relay needs an address that others reach it at: none of ours is public, and no external one is given")]
    RelayAddress,
    /// The system's networks cannot be listed.
    #[error("mDNS cannot be used here")]
    Mdns(#[source] io::Error),
    /// The transports could not be set up.
    #[error("cannot set up the transports")]
    Transport {
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Why there is no link to a peer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There was nothing to try: no dial address, and no way to find one.
    #[error("no address of peer {peer} is known: no dial address is given, no bootstrap node, and mDNS finds nothing")]
    NoAddress {
        /// The peer that was to be reached.
        peer: PublicKey,
    },
    /// Another peer answered at the address.
    #[error("{address} answered with another key: expected {peer}, found {found}")]
    WrongKey {
        /// The peer that was to be reached.
        peer: PublicKey,
        /// The address that was dialled.
        address: String,
        /// The key that answered.
        found: String,
    },
    /// No known address answered.
    #[error("peer {peer} cannot be reached ({})", list(attempts))]
    Unreachable {
        /// The peer that was to be reached.
        peer: PublicKey,
        /// Everything that was tried, in order; never empty.
        attempts: Vec<Attempt>,
    },
    /// The network has been shut down.
    #[error("the network is shut down")]
    Closed,
}

impl ConnectError {
    /// The caller gave up waiting for a link.
    #[cfg(feature = "cli")]
    pub(crate) fn timed_out(peer: PublicKey, waited: std::time::Duration) -> Self {
        let source = io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {waited:?}"));
        let attempts = vec![Attempt::without_address(AttemptKind::TimedOut, Some(Arc::new(source)))];
        Self::Unreachable { peer, attempts }
    }

    /// True if the other end, or something on the way, closed a connection that had been accepted.
    #[cfg(feature = "cli")]
    pub(crate) fn was_cut(&self) -> bool {
        let cut = |attempt: &Attempt| matches!(attempt.kind, AttemptKind::Cut | AttemptKind::NoRoom);
        matches!(self, Self::Unreachable { attempts, .. } if attempts.iter().any(cut))
    }
}

/// One way to a peer that was tried in vain.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// The address that was dialled; of a circuit, the relay's. None if no address was found to dial.
    pub address: Option<DialAddress>,
    /// The transport that was dialled.
    pub transport: Option<LinkTransport>,
    /// True if the way leads through a relay.
    pub relayed: bool,
    /// What came of it.
    pub kind: AttemptKind,
    /// The error below, if there is one.
    pub source: Option<Arc<dyn Error + Send + Sync>>,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttemptKind {
    /// Nobody listens at the address.
    Refused,
    /// The connection was accepted, and then closed before it was a link.
    Cut,
    /// The peer's host has no room for another connection from our address: `source` names its limit.
    NoRoom,
    /// No answer in time.
    TimedOut,
    /// The name does not resolve.
    Unresolved,
    /// The relay refused.
    Relay(RelayRefusal),
    /// No node holds an announcement of the peer.
    NotAnnounced,
    /// The peer is not in this local network, or does not announce itself there.
    NotNearby,
    /// Anything else: `source` has it.
    Other,
}

/// What a relay answered instead of granting a circuit or a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RelayRefusal {
    /// The relay carries as many circuits as it may.
    #[error("refused: too many circuits")]
    Circuits,
    /// The relay has granted as many reservations as it may.
    #[error("refused: too many reservations")]
    Reservations,
    /// The peer holds no reservation there.
    #[error("refused: the peer is not reachable through it")]
    NoReservation,
    /// The peer did not answer the relay.
    #[error("refused: the peer did not answer it, or has no room for a circuit")]
    NoAnswer,
    /// The relay does not serve us.
    #[error("refused: not permitted")]
    NotPermitted,
    /// The peer relays nothing.
    #[error("is no relay")]
    NoRelay,
}

impl Attempt {
    /// An attempt that ended before an address was dialled.
    pub(crate) fn without_address(kind: AttemptKind, source: Option<Arc<dyn Error + Send + Sync>>) -> Self {
        Self { address: None, transport: None, relayed: false, kind, source }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relay = if self.relayed { "relay at " } else { "" };
        match (&self.address, self.transport) {
            (Some(address @ DialAddress::HostPort(_)), Some(transport)) => {
                write!(f, "{relay}{address} {}: ", transport.as_str())?;
            }
            (Some(address), _) => write!(f, "{relay}{address}: ")?,
            (None, _) => {}
        }
        match (self.kind, &self.source) {
            (AttemptKind::Relay(refusal), _) => refusal.fmt(f),
            (AttemptKind::NotAnnounced, _) => f.write_str("not announced in the DHT"),
            (AttemptKind::NotNearby, _) => f.write_str("not found by mDNS"),
            (_, Some(source)) => innermost(source.as_ref()).fmt(f),
            (kind, None) => write!(f, "{kind:?}"),
        }
    }
}

fn list(attempts: &[Attempt]) -> String {
    attempts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// An error and its causes. libp2p wraps what a relay or the operating system answered many times over. An [`io::Error`]
/// and a Noise error give the source of what they wrap as their own: here the wrapped error comes first.
pub(crate) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let below = |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        if let Some(noise::Error::Io(wrapped)) = error.downcast_ref() {
            return Some(wrapped as &(dyn Error + 'static));
        }
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        }
    };
    std::iter::successors(Some(error), below)
}

/// The text of the last cause: what the operating system or the other end answered.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().unwrap_or(error).to_string()
}
