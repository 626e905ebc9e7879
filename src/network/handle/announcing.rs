//! What a scraper asks: to be found by its key, and to be reached through relays.

use std::time::Duration;

use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time,
};

use super::Network;
use crate::{
    identity::PublicKey,
    network::{
        command::{Command, Holders},
        error::ConnectError,
        failure::{Closed, NoReservation},
        links::connection::LinkId,
        observation::Observation,
        reach::Reach,
    },
    wire::Announcement,
};

/// A relay reports how it sees us within one round trip.
const IDENTIFY: Duration = Duration::from_secs(1);
/// A relay grants or refuses a reservation within one round trip.
const GRANT: Duration = Duration::from_secs(5);

impl Network {
    /// What peers report, from now on.
    pub(crate) fn observations(&self) -> broadcast::Receiver<Observation> {
        self.observations.subscribe()
    }

    /// Where others may reach us, as it changes.
    pub(crate) fn reach(&self) -> watch::Receiver<Reach> {
        self.dialler.reach.clone()
    }

    /// Asks the DHT where a peer is: the nodes' answers as they come, each verified.
    ///
    /// # Errors
    /// [`ConnectError`] if no bootstrap node can be reached.
    pub(crate) async fn lookup(&self, peer: &PublicKey) -> Result<mpsc::Receiver<Announcement>, ConnectError> {
        self.dialler.lookup(peer).await
    }

    /// Hands our signed announcement to nodes. Returns when they have answered; what they hold shows only in a look-up.
    pub(crate) async fn put(&self, peer: PublicKey, signed: Vec<u8>, to: Holders) {
        let (done, answered) = oneshot::channel();
        if self.dialler.command(Command::Put { peer, signed, to, done }).await.is_ok() {
            let _ = answered.await;
        }
    }

    /// How many nodes hold our announcement: written by the task that announces.
    pub(crate) fn announced_to(&self) -> &watch::Sender<usize> {
        &self.announced
    }

    /// How many nodes held our announcement when they were last asked for it.
    pub(crate) fn holders(&self) -> usize {
        *self.announced.borrow()
    }

    /// Remembers from where a peer came that has proved a secret.
    pub(crate) fn has_proved(&self, peer: &PublicKey) {
        self.links().networks(peer).into_iter().for_each(|network| self.proved.note(network));
    }

    /// Returns once our addresses are in the DHT.
    pub(crate) async fn announced(&self) {
        let _ = self.announced.subscribe().wait_for(|holders| *holders > 0).await;
    }

    /// Asks a node for a reservation, on this connection to it. Returns once the relay has granted it; the receiver gets the reason of its
    /// end, and the reservation is given up when the receiver is dropped.
    pub(crate) async fn reserve(
        &self,
        relay: PublicKey,
        link: LinkId,
    ) -> Result<oneshot::Receiver<NoReservation>, NoReservation> {
        // Circuits come at once, and each takes our addresses along for its punch: they have to be known by then.
        let _ = time::timeout(IDENTIFY, self.links().identified(&relay)).await;
        let (accepted, granted) = oneshot::channel();
        let (ended, mut end) = oneshot::channel();
        self.dialler.command(Command::Reserve { link, accepted, ended }).await?;
        tokio::select! {
            granted = time::timeout(GRANT, granted) => match granted {
                Ok(Ok(())) => Ok(end),
                Ok(Err(_)) => Err(end.await.unwrap_or_else(|_| Closed.into())),
                Err(_) => {
                    // The connection is dead, and blocks a working one.
                    self.close(link, "a relay did not answer on it").await;
                    Err(NoReservation::lost("no answer"))
                }
            },
            why = &mut end => Err(why.unwrap_or_else(|_| Closed.into())),
        }
    }
}
