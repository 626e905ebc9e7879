//! A time limit for clients that do not read their answers.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::AsyncWrite,
    time::{self, Instant, Sleep},
};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{admission::Busy, requests::Requests};

/// The writing side of a connection, which fails once a write has waited for `limit`.
///
/// A client that stops reading would otherwise hold its answer's memory, its scrape permit, and the peer's stream, for
/// as long as it likes. hyper flushes whenever its buffer has become empty (some 400 KiB of a stream, or a whole
/// http_sd list), so the clock runs from the first write that had to wait until the next flush: a client that reads a
/// byte now and then is caught too. An answer is not waited for longer than it is [worth](Requests::worth).
pub(super) struct SlowReader<W> {
    writer: W,
    limit: Duration,
    requests: Arc<Requests>,
    waiting: Option<Waiting>,
}

/// Bytes of an answer that wait for the client.
struct Waiting {
    clock: Pin<Box<Sleep>>,
    given_up: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _busy: Busy,
}

impl Waiting {
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(given_up) = &mut self.given_up
            && given_up.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(());
        }
        self.clock.as_mut().poll(cx)
    }
}

impl<W> SlowReader<W> {
    pub(super) fn new(writer: W, limit: Duration, requests: Arc<Requests>) -> Self {
        Self { writer, limit, requests, waiting: None }
    }

    fn waiting(&mut self) -> &mut Waiting {
        let Self { limit, requests, .. } = self;
        self.waiting.get_or_insert_with(|| {
            let (until, worth) = (Instant::now() + *limit, requests.worth());
            let until = worth.as_ref().map_or(until, |worth| worth.until.min(until));
            let given_up = worth.map(|worth| Box::pin(worth.given_up.cancelled_owned()));
            Waiting { clock: Box::pin(time::sleep_until(until)), given_up, _busy: requests.busy() }
        })
    }

    /// Passes the result of a write on; while the write is pending, the clock runs.
    fn timed<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_pending() {
            ready!(self.waiting().poll_over(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")));
        }
        written
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for SlowReader<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.writer).poll_write(cx, buf);
        self.timed(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.writer).poll_write_vectored(cx, bufs);
        self.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.writer.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.writer).poll_flush(cx);
        if flushed.is_ready() {
            self.waiting = None;
        }
        self.timed(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::sync::CancellationToken;

    use super::{super::requests::Worth, *};

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_loses_its_connection() {
        let (near, _far) = tokio::io::duplex(16);
        let mut near = SlowReader::new(near, LIMIT, Requests::alone());
        let error = near.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_a_byte_now_and_then_loses_its_connection() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut near = SlowReader::new(near, LIMIT, Requests::alone());
        let trickle = async {
            loop {
                tokio::time::sleep(LIMIT / 3).await;
                if far.read_u8().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            written = near.write_all(&[0; 64]) => {
                assert_eq!(written.expect_err("too slow").kind(), io::ErrorKind::TimedOut);
            }
            () = trickle => panic!("the reader saw an end"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_worth_nothing_any_more_is_given_up() {
        let (near, _far) = tokio::io::duplex(16);
        let (requests, began) = (Requests::alone(), Instant::now());
        let _asked = requests.ask();
        let given_up = CancellationToken::new();
        requests.set_worth(Some(Worth { until: began + LIMIT / 10, given_up }));
        let mut near = SlowReader::new(near, LIMIT, requests);
        near.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(began.elapsed().as_secs(), (LIMIT / 10).as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_must_make_room_is_given_up_at_once() {
        let (near, _far) = tokio::io::duplex(16);
        let (requests, began, given_up) = (Requests::alone(), Instant::now(), CancellationToken::new());
        let _asked = requests.ask();
        requests.set_worth(Some(Worth { until: began + LIMIT, given_up: given_up.clone() }));
        let mut near = SlowReader::new(near, LIMIT, requests);
        let make_room = async {
            time::sleep(LIMIT / 10).await;
            given_up.cancel();
        };
        let (written, ()) = tokio::join!(near.write_all(&[0; 64]), make_room);
        written.expect_err("nobody reads");
        assert_eq!(began.elapsed().as_secs(), (LIMIT / 10).as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_and_one_that_keeps_up_are_left_alone() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut near = SlowReader::new(near, LIMIT, Requests::alone());
        let reader = tokio::spawn(async move {
            let mut read = Vec::new();
            far.read_to_end(&mut read).await.expect("reads");
            read.len()
        });
        for _ in 0..3 {
            near.write_all(&[0; 64]).await.expect("kept up");
            near.flush().await.expect("flushes");
            tokio::time::sleep(LIMIT * 2).await;
        }
        near.shutdown().await.expect("ends");
        assert_eq!(reader.await.expect("runs"), 192);
    }
}
