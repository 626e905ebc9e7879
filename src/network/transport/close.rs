//! Connections that close in time, whatever the other end does.
//!
//! A connection closes once its last bytes are written. A peer that reads nothing would keep the connection, and its socket,
//! for as long as it likes.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use tokio::time::{Sleep, sleep};

/// Several round trips of a bad line.
const MOST: Duration = Duration::from_secs(5);

/// A connection whose end is waited for no longer than [`MOST`].
pub(crate) struct CloseInTime<M> {
    muxer: M,
    closing: Option<Pin<Box<Sleep>>>,
}

impl<M> CloseInTime<M> {
    pub(crate) fn new(muxer: M) -> Self {
        Self { muxer, closing: None }
    }

    fn muxer(self: Pin<&mut Self>) -> Pin<&mut M>
    where
        M: Unpin,
    {
        Pin::new(&mut self.get_mut().muxer)
    }
}

impl<M: StreamMuxer + Unpin> StreamMuxer for CloseInTime<M> {
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        self.muxer().poll_inbound(cx)
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        self.muxer().poll_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let late = self.closing.get_or_insert_with(|| Box::pin(sleep(MOST))).as_mut().poll(cx).is_ready();
        if late { Poll::Ready(Ok(())) } else { self.muxer().poll_close(cx) }
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        self.muxer().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::poll_fn};

    use tokio::time::Instant;

    use super::*;

    /// Closes at once, or never.
    struct Muxer {
        closes: bool,
    }

    impl StreamMuxer for Muxer {
        type Substream = futures::io::Cursor<Vec<u8>>;
        type Error = Infallible;

        fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<Self::Substream, Infallible>> {
            Poll::Pending
        }

        fn poll_outbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<Self::Substream, Infallible>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            if self.closes { Poll::Ready(Ok(())) } else { Poll::Pending }
        }

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Infallible>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_whose_end_does_not_come_is_let_go() {
        for (closes, after) in [(true, Duration::ZERO), (false, MOST)] {
            let (mut muxer, begun) = (CloseInTime::new(Muxer { closes }), Instant::now());
            let Ok(()) = poll_fn(|cx| Pin::new(&mut muxer).poll_close(cx)).await;
            assert_eq!(begun.elapsed().as_secs(), after.as_secs());
        }
    }
}
