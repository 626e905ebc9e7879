//! Opening a stream over a connection of the table.

use std::time::Duration;

use libp2p::StreamProtocol;
use tokio::{
    sync::{mpsc::error::TrySendError, oneshot},
    time,
};

use super::Links;
use crate::{
    identity::PublicKey,
    network::links::{
        connection::{LinkId, OpenError, OpenRequest},
        stream::LinkStream,
    },
};

/// A stream costs two round trips; a peer that takes longer is not answering.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

impl Links {
    /// Opens a stream over the best connection to a peer.
    pub(crate) async fn open(&self, peer: &PublicKey, protocol: StreamProtocol) -> Result<LinkStream, OpenError> {
        let link = self.best(peer).ok_or(OpenError::NotConnected)?;
        self.open_over(link, protocol).await
    }

    /// As [`open`](Self::open), over one connection.
    pub(crate) async fn open_over(&self, link: LinkId, protocol: StreamProtocol) -> Result<LinkStream, OpenError> {
        let (reply, opened) = oneshot::channel();
        let LinkId(id) = link;
        let control = self.table().connections.get(&id).ok_or(OpenError::Lost)?.control.clone();
        control.open.try_send(OpenRequest { protocol, reply }).map_err(|error| match error {
            TrySendError::Full(_) => OpenError::Busy,
            TrySendError::Closed(_) => OpenError::Lost,
        })?;
        match time::timeout(OPEN_TIMEOUT, opened).await {
            Ok(Ok(stream)) => stream.map(|stream| LinkStream::new(stream, id, &control)),
            Ok(Err(_)) => Err(OpenError::Lost),
            Err(_) => Err(OpenError::Timeout),
        }
    }
}
