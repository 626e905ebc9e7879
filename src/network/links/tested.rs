//! Tests of connections that may be dead: each peer is pinged, over a stream of ours, as libp2p pings by its own clock.

use std::{future, time::Duration};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use libp2p::{ping, swarm::ConnectionId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    identity::PublicKey,
    network::{
        links::{connection::LinkId, table::Links},
        patience,
    },
};

/// Enough for a peer at the other end of the world, and for a packet lost.
const DEADLINE: Duration = Duration::from_millis(1500);
/// A scraper has thousands of links.
const AT_ONCE: usize = 1024;
/// What a ping carries, in both directions.
const PING_LEN: usize = 32;

/// Those of these connections that are silent when they are pinged now, each as soon as that is known.
pub(crate) fn silent(
    links: &Links,
    tested: Vec<(PublicKey, ConnectionId)>,
) -> BoxStream<'static, (PublicKey, ConnectionId)> {
    let links = links.clone();
    let all = stream::iter(tested).map(move |(peer, id)| {
        let links = links.clone();
        async move {
            tokio::select! {
                () = ping(&links, id) => None,
                () = patience::sleep(DEADLINE) => Some((peer, id)),
            }
        }
    });
    all.buffer_unordered(AT_ONCE).filter_map(future::ready).boxed()
}

/// Returns once the peer has answered, or the connection shows by itself what is wrong.
async fn ping(links: &Links, id: ConnectionId) {
    let Ok(mut stream) = links.open_over(LinkId(id), ping::PROTOCOL_NAME).await else { return };
    let asked: [u8; PING_LEN] = rand::random();
    let answered = async {
        stream.write_all(&asked).await?;
        stream.flush().await?;
        stream.read_exact(&mut [0; PING_LEN]).await
    };
    if let Err(error) = answered.await {
        tracing::debug!(%id, %error, "a connection that is tested has ended");
    }
}
