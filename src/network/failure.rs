//! What libp2p's errors mean, in words for people: it wraps what a relay or the operating system said many times over.

use std::{error::Error, io};

use libp2p::{
    relay::outbound::hop::{ConnectError, ReserveError},
    swarm::DialError,
};

use super::peer_id;

/// Why a dial failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DialFailure {
    #[error("the peer at {address} has another key: {found}")]
    WrongKey { address: String, found: String },
    #[error("{}", attempts.join("; "))]
    Unreachable { attempts: Vec<String> },
}

impl From<&DialError> for DialFailure {
    fn from(error: &DialError) -> Self {
        match error {
            DialError::WrongPeerId { obtained, address } => Self::WrongKey {
                address: peer_id::shown(address),
                found: peer_id::public_key(obtained).map_or_else(|| obtained.to_string(), |key| key.to_string()),
            },
            DialError::Transport(attempts) => {
                let told = attempts.iter().map(|(address, error)| {
                    let relay = if peer_id::is_relayed(address) { "relay at " } else { "" };
                    format!("{relay}{}: {}", peer_id::shown(address), why(error))
                });
                Self::Unreachable { attempts: told.collect() }
            }
            other => Self::Unreachable { attempts: vec![other.to_string()] },
        }
    }
}

/// Why a relay does not make us reachable, or no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoReservation {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Lost(String),
}

impl NoReservation {
    pub(crate) fn lost(why: &str) -> Self {
        Self::Lost(why.to_owned())
    }

    /// From the error that a listener on a relay ended with.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        refusal(error).map_or_else(|| Self::Lost(innermost(error)), Self::Refused)
    }
}

/// What a relay said instead of granting a circuit or a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("refused: too many circuits")]
    Circuits,
    #[error("refused: too many reservations")]
    Reservations,
    #[error("refused: the peer is not reachable through it")]
    NoReservation,
    #[error("refused: the peer did not answer it, or has no room for a circuit")]
    NoAnswer,
    #[error("refused: not permitted")]
    NotPermitted,
    #[error("is no relay")]
    NoRelay,
}

/// Looks for a relay's refusal among an error's causes.
fn refusal(error: &(dyn Error + 'static)) -> Option<Refusal> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(refusal) = error.downcast_ref().map(circuit).or_else(|| error.downcast_ref().map(reservation)) {
            return refusal;
        }
        at = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            // Its source would be the source of what it wraps.
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

fn circuit(error: &ConnectError) -> Option<Refusal> {
    match error {
        ConnectError::ResourceLimitExceeded => Some(Refusal::Circuits),
        ConnectError::NoReservation => Some(Refusal::NoReservation),
        ConnectError::ConnectionFailed => Some(Refusal::NoAnswer),
        ConnectError::PermissionDenied => Some(Refusal::NotPermitted),
        ConnectError::Unsupported => Some(Refusal::NoRelay),
        ConnectError::Io(_) | ConnectError::Protocol(_) => None,
    }
}

fn reservation(error: &ReserveError) -> Option<Refusal> {
    match error {
        ReserveError::ResourceLimitExceeded => Some(Refusal::Reservations),
        ReserveError::Refused => Some(Refusal::NotPermitted),
        ReserveError::Unsupported => Some(Refusal::NoRelay),
        ReserveError::Io(_) | ReserveError::Protocol(_) => None,
    }
}

/// What the relay or the operating system said.
fn why(error: &(dyn Error + 'static)) -> String {
    refusal(error).map_or_else(|| innermost(error), |refusal| refusal.to_string())
}

/// What the operating system said is at the bottom.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}
