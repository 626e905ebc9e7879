//! One exchange with a scraper: a stream, the handshake on the stream, a request and its reply.

use std::{error::Error, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time,
};

use super::event::RegisterError;
use crate::{
    identity::{KeyPair, PublicKey, SharedSecret},
    network::{LinkStream, Network, OpenError, is_unsupported},
    wire::{
        REGISTER_PROTOCOL, RegisterReply, RegisterRequest,
        channel::{self, Channel, ChannelError},
    },
};

/// Longest exchange, handshake included.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// One request over the link to a scraper, and its reply, within [`EXCHANGE_TIMEOUT`]. A scraper that does not know
/// the request is sent the `earlier` ones, which say less, one after another.
pub(crate) async fn exchange(
    network: &Network,
    key: &KeyPair,
    secret: &SharedSecret,
    scraper: &PublicKey,
    request: &RegisterRequest,
    earlier: impl IntoIterator<Item = RegisterRequest>,
) -> Result<RegisterReply, RegisterError> {
    let exchanged = async {
        let mut answer = ask(&mut handshake(network, key, secret, scraper).await?, request).await;
        for request in earlier {
            // So does a scraper of an earlier version end, or one whose link broke: then the next attempt fails too.
            let Err(ChannelError::Closed | ChannelError::Cut | ChannelError::Io(_)) = answer else { break };
            answer = ask(&mut handshake(network, key, secret, scraper).await?, &request).await;
        }
        answer.map_err(broken)
    };
    time::timeout(EXCHANGE_TIMEOUT, exchanged).await.unwrap_or(Err(RegisterError::Timeout(EXCHANGE_TIMEOUT)))
}

/// Proves key and secret, and has the scraper prove its own. May take for ever.
pub(crate) async fn handshake(
    network: &Network,
    key: &KeyPair,
    secret: &SharedSecret,
    scraper: &PublicKey,
) -> Result<Channel<LinkStream>, RegisterError> {
    let stream = network.open(scraper, REGISTER_PROTOCOL).await.map_err(|error| match error {
        OpenError::Unsupported(_) => RegisterError::NotAScraper,
        error => broken(error),
    })?;
    channel::connect(stream, key, scraper, secret, REGISTER_PROTOCOL).await.map_err(|error| match error {
        ChannelError::Refused(refusal) => RegisterError::Handshake(refusal),
        ChannelError::Io(error) if is_unsupported(&error) => RegisterError::NotAScraper,
        error => broken(error),
    })
}

/// A request on a channel that is there. May take for ever.
pub(crate) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    channel: &mut Channel<S>,
    request: &RegisterRequest,
) -> Result<RegisterReply, ChannelError> {
    channel.send(request).await?;
    channel.receive().await
}

pub(super) fn broken(error: impl Into<Box<dyn Error + Send + Sync>>) -> RegisterError {
    RegisterError::Broken(error.into())
}
