//! What a node asks: whom its followers wait for.

use tokio::sync::{oneshot, watch};

use super::Network;
use crate::{identity::PublicKey, network::command::Command};

impl Network {
    /// The latest announcement of a peer, now and as later ones come. None once the network has ended.
    pub(crate) async fn announced_by(&self, peer: PublicKey) -> Option<watch::Receiver<Option<Vec<u8>>>> {
        let (latest, followed) = oneshot::channel();
        self.dialler.command(Command::Follow { peer, latest }).await.ok()?;
        followed.await.ok()
    }

    /// The receiver that [`announced_by`](Self::announced_by) gave is gone.
    pub(crate) async fn unfollow(&self, peer: PublicKey) {
        let _ = self.dialler.command(Command::Unfollow { peer }).await;
    }
}
