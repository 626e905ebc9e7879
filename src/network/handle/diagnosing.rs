//! What `narthex doctor` asks.

use std::{net::SocketAddr, time::Duration};

use tokio::time;

use super::Network;
use crate::{
    identity::{HostPort, PeerAddr, PublicKey},
    network::{
        address, error::ConnectError, failure::NoReservation, links::status::LinkTransport, whereabouts::Whereabouts,
    },
};

/// After the first answer of a look-up: other nodes answer about as fast, and a dead one would be waited for.
const LATER_ANSWERS: Duration = Duration::from_secs(1);

impl Network {
    /// Links a peer at its given dial address alone, over one transport.
    pub(crate) async fn connect_over(&self, peer: &PeerAddr, transport: LinkTransport) -> Result<(), ConnectError> {
        self.dialler.connect_over(peer, transport).await
    }

    /// True if TCP to a host goes through a proxy.
    pub(crate) fn is_proxied(&self, to: &HostPort) -> bool {
        self.dialler.is_proxied(to)
    }

    /// The addresses of this host that we listen on, each with its transport.
    pub(crate) fn ends(&self) -> Vec<(LinkTransport, SocketAddr)> {
        let reach = self.dialler.reach.borrow();
        let own = reach.listeners.iter().filter(|own| address::is_dialable(own));
        own.filter_map(|own| Some((LinkTransport::of(own), address::socket_addr(own)?))).collect()
    }

    /// Asks the DHT where a peer is, and takes the newest announcement that the nodes have.
    ///
    /// # Errors
    /// [`ConnectError`] if no bootstrap node can be reached.
    pub(crate) async fn find(&self, peer: &PublicKey) -> Result<Option<Whereabouts>, ConnectError> {
        let mut answers = self.lookup(peer).await?;
        let Some(mut newest) = answers.recv().await else { return Ok(None) };
        let others = async {
            while let Some(answer) = answers.recv().await {
                if answer.supersedes(&newest) {
                    newest = answer;
                }
            }
        };
        // A node that is gone would be waited for until its query ends.
        let _ = time::timeout(LATER_ANSWERS, others).await;
        Ok(Some(newest.into()))
    }

    /// Asks a linked node for a reservation, and gives it up again.
    ///
    /// # Errors
    /// What the node answered.
    pub(crate) async fn try_reservation(&self, relay: PublicKey) -> Result<(), String> {
        let link = self.links().best(&relay).ok_or_else(|| NoReservation::lost("not connected").to_string())?;
        self.reserve(relay, link).await.map(drop).map_err(|why| why.to_string())
    }
}
