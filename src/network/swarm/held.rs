//! The reservations that we hold at relays, or have asked for.

use std::collections::HashMap;

use libp2p::{Multiaddr, PeerId, Swarm, core::transport::ListenerId, multiaddr::Protocol};
use tokio::{sync::oneshot, time::Instant};

use crate::network::{
    config::RESERVATION,
    failure::NoReservation,
    swarm::{boxed::Boxed, build::Behaviour},
};

struct Reservation {
    /// The alias of the connection that the reservation is on.
    relay: PeerId,
    accepted: Option<oneshot::Sender<()>>,
    ended: oneshot::Sender<NoReservation>,
    /// When the relay last granted it.
    granted_at: Instant,
}

/// Each by the listener that libp2p has for it.
#[derive(Default)]
pub(crate) struct HeldReservations(HashMap<ListenerId, Reservation>);

impl HeldReservations {
    /// Reserves at the relay there, which has this alias.
    pub(crate) fn ask(
        &mut self,
        swarm: &mut Swarm<Boxed<Behaviour>>,
        at: Multiaddr,
        relay: PeerId,
        accepted: oneshot::Sender<()>,
        ended: oneshot::Sender<NoReservation>,
    ) {
        match swarm.listen_on(at.with(Protocol::P2p(relay)).with(Protocol::P2pCircuit)) {
            Ok(listener) => {
                let granted_at = Instant::now();
                self.0.insert(listener, Reservation { relay, accepted: Some(accepted), ended, granted_at });
            }
            Err(error) => {
                let _ = ended.send(NoReservation::of(&error));
            }
        }
    }

    /// A relay has granted what we asked for, or renewed it.
    pub(crate) fn on_granted(&mut self, relay: PeerId) {
        for held in self.0.values_mut().filter(|held| held.relay == relay) {
            held.granted_at = Instant::now();
            if let Some(accepted) = held.accepted.take() {
                let _ = accepted.send(());
            }
        }
    }

    /// A listener has closed. False if it was none of ours.
    pub(crate) fn on_closed(&mut self, listener: ListenerId, reason: &Result<(), std::io::Error>) -> bool {
        let Some(held) = self.0.remove(&listener) else { return false };
        let _ = held.ended.send(match reason {
            Ok(()) => NoReservation::lost("the relay is gone"),
            Err(error) => NoReservation::of(error),
        });
        true
    }

    /// Gives up those that nobody waits for. A relay that lost a reservation without our notice grants it no more.
    pub(crate) fn sweep(&self, swarm: &mut Swarm<Boxed<Behaviour>>) {
        let dead = |held: &Reservation| held.ended.is_closed() || held.granted_at.elapsed() > RESERVATION;
        for (listener, _) in self.0.iter().filter(|(_, held)| dead(held)) {
            swarm.remove_listener(*listener);
        }
    }
}
