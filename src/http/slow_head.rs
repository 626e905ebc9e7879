//! A time limit for clients that connect and ask nothing, or begin a request and do not end it.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{self, Sleep},
};

use super::requests::Requests;

/// The reading side of a connection, which fails if a request's head is not complete `limit` after its first byte, or the
/// first request's head `limit` after the accept.
///
/// hyper's `header_read_timeout` runs from the end of the previous answer and must allow for an idle connection; an
/// unfinished head would hold its memory for all that time, and a connection that never asks anything its place.
pub(super) struct SlowHead<R> {
    reader: R,
    limit: Duration,
    requests: Arc<Requests>,
    /// The value of `requests.asked` at the last read.
    asked: u64,
    /// Whether a request is due: the first one, or one of which bytes have arrived.
    begun: bool,
    tail: [u8; 4],
    clock: Option<Pin<Box<Sleep>>>,
}

impl<R> SlowHead<R> {
    pub(super) fn new(reader: R, limit: Duration, requests: Arc<Requests>) -> Self {
        Self { reader, limit, requests, asked: 0, begun: true, tail: [0; 4], clock: None }
    }

    /// Resets the clock if a head was completed since the last call.
    fn note_asked(&mut self) {
        let asked = self.requests.asked();
        if asked != self.asked {
            self.asked = asked;
            self.clock = None;
            // Bytes after the head are a body, or the beginning of the next head.
            self.begun = self.tail != *b"\r\n\r\n";
        }
    }

    fn note_read(&mut self, bytes: &[u8]) {
        self.begun |= !bytes.is_empty();
        for byte in &bytes[bytes.len().saturating_sub(self.tail.len())..] {
            self.tail.rotate_left(1);
            self.tail[3] = *byte;
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for SlowHead<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.note_asked();
        let filled = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.reader).poll_read(cx, buf) {
            self.note_read(&buf.filled()[filled..]);
            return Poll::Ready(read);
        }
        if !self.begun || self.requests.is_answering() {
            return Poll::Pending;
        }
        let limit = self.limit;
        let clock = self.clock.get_or_insert_with(|| Box::pin(time::sleep(limit)));
        ready!(clock.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not finish its request")))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
        time::{sleep, timeout},
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    const HEAD: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_head_that_trickles_in_ends_in_time() {
        let (mut near, mut far, _) = connection();
        let trickle = async {
            while far.write_all(b"a").await.is_ok() {
                sleep(LIMIT / 3).await;
            }
        };
        let reading = async {
            let read = timeout(LIMIT * 2, near.read_to_end(&mut Vec::new())).await;
            read.expect("in time").expect_err("never complete")
        };
        let error = tokio::select! { error = reading => error, () = trickle => unreachable!("it goes on") };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_never_asks_anything_is_cut() {
        let (mut near, _far, _) = connection();
        is_cut(&mut near).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_answered_may_be_idle() {
        let (mut near, mut far, requests) = connection();
        for _ in 0..2 {
            read(&mut near, &mut far, HEAD).await;
            drop(requests.ask());
            is_left_alone(&mut near).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_head_behind_a_request_has_its_time_from_the_answer_on() {
        for split in [HEAD.len(), HEAD.len() + 1, HEAD.len() + 5] {
            let (mut near, mut far, requests) = connection();
            let both = [HEAD, b"GET / HT"].concat();
            read(&mut near, &mut far, &both[..split]).await;
            let asked = requests.ask();
            read(&mut near, &mut far, &both[split..]).await;
            is_left_alone(&mut near).await;
            drop(asked);
            is_cut(&mut near).await;
        }
        let (mut near, mut far, requests) = connection();
        read(&mut near, &mut far, &[HEAD, b"GET / HT"].concat()).await;
        drop(requests.ask());
        is_cut(&mut near).await;
    }

    fn connection() -> (SlowHead<DuplexStream>, DuplexStream, Arc<Requests>) {
        let (near, far) = tokio::io::duplex(64);
        let requests = Requests::alone();
        (SlowHead::new(near, LIMIT, Arc::clone(&requests)), far, requests)
    }

    async fn read(near: &mut SlowHead<DuplexStream>, far: &mut DuplexStream, bytes: &[u8]) {
        far.write_all(bytes).await.expect("fits");
        near.read_exact(&mut vec![0; bytes.len()]).await.expect("has come");
    }

    async fn is_left_alone(near: &mut SlowHead<DuplexStream>) {
        timeout(LIMIT * 20, near.read_u8()).await.expect_err("nothing is to be read");
    }

    async fn is_cut(near: &mut SlowHead<DuplexStream>) {
        let read = timeout(LIMIT * 2, near.read_u8()).await.expect("in time");
        assert_eq!(read.expect_err("half a head").kind(), io::ErrorKind::TimedOut);
    }
}
