//! The register protocol over an asynchronous stream: handshake, then messages in sealed frames.
//!
//! The client calls [`connect`]. The scraper calls [`accept`], looks up the secret that the [`Pending`] names, and
//! confirms or refuses. Both ends then hold a [`Channel`], which sends and receives messages of [`codec`]. This module
//! has no timeouts: callers set them.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Semaphore,
};

use super::{
    FIRST_MESSAGE_LEN, HandshakeAnswer, HandshakeError, HandshakeRefusal, Initiator, RESPONSE_LEN, Responder, Session,
    SessionError,
    codec::{self, CodecError},
    frame::{self, FrameError, MAX_FRAME_LEN},
};
use crate::identity::{KeyPair, PublicKey, SecretId, SharedSecret};

/// Bytes of the longest [`HandshakeAnswer`].
const ANSWER_LEN: usize = 1 + RESPONSE_LEN;

/// Bytes read at once.
const READ_LEN: usize = 4096;

/// Bytes of a message for which there is always room.
const SHORT_LEN: usize = 256 * 1024;

/// Proves key and secret to `remote`, and verifies those of `remote`.
///
/// # Errors
/// [`ChannelError::Refused`] with the other side's reason; any other [`ChannelError`] for a stream or an answer that
/// fails.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    local: &KeyPair,
    remote: &PublicKey,
    secret: &SharedSecret,
    protocol: &str,
) -> Result<Channel<S>, ChannelError> {
    let mut frames = Frames::new(stream);
    let (initiator, first) = Initiator::start(local, remote, secret, protocol)?;
    frames.send(&first).await?;
    let answer = frames.receive(ANSWER_LEN).await?;
    match HandshakeAnswer::parse(&answer)? {
        HandshakeAnswer::Noise(response) => Ok(Channel { frames, session: initiator.finish(response)? }),
        HandshakeAnswer::Refused(refusal) => Err(ChannelError::Refused(refusal)),
    }
}

/// Reads the first message of `remote`, the peer that the link authenticated.
///
/// # Errors
/// [`ChannelError`] for a stream that fails, or an invalid first message. The peer has been sent a refusal of the latter.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    local: &KeyPair,
    remote: &PublicKey,
    protocol: &str,
) -> Result<Pending<S>, ChannelError> {
    let mut frames = Frames::new(stream);
    let first = match frames.receive(FIRST_MESSAGE_LEN).await {
        Ok(first) => first,
        Err(error @ ChannelError::Frame(_)) => return Err(frames.refuse_for(error, HandshakeRefusal::Malformed).await),
        Err(error) => return Err(error),
    };
    match Responder::read(local, remote, protocol, &first) {
        Ok(responder) => Ok(Pending { frames, responder }),
        Err(error) => {
            let refusal = error.refusal();
            Err(frames.refuse_for(error.into(), refusal).await)
        }
    }
}

/// A client that has named its secret and waits for the answer.
#[derive(Debug)]
pub struct Pending<S> {
    frames: Frames<S>,
    responder: Responder,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pending<S> {
    /// The id of the client's secret. The secret is proved once a first message has been received.
    pub fn secret_id(&self) -> SecretId {
        self.responder.secret_id()
    }

    /// Answers with the secret of this id.
    ///
    /// # Errors
    /// [`ChannelError`] for a stream that fails.
    pub async fn confirm(mut self, secret: &SharedSecret) -> Result<Channel<S>, ChannelError> {
        let (session, response) = match self.responder.respond(secret) {
            Ok(responded) => responded,
            Err(error) => {
                let refusal = error.refusal();
                return Err(self.frames.refuse_for(error.into(), refusal).await);
            }
        };
        self.frames.send(&HandshakeAnswer::Noise(&response).encode()).await?;
        Ok(Channel { frames: self.frames, session })
    }

    /// Sends the client a refusal and ends the stream.
    ///
    /// # Errors
    /// [`ChannelError::Io`] if the stream fails.
    pub async fn refuse(mut self, refusal: HandshakeRefusal) -> Result<(), ChannelError> {
        self.frames.refuse(refusal).await
    }
}

/// An authenticated exchange of messages.
#[derive(Debug)]
pub struct Channel<S> {
    frames: Frames<S>,
    session: Session,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    /// Sends a message. A cancelled call may have sent half a message: drop the channel then.
    ///
    /// # Errors
    /// [`ChannelError::Codec`] for a message that is too long; the channel stays usable. [`ChannelError::Io`] ends it.
    pub async fn send<T: Serialize + ?Sized>(&mut self, message: &T) -> Result<(), ChannelError> {
        let sealed = self.session.seal(&codec::encode(message)?)?;
        self.frames.stream.write_all(&sealed).await?;
        self.frames.stream.flush().await?;
        Ok(())
    }

    /// Receives the next message. A cancelled call loses nothing.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] if the peer has ended the stream after a whole message; any other [`ChannelError`] for
    /// bytes that are not the next message.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, ChannelError> {
        self.receive_with_room(&Semaphore::new(1)).await
    }

    /// As [`receive`](Self::receive), where what is longer than [`SHORT_LEN`] waits for one of these permits, and holds it until
    /// it is decoded: many peers who send long messages at once must not fill the memory.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub async fn receive_with_room<T: DeserializeOwned>(&mut self, long: &Semaphore) -> Result<T, ChannelError> {
        let mut room = None;
        loop {
            if room.is_none() && self.session.received() > SHORT_LEN {
                room = long.acquire().await.ok(); // never closed
            }
            let frame = match self.frames.receive(MAX_FRAME_LEN).await {
                Err(ChannelError::Closed) if self.session.is_inside_message() => return Err(ChannelError::Cut),
                received => received?,
            };
            if let Some(message) = self.session.open(&frame)? {
                return Ok(codec::decode(&message)?);
            }
        }
    }

    /// Ends the stream in this direction.
    ///
    /// # Errors
    /// [`ChannelError::Io`] if the stream fails.
    pub async fn close(mut self) -> Result<(), ChannelError> {
        Ok(self.frames.stream.shutdown().await?)
    }
}

/// Why a channel failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The peer refused the handshake.
    #[error("handshake was refused")]
    Refused(#[source] HandshakeRefusal),
    /// The peer ended the stream between two frames.
    #[error("the other side closed the stream")]
    Closed,
    /// The stream ended in the middle of a message.
    #[error("the stream was cut in the middle of a message")]
    Cut,
    /// The stream failed.
    #[error("the stream failed")]
    Io(#[from] io::Error),
    /// The peer sent something other than a frame.
    #[error("the other side sent something that is no frame")]
    Frame(#[from] FrameError),
    /// A handshake message is invalid.
    #[error("handshake failed")]
    Handshake(#[from] HandshakeError),
    /// A frame cannot be opened: forged, or sealed without the secret.
    #[error("session failed")]
    Session(#[from] SessionError),
    /// A message cannot be encoded or decoded.
    #[error("message cannot be exchanged")]
    Codec(#[from] CodecError),
}

/// A stream, and the bytes read beyond the last frame.
#[derive(Debug)]
struct Frames<S> {
    stream: S,
    unread: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    fn new(stream: S) -> Self {
        Self { stream, unread: Vec::new() }
    }

    async fn send(&mut self, content: &[u8]) -> Result<(), ChannelError> {
        let mut bytes = Vec::new();
        frame::append(content, &mut bytes)?;
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// Receives the content of the next frame, at most `limit` bytes. Memory grows with the bytes received, not with the
    /// length declared. Dropping the future loses nothing.
    async fn receive(&mut self, limit: usize) -> Result<Vec<u8>, ChannelError> {
        loop {
            if let Some(split) = frame::split(&self.unread, limit)? {
                let (content, used) = (split.content.to_vec(), self.unread.len() - split.rest.len());
                self.unread.drain(..used);
                return Ok(content);
            }
            self.unread.reserve(READ_LEN);
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(if self.unread.is_empty() { ChannelError::Closed } else { ChannelError::Cut });
            }
        }
    }

    async fn refuse(&mut self, refusal: HandshakeRefusal) -> Result<(), ChannelError> {
        self.send(&HandshakeAnswer::Refused(refusal).encode()).await?;
        Ok(self.stream.shutdown().await?)
    }

    /// Sends the peer a refusal, and returns the error that caused it.
    async fn refuse_for(&mut self, error: ChannelError, refusal: HandshakeRefusal) -> ChannelError {
        // The first error has more detail than a failure to send this.
        let _ = self.refuse(refusal).await;
        error
    }
}

#[cfg(test)]
mod tests;
