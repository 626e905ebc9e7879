//! What a relay's refusal means, in words for people.

use std::{error::Error, io};

use libp2p::relay::outbound::hop::{ConnectError, ReserveError};

/// Looks for a relay's refusal of a circuit or of a reservation among an error's causes.
pub(super) fn by_relay(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(words) = error.downcast_ref().map(circuit).or_else(|| error.downcast_ref().map(reservation)) {
            return words;
        }
        at = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            // Its source would be the source of what it wraps.
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

fn circuit(error: &ConnectError) -> Option<&'static str> {
    match error {
        ConnectError::ResourceLimitExceeded => Some("refused: too many circuits"),
        ConnectError::NoReservation => Some("refused: the peer is not reachable through it"),
        ConnectError::ConnectionFailed => Some("refused: the peer did not answer it, or has no room for a circuit"),
        ConnectError::PermissionDenied => Some("refused: not permitted"),
        ConnectError::Unsupported => Some("is no relay"),
        ConnectError::Io(_) | ConnectError::Protocol(_) => None,
    }
}

fn reservation(error: &ReserveError) -> Option<&'static str> {
    match error {
        ReserveError::ResourceLimitExceeded => Some("refused: too many reservations"),
        ReserveError::Refused => Some("refused: not permitted"),
        ReserveError::Unsupported => Some("is no relay"),
        ReserveError::Io(_) | ReserveError::Protocol(_) => None,
    }
}
