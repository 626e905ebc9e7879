//! A stream to a peer, as the rest of the program holds it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{core::upgrade::NegotiationError, swarm::ConnectionId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::{
    compat::{Compat, FuturesAsyncReadCompatExt},
    sync::WaitForCancellationFutureOwned,
};

use crate::network::links::connection::Control;
#[cfg(feature = "scraper")]
use crate::network::links::connection::LinkId;

/// Small pieces are gathered up to the payload that yamux puts into one frame.
const FRAME: usize = 16 * 1024;

/// An open stream to a peer: encrypted, and bound to the peer's key, by the link below it.
///
/// The stream fails as soon as its connection is given up, even if the connection cannot be closed cleanly any more.
pub(crate) struct LinkStream {
    stream: Compat<libp2p::Stream>,
    #[cfg(feature = "scraper")]
    link: LinkId,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
    _counted: Arc<()>,
    /// A stream that has failed is not polled again: one whose negotiation failed late would panic.
    failed: bool,
}

impl LinkStream {
    pub(crate) fn new(stream: libp2p::Stream, connection: ConnectionId, control: &Control) -> Self {
        tracing::trace!(%connection, "a stream is open");
        Self {
            stream: stream.compat(),
            #[cfg(feature = "scraper")]
            link: LinkId(connection),
            gone: Box::pin(control.gone.clone().cancelled_owned()),
            _counted: Arc::clone(&control.streams),
            failed: false,
        }
    }

    #[cfg(feature = "scraper")]
    pub(crate) fn link(&self) -> LinkId {
        self.link
    }

    /// A task that waits for the stream waits for the end of the connection, too.
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut Compat<libp2p::Stream>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.failed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let polled = match poll(Pin::new(&mut self.stream), cx) {
            Poll::Pending if self.gone.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the link was lost")))
            }
            polled => polled,
        };
        self.failed = matches!(polled, Poll::Ready(Err(_)));
        polled
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |stream, cx| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    /// Small pieces, such as a head and the beginning of its body, go out in one frame; a long one goes out as it is.
    /// hyper copies whole bodies where a stream takes no pieces.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut pieces = pieces.iter().filter(|piece| !piece.is_empty());
        let Some(first) = pieces.next() else { return Poll::Ready(Ok(0)) };
        let mut frame = [0; FRAME];
        let mut len = 0;
        for piece in std::iter::once(first).chain(pieces) {
            if len == 0 && piece.len() >= FRAME {
                return self.poll_write(cx, piece);
            }
            let part = piece.len().min(FRAME - len);
            frame[len..len + part].copy_from_slice(&piece[..part]);
            len += part;
            if len == FRAME {
                break;
            }
        }
        self.poll_write(cx, &frame[..len])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}

/// True for the error of a stream whose other end does not speak the protocol. A protocol is proposed and used in one
/// flight, so that the refusal shows only when the stream is read.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    let negotiation = error.get_ref().and_then(|inner| inner.downcast_ref::<NegotiationError>());
    matches!(negotiation, Some(NegotiationError::Failed))
}
