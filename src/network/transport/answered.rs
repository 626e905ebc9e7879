//! Hosts that took a TCP connection of ours: the handshake over it is under way, and slow only if the peer is busy.

use libp2p::Multiaddr;
use tokio::sync::broadcast;

use crate::network::address;

/// A client dials few addresses at once. Who misses one dials another transport too early, which does no harm.
const KEPT: usize = 64;

/// Tells the dialler what the transport sees. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Answered(broadcast::Sender<Multiaddr>);

/// The hosts that answer from its making on.
pub(crate) struct Since(broadcast::Receiver<Multiaddr>);

impl Answered {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }

    pub(crate) fn note(&self, address: &Multiaddr) {
        let _ = self.0.send(address::without_peer(address)); // mostly nobody listens
    }

    pub(crate) fn since_now(&self) -> Since {
        Since(self.0.subscribe())
    }
}

impl Since {
    /// True if one of these addresses has answered.
    pub(crate) fn any(&mut self, of: &[Multiaddr]) -> bool {
        loop {
            match self.0.try_recv() {
                Ok(address) if of.contains(&address) => return true,
                Ok(_) | Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => return false,
            }
        }
    }
}
