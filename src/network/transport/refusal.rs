//! Why a host that is full closes a TCP connection: a line in plain text before the close, which no handshake begins with.
//!
//! The host writes the line once TCP's own handshake has proved the address, which is shorter than what a peer begins with, and
//! takes part in nothing else. Nobody has signed the line: who reads it learns what to look for, and does nothing about it. QUIC has
//! no such place.

use std::{
    io::{self, IoSlice},
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::{Multiaddr, tcp::tokio::TcpStream};
use socket2::SockRef;

use crate::{
    network::address,
    telemetry::{LabelValue, Limit},
};

const BEGIN: &[u8] = b"narthex: refused: ";
/// A line is shorter.
const MOST: usize = 64;
/// What a peer writes before the answer to it.
const BEGINNING: usize = 1024;

/// What a full host says, by the setting that would make room there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for a connection from this address: the peer's limit is {}", .0.setting())]
pub(crate) struct NoRoom(pub(crate) Limit);

impl NoRoom {
    /// For want of a place for the handshake: mostly by the limit of that address.
    pub(crate) fn half_open(from: &Multiaddr) -> Self {
        Self(if address::is_private(from) { Limit::HalfOpenPerPrivateIp } else { Limit::HalfOpenPerIp })
    }

    fn line(self) -> Vec<u8> {
        [BEGIN, self.0.as_str().as_bytes(), b"\n"].concat()
    }

    /// Reads a whole line.
    fn parse(line: &[u8]) -> Option<Self> {
        let name = line.strip_prefix(BEGIN)?.strip_suffix(b"\n")?;
        Limit::ALL.iter().find(|limit| limit.as_str().as_bytes() == name).copied().map(Self)
    }

    /// Closes a connection with this reason, for as far as that costs nothing. A socket that is closed over bytes that nobody has
    /// read resets the connection.
    pub(crate) fn close(self, stream: &TcpStream) {
        let socket = SockRef::from(&stream.0);
        let _ = socket.send(&self.line());
        let _ = socket.recv(&mut [std::mem::MaybeUninit::uninit(); BEGINNING]);
        let _ = socket.shutdown(Shutdown::Write);
    }
}

/// Says which limit, if any, an inbound connection from an address would exceed; and counts it.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Refuses>);

type Refuses = dyn Fn(&Multiaddr) -> Option<Limit> + Send + Sync;

impl Gate {
    pub(crate) fn new(refuses: impl Fn(&Multiaddr) -> Option<Limit> + Send + Sync + 'static) -> Self {
        Self(Arc::new(refuses))
    }

    /// Refuses nothing.
    pub(crate) fn open() -> Self {
        Self::new(|_| None)
    }

    pub(crate) fn refuses(&self, from: &Multiaddr) -> Option<NoRoom> {
        (self.0)(from).map(NoRoom)
    }
}

/// A TCP connection that fails with [`NoRoom`] if that is what its first bytes say.
pub(crate) struct Refusable<S> {
    stream: S,
    /// The first bytes, as long as they may be the line; then those of them that are still to be read.
    first: Vec<u8>,
    decided: bool,
}

impl<S> Refusable<S> {
    /// A connection that we opened.
    pub(crate) fn opened(stream: S) -> Self {
        Self { stream, first: Vec::new(), decided: false }
    }

    /// A connection that another opened, who has no room to speak of.
    pub(crate) fn accepted(stream: S) -> Self {
        Self { stream, first: Vec::new(), decided: true }
    }

    #[cfg(test)]
    pub(crate) fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> Refusable<S> {
    /// Reads until it is known what the first bytes are.
    fn poll_decide(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.decided {
            let mut bytes = [0; MOST];
            let room = MOST - self.first.len();
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut bytes[..room]))?;
            self.first.extend_from_slice(&bytes[..read]);
            let known = self.first.len().min(BEGIN.len());
            let ended = read == 0 || self.first.len() == MOST || self.first.ends_with(b"\n");
            self.decided = ended || self.first[..known] != BEGIN[..known];
            if let Some(refused) = NoRoom::parse(&self.first) {
                return Poll::Ready(Err(io::Error::other(refused)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Refusable<S> {
    /// Writes. Where the other end has closed meanwhile, its reason is the error, if it gave one.
    fn poll_writing<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let error = match write(Pin::new(&mut self.stream), cx) {
            Poll::Ready(Err(error)) => error,
            other => return other,
        };
        match self.poll_decide(cx) {
            Poll::Ready(Err(why)) if why.get_ref().is_some_and(|why| why.is::<NoRoom>()) => Poll::Ready(Err(why)),
            Poll::Ready(_) => Poll::Ready(Err(error)),
            // A broken connection can be read to its end at once, or as soon as the runtime has noticed.
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Refusable<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_decide(cx))?;
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let read = buf.len().min(self.first.len());
        buf[..read].copy_from_slice(&self.first[..read]);
        self.first.drain(..read);
        if self.first.is_empty() {
            self.first = Vec::new(); // links are many, and live long
        }
        Poll::Ready(Ok(read))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Refusable<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_writing(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, io::Cursor, stream, stream::TryStreamExt};

    use super::*;

    /// What is read of bytes that come in these pieces.
    async fn read(pieces: Vec<Vec<u8>>) -> io::Result<Vec<u8>> {
        let pieces = stream::iter(pieces.into_iter().map(io::Result::Ok)).into_async_read();
        let mut all = Vec::new();
        Refusable::opened(pieces).read_to_end(&mut all).await?;
        Ok(all)
    }

    #[tokio::test]
    async fn the_line_is_read_whole_or_in_pieces_and_nothing_else_is_taken_for_it() {
        let line = NoRoom(Limit::ConnectionsPerIp).line();
        assert!(line.len() < MOST);
        for pieces in [vec![line.clone()], line.iter().map(|byte| vec![*byte]).collect()] {
            let error = read(pieces).await.expect_err("a refusal");
            let refused = error.get_ref().and_then(|error| error.downcast_ref());
            assert_eq!(refused, Some(&NoRoom(Limit::ConnectionsPerIp)));
        }
        let long = [BEGIN, &[b'x'; 4096]].concat();
        let header = b"\x13/multistream/1.0.0\n".to_vec();
        for other in
            [header, long, BEGIN.to_vec(), b"narthex: refused: something\n".to_vec(), b"n".to_vec(), Vec::new()]
        {
            assert_eq!(read(vec![other.clone()]).await.expect("no refusal"), other);
            assert_eq!(read(other.iter().map(|byte| vec![*byte]).collect()).await.expect("no refusal"), other);
        }
    }

    #[tokio::test]
    async fn what_others_open_is_not_looked_at() {
        let line = NoRoom(Limit::ConnectionsPerIp).line();
        let mut read = Vec::new();
        Refusable::accepted(Cursor::new(line.clone())).read_to_end(&mut read).await.expect("reads");
        assert_eq!(read, line);
    }

    #[test]
    fn every_limit_has_a_line_that_fits() {
        for limit in Limit::ALL {
            let line = NoRoom(*limit).line();
            assert!(line.len() < MOST, "{limit:?}");
            assert_eq!(NoRoom::parse(&line), Some(NoRoom(*limit)));
        }
    }
}
