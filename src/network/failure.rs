//! What libp2p's errors mean.

use std::{error::Error, io, sync::Arc};

use libp2p::{
    Multiaddr, TransportError,
    relay::outbound::hop::{ConnectError as CircuitError, ReserveError},
    swarm::DialError,
};

use crate::network::{
    address,
    error::{Attempt, AttemptKind, RelayRefusal, causes, innermost},
    links::status::LinkTransport,
    peer_id,
    transport::refusal::NoRoom,
};

/// QUIC's errors for a connection that the other end has closed, by their text: libp2p's wrappers hide their type, and
/// `libp2p-quic` 0.14 hides quinn's below it.
const QUIC_CUT: [&str; 2] = ["aborted by peer", "closed by peer"];

/// The errors of QUIC's limit on a handshake and of libp2p's, by their text: libp2p's wrappers hide their type.
const HANDSHAKE_TIMEOUTS: [&str; 2] = ["Handshake with the remote timed out", "Timeout has been reached"];

#[derive(Clone, Debug)]
pub(crate) enum DialFailure {
    WrongKey { address: String, found: String },
    Unreachable { attempts: Vec<Attempt> },
}

impl From<DialError> for DialFailure {
    fn from(error: DialError) -> Self {
        match error {
            DialError::WrongPeerId { obtained, address } => Self::WrongKey {
                address: address::display(&address),
                found: peer_id::public_key(&obtained).map_or_else(|| obtained.to_string(), |key| key.to_string()),
            },
            DialError::Transport(attempts) => {
                Self::Unreachable { attempts: attempts.into_iter().map(|(to, error)| attempt(&to, error)).collect() }
            }
            other => {
                let attempt = Attempt::without_address(AttemptKind::Other, Some(Arc::new(other)));
                Self::Unreachable { attempts: vec![attempt] }
            }
        }
    }
}

fn attempt(to: &Multiaddr, error: TransportError<io::Error>) -> Attempt {
    Attempt {
        address: address::dial_address(to),
        transport: Some(LinkTransport::of(to)),
        relayed: address::is_relayed(to),
        kind: kind(&error),
        source: Some(Arc::new(error)),
    }
}

/// What an error means: a relay's refusal among its causes, or the kind of the operating system's error.
fn kind(error: &(dyn Error + 'static)) -> AttemptKind {
    if let Some(refusal) = refusal(error) {
        return AttemptKind::Relay(refusal);
    }
    if causes(error).any(|cause| cause.is::<NoRoom>()) {
        return AttemptKind::NoRoom;
    }
    let kinds = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kinds.filter(|kind| *kind != io::ErrorKind::Other).last() {
        Some(io::ErrorKind::ConnectionRefused) => return AttemptKind::Refused,
        Some(
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof,
        ) => return AttemptKind::Cut,
        Some(io::ErrorKind::TimedOut) => return AttemptKind::TimedOut,
        _ => {}
    }
    let text = innermost(error);
    if QUIC_CUT.iter().any(|cut| text.starts_with(cut)) {
        AttemptKind::Cut
    } else if HANDSHAKE_TIMEOUTS.iter().any(|timeout| text.starts_with(timeout)) {
        AttemptKind::TimedOut
    } else {
        AttemptKind::Other
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the network is shut down")]
pub(crate) struct Closed;

/// Why a relay does not make us reachable, or no longer.
#[cfg(feature = "scraper")]
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoReservation {
    #[error(transparent)]
    Refused(#[from] RelayRefusal),
    #[error("{0}")]
    Lost(String),
    #[error(transparent)]
    Closed(#[from] Closed),
}

#[cfg(feature = "scraper")]
impl NoReservation {
    pub(crate) fn lost(why: &str) -> Self {
        Self::Lost(why.to_owned())
    }

    /// From the error that a listener on a relay ended with.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        refusal(error).map_or_else(|| Self::Lost(innermost(error)), Self::Refused)
    }
}

/// A relay's refusal among an error's causes.
fn refusal(error: &(dyn Error + 'static)) -> Option<RelayRefusal> {
    causes(error)
        .find_map(|cause| cause.downcast_ref().map(circuit).or_else(|| cause.downcast_ref().map(reservation)))
        .flatten()
}

fn circuit(error: &CircuitError) -> Option<RelayRefusal> {
    match error {
        CircuitError::ResourceLimitExceeded => Some(RelayRefusal::Circuits),
        CircuitError::NoReservation => Some(RelayRefusal::NoReservation),
        CircuitError::ConnectionFailed => Some(RelayRefusal::NoAnswer),
        CircuitError::PermissionDenied => Some(RelayRefusal::NotPermitted),
        CircuitError::Unsupported => Some(RelayRefusal::NoRelay),
        CircuitError::Io(_) | CircuitError::Protocol(_) => None,
    }
}

fn reservation(error: &ReserveError) -> Option<RelayRefusal> {
    match error {
        ReserveError::ResourceLimitExceeded => Some(RelayRefusal::Reservations),
        ReserveError::Refused => Some(RelayRefusal::NotPermitted),
        ReserveError::Unsupported => Some(RelayRefusal::NoRelay),
        ReserveError::Io(_) | ReserveError::Protocol(_) => None,
    }
}

/// The operating system's error below libp2p's.
pub(crate) fn os_error(error: &(dyn Error + 'static)) -> io::Error {
    let code = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).find_map(io::Error::raw_os_error);
    code.map_or_else(|| io::Error::other(innermost(error)), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures::{future, io::AsyncReadExt};
    use libp2p::{
        Transport,
        core::{
            Endpoint, StreamMuxer,
            muxing::StreamMuxerExt,
            transport::{DialOpts, ListenerId, PortUse, TransportEvent},
        },
        identity::Keypair,
        quic,
    };

    use super::*;

    #[test]
    fn the_kind_of_an_attempt_is_that_of_its_cause() {
        let wrapped = |kind: io::ErrorKind| TransportError::Other(io::Error::other(io::Error::from(kind)));
        for (error, expected) in [
            (wrapped(io::ErrorKind::ConnectionRefused), AttemptKind::Refused),
            (wrapped(io::ErrorKind::UnexpectedEof), AttemptKind::Cut),
            (wrapped(io::ErrorKind::ConnectionReset), AttemptKind::Cut),
            (wrapped(io::ErrorKind::TimedOut), AttemptKind::TimedOut),
            (wrapped(io::ErrorKind::OutOfMemory), AttemptKind::Other),
            (
                TransportError::Other(io::Error::other(CircuitError::NoReservation)),
                AttemptKind::Relay(RelayRefusal::NoReservation),
            ),
        ] {
            assert_eq!(kind(&error), expected, "{error}");
        }
    }

    async fn next(transport: &mut quic::tokio::Transport) -> TransportEvent<quic::Connecting, quic::Error> {
        future::poll_fn(|cx| Pin::new(&mut *transport).poll(cx)).await
    }

    /// Fails where an update of `libp2p-quic` or quinn changes the text, or gives us the type.
    #[tokio::test]
    async fn a_quic_connection_that_the_other_end_closes_is_cut() {
        let transport = || quic::tokio::Transport::new(quic::Config::new(&Keypair::generate_ed25519()));
        let (mut near, mut far) = (transport(), transport());
        let any = "/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("an address");
        far.listen_on(ListenerId::next(), any).expect("listens");
        let TransportEvent::NewAddress { listen_addr, .. } = next(&mut far).await else { panic!("no address") };
        let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let dialled = near.dial(listen_addr, options).expect("dials");
        let (dialled, accepted) = future::join(dialled, async {
            let TransportEvent::Incoming { upgrade, .. } = next(&mut far).await else { panic!("nobody comes") };
            upgrade.await.expect("a connection").1
        })
        .await;
        let (mut connection, other) = (dialled.expect("a connection").1, accepted);
        other.close().await.expect("closes");
        let error = loop {
            match future::poll_fn(|cx| Pin::new(&mut connection).poll_inbound(cx)).await {
                Ok(mut stream) => drop(stream.read(&mut [0]).await),
                Err(error) => break error,
            }
        };
        assert_eq!(kind(&io::Error::other(error)), AttemptKind::Cut);
    }
}
