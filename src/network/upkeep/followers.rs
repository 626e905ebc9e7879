//! Tells followers of the announcements that this node takes, as they come: clients that wait for their scraper.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    sync::{mpsc, watch},
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;

use crate::{
    identity::PublicKey,
    network::{
        handle::Network,
        links::{acceptor::InboundStream, stream::LinkStream},
    },
    wire::follow,
};

/// Streams at once, of all peers: each holds some KiB. More than the connections that a node has by default.
pub(crate) const MOST: usize = 32_768;
/// Those of one peer. A client follows the scrapers that it waits for.
pub(crate) const MOST_OF_PEER: usize = 8;
/// Streams that may wait to be served; more are refused.
pub(crate) const QUEUE: usize = 256;
/// Longest wait for the key that is followed, and for the follower to take an announcement.
const PROMPT: Duration = Duration::from_secs(10);

/// Serves followers until `stop` fires.
pub(crate) async fn tell_followers(
    network: Network,
    mut inbox: mpsc::Receiver<InboundStream>,
    stop: CancellationToken,
) {
    let (mut streams, mut of_peers) = (JoinSet::new(), HashMap::<PublicKey, usize>::new());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = streams.join_next() => if let Ok(peer) = ended
                && leave(&mut of_peers, peer)
            {
                network.links().follows(&peer, false);
            },
            Some(InboundStream { peer, stream }) = inbox.recv() => {
                let of_peer = of_peers.get(&peer).copied().unwrap_or_default();
                if streams.len() >= MOST || of_peer >= MOST_OF_PEER {
                    tracing::debug!(%peer, "a peer follows too many keys, or too many peers follow some");
                    continue;
                }
                of_peers.insert(peer, of_peer + 1);
                network.links().follows(&peer, true);
                let network = network.clone();
                streams.spawn(async move {
                    if let Err(error) = serve(&network, stream).await {
                        tracing::debug!(%peer, %error, "a follower has left");
                    }
                    peer
                });
            }
        }
    }
    streams.shutdown().await;
}

/// Counts a stream less. True if it was the peer's last.
fn leave(of_peers: &mut HashMap<PublicKey, usize>, peer: PublicKey) -> bool {
    let Entry::Occupied(mut of_peer) = of_peers.entry(peer) else { return false };
    *of_peer.get_mut() -= 1;
    let was_last = *of_peer.get() == 0;
    if was_last {
        of_peer.remove();
    }
    was_last
}

async fn serve(network: &Network, mut stream: LinkStream) -> io::Result<()> {
    let followed = time::timeout(PROMPT, follow::followed(&mut stream)).await??;
    let Some(announced) = network.announced_by(followed).await else { return Ok(()) };
    let ended = tell_all(announced, &mut stream).await;
    network.unfollow(followed).await;
    ended
}

async fn tell_all(mut announced: watch::Receiver<Option<Vec<u8>>>, stream: &mut LinkStream) -> io::Result<()> {
    loop {
        let latest = announced.borrow_and_update().clone();
        if let Some(latest) = latest {
            time::timeout(PROMPT, follow::tell(stream, &latest)).await??;
        }
        tokio::select! {
            changed = announced.changed() => if changed.is_err() { return Ok(()) },
            // The follower says nothing more: it has left, or breaks the rules.
            ended = stream.read_u8() => return ended.map(drop),
        }
    }
}
