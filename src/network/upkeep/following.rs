//! Follows a peer that is not found: links it as soon as a node tells where it is.
//!
//! An attempt to dial a peer looks its announcement up once, and waits for what is silent; between attempts there are pauses.
//! A node that has the announcement knows the moment when the peer is back. (To ask the node each second or two would cost
//! it thousands of look-ups a second while a scraper with ten thousand clients is away; a stream that is open costs it some KiB.)

use std::{
    future, io,
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use futures::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use rand::{Rng, seq::SliceRandom};
use tokio::{sync::Semaphore, time};

use crate::{
    identity::{PeerAddr, PublicKey},
    network::{handle::Network, links::stream::is_unsupported, upkeep::backoff::Redial},
    wire::{Announcement, FOLLOW_PROTOCOL, follow},
};

/// The peer is mostly found by the first look-up, which comes earlier.
const AFTER: Duration = Duration::from_millis(500);
/// Nodes that are asked at once: each takes a connection for as long as the peer is away. The others take over where one fails.
const NODES: usize = 1;
/// A linked node answers within one round trip, unless the connection is dead.
const PROMPT: Duration = Duration::from_secs(5);
/// Between attempts at a node.
const MOST_PAUSE: Duration = Duration::from_secs(15);
/// All followers of a scraper hear of it at once.
const SPREAD_MS: u64 = 250;
/// Announcements whose addresses are dialled at once.
const DIALS: usize = 4;

/// Returns once the peer is linked because a node told where it is. May never return.
pub(crate) async fn linked_by_following(network: &Network, peer: &PublicKey) {
    time::sleep(AFTER).await;
    let following = Following { network, peer, newest: AtomicU64::new(0), places: Semaphore::new(NODES) };
    // All clients have most likely been given the same nodes in the same order.
    let mut nodes: Vec<&PeerAddr> = network.bootstrap().iter().collect();
    nodes.shuffle(&mut rand::rng());
    let mut nodes: FuturesUnordered<_> = nodes.into_iter().map(|node| following.at(node)).collect();
    if nodes.next().await.is_none() {
        future::pending().await
    }
}

struct Following<'a> {
    network: &'a Network,
    peer: &'a PublicKey,
    /// The sequence of the newest announcement.
    newest: AtomicU64,
    places: Semaphore,
}

impl Following<'_> {
    /// Returns once the peer is linked.
    async fn at(&self, node: &PeerAddr) {
        let mut redial = Redial::new(MOST_PAUSE, self.network.host_changes());
        redial.was_good();
        let heard = AtomicBool::new(false);
        loop {
            let Ok(place) = self.places.acquire().await else { return };
            let Err(error) = redial.attempt(|| self.follow(node, &heard)).await else { return };
            drop(place);
            if heard.swap(false, Ordering::Relaxed) {
                redial.was_good();
            }
            if is_unsupported(&error) {
                return future::pending().await; // a node of an earlier version
            }
            let pause = redial.next_pause();
            tracing::debug!(%node, peer = %self.peer, %error, retry_in = ?pause, "cannot follow a peer at a node");
            redial.pause(pause).await;
        }
    }

    /// Returns once the peer is linked. Notes that the node has `heard` what is followed.
    async fn follow(&self, node: &PeerAddr, heard: &AtomicBool) -> io::Result<()> {
        self.network.link_node(node).await.map_err(io::Error::other)?;
        let link = self.network.links().best(&node.key);
        let opened = async {
            let mut stream = self.network.open(&node.key, FOLLOW_PROTOCOL).await.map_err(io::Error::other)?;
            follow::follow(&mut stream, self.peer).await?;
            io::Result::Ok(stream)
        };
        let stream = match (time::timeout(PROMPT, opened).await, link) {
            (Ok(opened), _) => opened?,
            (Err(late), link) => {
                // Nothing else that is asked over this connection would be answered, either.
                if let Some(link) = link {
                    self.network.disconnect(node.key, link).await;
                }
                return Err(late.into());
            }
        };
        heard.store(true, Ordering::Relaxed);
        // An announcement that has half arrived is not lost when a dial ends.
        let told = stream::try_unfold(stream, |mut stream| async move {
            let told = follow::next(&mut stream).await?;
            io::Result::Ok(Some((told, stream)))
        });
        let (mut told, mut dials) = (pin!(told), FuturesUnordered::new());
        loop {
            tokio::select! {
                Some(told) = told.next(), if dials.len() < DIALS => {
                    dials.extend(self.is_news(&told?).map(|news| self.dial(news)));
                }
                Some(linked) = dials.next() => if linked { return Ok(()) },
            }
        }
    }

    /// The announcement, if it is genuine and the newest.
    fn is_news(&self, told: &[u8]) -> Option<Announcement> {
        match Announcement::verify(told, self.peer, SystemTime::now()) {
            Ok(told) => (self.newest.fetch_max(told.sequence, Ordering::Relaxed) < told.sequence).then_some(told),
            Err(error) => {
                tracing::debug!(peer = %self.peer, %error, "a node tells of a bad announcement");
                None
            }
        }
    }

    async fn dial(&self, announcement: Announcement) -> bool {
        let spread = rand::rng().random_range(0..SPREAD_MS);
        time::sleep(Duration::from_millis(spread)).await;
        match self.network.connect_announced(announcement).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(peer = %self.peer, %error, "a peer was not where a node said");
                false
            }
        }
    }
}
