//! The reservations that we hold at relays, or have asked for.

use std::collections::HashMap;

use libp2p::{PeerId, Swarm, core::transport::ListenerId};
use tokio::{sync::oneshot, time::Instant};

use crate::network::{
    address::Circuit,
    config::RESERVATION,
    failure::NoReservation,
    peer_id,
    swarm::{boxed::Boxed, build::Behaviour},
};

struct Reservation {
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
    pub(crate) fn ask(
        &mut self,
        swarm: &mut Swarm<Boxed<Behaviour>>,
        circuit: &Circuit,
        accepted: oneshot::Sender<()>,
        ended: oneshot::Sender<NoReservation>,
    ) {
        match swarm.listen_on(circuit.address()) {
            Ok(listener) => {
                let (relay, granted_at) = (peer_id::peer_id(&circuit.relay), Instant::now());
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
