//! Farewells: a peer gives up its aliases over the link that it has, before it ends.
//!
//! They have places of their own, so that no crowd of registrations keeps them waiting. A peer has one at a time; peers that
//! hold nothing have few places together, and are answered without a look at the table.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time;

use super::Registrar;
use crate::{
    identity::PublicKey,
    network::InboundStream,
    wire::{
        FarewellAnswer, RegisterReply,
        farewell::{answer, hear},
    },
};

/// From a stream's opening to the last byte of a farewell, which both come in one flight; and for the answer to be sent.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Farewells at once of peers that hold no alias.
const STRANGERS: usize = 64;

/// The peers whose farewell is under way, and whether each holds an alias.
#[derive(Clone, Default)]
pub(super) struct Farewells(Arc<Mutex<HashMap<PublicKey, bool>>>);

/// Frees the place when dropped.
struct Place {
    farewells: Farewells,
    peer: PublicKey,
}

impl Farewells {
    fn begin(&self, peer: PublicKey, holder: bool) -> Option<Place> {
        let mut under_way = self.under_way();
        let full = !holder && under_way.values().filter(|holder| !**holder).count() >= STRANGERS;
        if full || under_way.contains_key(&peer) {
            return None;
        }
        under_way.insert(peer, holder);
        Some(Place { farewells: self.clone(), peer })
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<PublicKey, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.farewells.under_way().remove(&self.peer);
    }
}

impl Registrar {
    /// Answers a farewell. The link has authenticated the peer, which can give up only what its own key holds.
    pub(super) async fn farewell(&self, inbound: InboundStream) {
        let InboundStream { peer, mut stream } = inbound;
        let (link, holder) = (stream.link(), self.registry.is_holder(&peer));
        let Some(_place) = self.farewells.begin(peer, holder) else {
            tracing::debug!(%peer, "no place for a farewell");
            return;
        };
        let Ok(Ok(instance)) = time::timeout(TIMEOUT, hear(&mut stream)).await else {
            tracing::debug!(%peer, "a farewell broke off");
            return;
        };
        let released = match holder {
            true => self.release(peer, Some(instance), link).await,
            false => Ok(0),
        };
        let reply = match released {
            Ok(aliases) => FarewellAnswer::Released(u32::try_from(aliases).unwrap_or(u32::MAX)),
            Err(RegisterReply::InUse) => FarewellAnswer::InUse,
            Err(_) => FarewellAnswer::Unavailable,
        };
        // The peer that does not hear the answer asks again, or has gone.
        let _ = time::timeout(TIMEOUT, answer(&mut stream, reply)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyPair;

    #[test]
    fn a_peer_has_one_farewell_at_a_time_and_strangers_leave_the_holders_room() {
        let farewells = Farewells::default();
        let peer = || KeyPair::generate().public();
        let holder = peer();
        let first = farewells.begin(holder, true).expect("a place");
        assert!(farewells.begin(holder, true).is_none(), "one at a time");
        let strangers: Vec<Place> = std::iter::from_fn(|| farewells.begin(peer(), false)).collect();
        assert_eq!(strangers.len(), STRANGERS);
        assert!(farewells.begin(peer(), true).is_some(), "holders have their own");
        drop((first, strangers));
        assert!(farewells.under_way().is_empty());
    }
}
