//! Asks connections whether their other end is still there.
//!
//! Identify is what is asked: every libp2p peer answers, on any number of streams.

use std::{collections::HashSet, future, time::Duration};

use libp2p::{identify, swarm::ConnectionId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time,
};

use crate::network::links::{connection::LinkId, table::Links};

/// Some round trips. A connection that is closed wrongly is soon replaced.
const ANSWER: Duration = Duration::from_secs(2);

/// The connections that are being asked.
#[derive(Default)]
pub(crate) struct Probes {
    asked: HashSet<ConnectionId>,
    answers: JoinSet<(ConnectionId, bool)>,
}

impl Probes {
    /// Asks a connection, unless it is being asked.
    pub(crate) fn ask(&mut self, links: &Links, id: ConnectionId) {
        if self.asked.insert(id) {
            let links = links.clone();
            self.answers.spawn(async move { (id, time::timeout(ANSWER, answers(&links, id)).await.unwrap_or(false)) });
        }
    }

    /// The next connection that does not answer. Can be cancelled.
    pub(crate) async fn dead(&mut self) -> ConnectionId {
        loop {
            match self.answers.join_next().await {
                None => future::pending().await,
                Some(Ok((id, alive))) => {
                    self.asked.remove(&id);
                    if !alive {
                        return id;
                    }
                }
                Some(Err(error)) => tracing::error!(%error, "a probe failed"),
            }
        }
    }
}

/// True if the other end answers. A stream alone shows nothing: it counts as open before the other end has heard of it.
async fn answers(links: &Links, id: ConnectionId) -> bool {
    let Ok(mut stream) = links.open_over(LinkId(id), identify::PROTOCOL_NAME).await else { return false };
    stream.flush().await.is_ok() && stream.read_u8().await.is_ok()
}
