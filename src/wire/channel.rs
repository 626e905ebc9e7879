//! The register protocol over an asynchronous stream: handshake, then messages in sealed frames.
//!
//! The client calls [`connect`]; the scraper calls [`accept`], looks up the secret that the [`Pending`] names, and
//! confirms or refuses. Either way one end then holds a [`Channel`] and sends and receives messages of
//! [`codec`]. Nothing here knows how long is too long: callers wrap what they await in a timeout.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    FIRST_MESSAGE_LEN, HandshakeAnswer, HandshakeError, HandshakeRefusal, Initiator, RESPONSE_LEN, Responder, Session,
    SessionError,
    codec::{self, CodecError},
    frame::{self, FrameError, MAX_FRAME_LEN},
};
use crate::identity::{KeyPair, PublicKey, SecretId, SharedSecret};

/// Proves key and secret to `remote`, and has it prove its own.
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
/// [`ChannelError`] for a stream that fails, or a first message that does. The peer has been told of the latter.
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
    /// Which secret the client is about to prove. It has done so when a first message has been received.
    pub fn secret_id(&self) -> SecretId {
        self.responder.secret_id()
    }

    /// Answers with the secret of that id.
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

    /// Tells the client why there will be no channel, and ends the stream.
    ///
    /// # Errors
    /// [`ChannelError::Io`] if it could not be told.
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
    /// Sends a message. Cancelled halfway it leaves half a message behind: the channel is of no use then.
    ///
    /// # Errors
    /// [`ChannelError::Codec`] for a message too long; the channel goes on. [`ChannelError::Io`] ends it.
    pub async fn send<T: Serialize + ?Sized>(&mut self, message: &T) -> Result<(), ChannelError> {
        let sealed = self.session.seal(&codec::encode(message)?)?;
        self.frames.stream.write_all(&sealed).await?;
        self.frames.stream.flush().await?;
        Ok(())
    }

    /// Receives the next message. May be cancelled and called again.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] if the other side has ended the stream after a whole message; any other
    /// [`ChannelError`] for bytes that are not its next message.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, ChannelError> {
        loop {
            let frame = match self.frames.receive(MAX_FRAME_LEN).await {
                Err(ChannelError::Closed) if self.session.is_inside_message() => return Err(ChannelError::Cut),
                received => received?,
            };
            if let Some(message) = self.session.open(&frame)? {
                return Ok(codec::decode(&message)?);
            }
        }
    }

    /// Ends the stream in this direction, so that the other side knows that nothing more will come.
    ///
    /// # Errors
    /// [`ChannelError::Io`] if it could not be told.
    pub async fn close(mut self) -> Result<(), ChannelError> {
        Ok(self.frames.stream.shutdown().await?)
    }
}

/// Why there is no channel, or no further message on it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The other side will not end the handshake, and says why.
    #[error("handshake was refused")]
    Refused(#[source] HandshakeRefusal),
    /// The other side ended the stream where a frame could have begun.
    #[error("the other side closed the stream")]
    Closed,
    /// The stream ended in the middle of a message.
    #[error("the stream was cut in the middle of a message")]
    Cut,
    /// The stream failed.
    #[error("the stream failed")]
    Io(#[from] io::Error),
    /// The other side does not speak in frames.
    #[error("the other side sent something that is no frame")]
    Frame(#[from] FrameError),
    /// One of the two handshake messages is not as it should be.
    #[error("handshake failed")]
    Handshake(#[from] HandshakeError),
    /// A frame cannot be opened: forged, or sealed without the secret.
    #[error("session failed")]
    Session(#[from] SessionError),
    /// A message cannot be encoded or decoded.
    #[error("message cannot be exchanged")]
    Codec(#[from] CodecError),
}

/// A stream, and what has been read from it beyond the last frame.
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

    /// The content of the next frame, at most `limit` bytes of it. Memory is taken as bytes come, not as they are
    /// announced; nothing is lost when the future is dropped.
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

    /// Tells the other side, if it still listens, and gives back what went wrong.
    async fn refuse_for(&mut self, error: ChannelError, refusal: HandshakeRefusal) -> ChannelError {
        // A peer that cannot be told is no further trouble, and the first error says more than this one.
        let _ = self.refuse(refusal).await;
        error
    }
}

/// Bytes of the longest [`HandshakeAnswer`].
const ANSWER_LEN: usize = 1 + RESPONSE_LEN;

/// How much is read at once.
const READ_LEN: usize = 4096;

#[cfg(test)]
mod tests;
