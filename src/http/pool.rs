//! HTTP/1.1 connections that are kept for the next request.

use std::{
    collections::HashMap,
    hash::Hash,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::{AbortOnDropHandle, TaskTracker},
};

/// Buffer of a connection, which lives as long as the connection. The limit also bounds the head of an answer.
const MAX_BUFFER: usize = 64 * 1024;

#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolLimits {
    /// Most idle connections kept under one key.
    pub(crate) max_idle: usize,
    /// How long a connection may be idle.
    pub(crate) idle_for: Duration,
}

/// Idle connections by key `K`. Each runs over a route `R`, such as one of several links to a peer. Cheap to clone.
pub(crate) struct Pool<K, R>(Arc<Shared<K, R>>);

type IsCurrent<K, R> = Box<dyn Fn(&K, &R) -> bool + Send + Sync>;

struct Shared<K, R> {
    limits: PoolLimits,
    /// Whether a connection over this route may still be used for the key.
    is_current: IsCurrent<K, R>,
    idle: Mutex<HashMap<K, Vec<Connection<R>>>>,
    /// The tasks that drive the connections.
    connections: TaskTracker,
}

/// An open connection.
pub(crate) struct Connection<R> {
    requests: SendRequest<Empty<Bytes>>,
    route: R,
    idle_since: Instant,
    /// Ends the connection, whatever is under way.
    cut: CancellationToken,
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError<E> {
    /// No connection could be opened.
    #[error("no connection")]
    Open(#[source] E),
    /// The connection broke off, or the other end does not speak HTTP.
    #[error("the connection broke off")]
    Http(#[source] hyper::Error),
}

impl<R> Connection<R> {
    pub(crate) async fn send(&mut self, request: Request<Empty<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.requests.send_request(request).await
    }
}

impl<K, R> Clone for Pool<K, R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Copy + Eq + Hash, R> Pool<K, R> {
    /// An empty pool. A connection for which `is_current` is false is closed instead of kept.
    pub(crate) fn new(limits: PoolLimits, is_current: impl Fn(&K, &R) -> bool + Send + Sync + 'static) -> Self {
        let (is_current, connections) = (Box::new(is_current), TaskTracker::new());
        Self(Arc::new(Shared { limits, is_current, idle: Mutex::default(), connections }))
    }

    /// Starts HTTP on an open stream.
    pub(crate) async fn connect<S>(&self, stream: S, route: R) -> hyper::Result<Connection<R>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (requests, connection) =
            http1::Builder::new().max_buf_size(MAX_BUFFER).handshake(TokioIo::new(stream)).await?;
        let cut = CancellationToken::new();
        let driven = cut.clone().run_until_cancelled_owned(connection);
        self.0.connections.spawn(async {
            if let Some(Err(error)) = driven.await {
                tracing::trace!(%error, "a kept connection ended");
            }
        });
        Ok(Connection { requests, route, idle_since: Instant::now(), cut })
    }

    /// Sends a GET request over a kept connection, or over the one that `open` gives.
    ///
    /// A kept connection may have been closed by the other end meanwhile, which shows only in use. A request that got
    /// no answer over a kept connection is therefore sent once more over a new one: GET is idempotent (RFC 9110, section
    /// 9.2.2).
    pub(crate) async fn send<E>(
        &self,
        key: K,
        request: Request<Empty<Bytes>>,
        open: impl Future<Output = Result<Connection<R>, E>>,
    ) -> Result<Response<PooledBody<K, R>>, SendError<E>> {
        if let Some(mut kept) = self.take(&key)
            && kept.requests.ready().await.is_ok()
        {
            match kept.send(request.clone()).await {
                Ok(response) => return Ok(self.pooled(key, kept, response)),
                Err(error) if error.is_parse() => return Err(SendError::Http(error)),
                Err(error) => tracing::trace!(%error, "a kept connection had died"),
            }
        }
        let mut fresh = open.await.map_err(SendError::Open)?;
        let response = fresh.send(request).await.map_err(SendError::Http)?;
        Ok(self.pooled(key, fresh, response))
    }

    /// Closes the idle connections of the key.
    #[cfg(feature = "scraper")]
    pub(crate) fn forget(&self, key: &K) {
        self.idle().remove(key);
    }

    /// Closes idle connections that are too old or no longer current.
    #[cfg(feature = "scraper")]
    pub(crate) fn sweep(&self) {
        self.idle().retain(|key, kept| {
            self.0.prune(key, kept);
            !kept.is_empty()
        });
    }

    /// Closes the idle connections, and waits for those in use.
    #[cfg(feature = "scraper")]
    pub(crate) async fn close(&self) {
        self.idle().clear();
        self.0.connections.close();
        self.0.connections.wait().await;
    }

    /// The connection that was used last: the others get a chance to grow old.
    fn take(&self, key: &K) -> Option<Connection<R>> {
        let mut idle = self.idle();
        let kept = idle.get_mut(key)?;
        self.0.prune(key, kept);
        kept.pop()
    }

    fn put_back(&self, key: K, mut connection: Connection<R>) {
        connection.idle_since = Instant::now();
        let mut idle = self.idle();
        let kept = idle.entry(key).or_default();
        kept.push(connection);
        self.0.prune(&key, kept);
        kept.truncate(self.0.limits.max_idle);
    }

    fn pooled(&self, key: K, connection: Connection<R>, response: Response<Incoming>) -> Response<PooledBody<K, R>> {
        let pool = self.clone();
        let in_use = Arc::new(Mutex::new(Some(InUse {
            connection,
            #[cfg(feature = "scraper")]
            place: None,
        })));
        response.map(|body| PooledBody { body, end: None, in_use, key, pool })
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<K, Vec<Connection<R>>>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, R> Shared<K, R> {
    fn prune(&self, key: &K, kept: &mut Vec<Connection<R>>) {
        kept.retain(|Connection { requests, route, idle_since, .. }| {
            !requests.is_closed() && idle_since.elapsed() < self.limits.idle_for && (self.is_current)(key, route)
        });
    }
}

/// Why a body over a pooled connection stopped before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PooledBodyError {
    /// The other end broke off.
    #[error(transparent)]
    BrokeOff(#[from] hyper::Error),
    /// The end that it was given came first, such as its deadline.
    #[error("the rest of the body was given up")]
    Ended,
}

/// The body of an answer. Read to the end, it gives its connection back to the pool; dropped before, or at the end of its
/// time, it closes the connection, which ends the answer at the other end.
pub(crate) struct PooledBody<K: Copy + Eq + Hash, R> {
    body: Incoming,
    end: Option<End>,
    in_use: Arc<Mutex<Option<InUse<R>>>>,
    key: K,
    pool: Pool<K, R>,
}

/// What a body holds until its end. Whoever takes this out decides how the body ends.
struct InUse<R> {
    connection: Connection<R>,
    #[cfg(feature = "scraper")]
    place: Option<Box<dyn Place>>,
}

/// What a connection in use costs, until this is dropped.
#[cfg(feature = "scraper")]
pub(crate) trait Place: Send {
    /// The answer was read to its end, and the connection goes back to the pool. Else the connection is closed.
    fn kept(&mut self);
}

/// Closes the connection of a body in time, also if nobody reads the body.
struct End {
    reached: Pin<Box<WaitForCancellationFutureOwned>>,
    _task: AbortOnDropHandle<()>,
}

fn take<R>(in_use: &Mutex<Option<InUse<R>>>) -> Option<InUse<R>> {
    in_use.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl<K: Copy + Eq + Hash, R> PooledBody<K, R> {
    /// Closes the connection when `end` resolves, such as at a deadline, and ends the body with [`PooledBodyError::Ended`].
    pub(crate) fn until(mut self, end: impl Future<Output = ()> + Send + 'static) -> Self
    where
        R: Send + 'static,
    {
        let cut = self.in_use().as_ref().map(|in_use| in_use.connection.cut.clone());
        self.end = cut.map(|cut| {
            let in_use = Arc::clone(&self.in_use);
            let task = tokio::spawn(async move {
                end.await;
                if let Some(in_use) = take(&in_use) {
                    in_use.connection.cut.cancel();
                }
            });
            End { reached: Box::pin(cut.cancelled_owned()), _task: AbortOnDropHandle::new(task) }
        });
        self
    }

    /// Holds a place as long as the connection is in use.
    #[cfg(feature = "scraper")]
    pub(crate) fn holding(self, place: impl Place + 'static) -> Self {
        if let Some(in_use) = &mut *self.in_use() {
            in_use.place = Some(Box::new(place));
        }
        self
    }

    fn in_use(&self) -> MutexGuard<'_, Option<InUse<R>>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&mut self) {
        if let Some(in_use) = take(&self.in_use) {
            self.pool.put_back(self.key, in_use.connection);
            #[cfg(feature = "scraper")]
            in_use.place.into_iter().for_each(|mut place| place.kept());
        }
        self.end = None;
    }
}

impl<K: Copy + Eq + Hash + Unpin, R: Unpin> Body for PooledBody<K, R> {
    type Data = Bytes;
    type Error = PooledBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // Looked at last: the body of a connection that was cut seems to end cleanly.
        if self.end.as_mut().is_some_and(|end| end.reached.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Some(Err(PooledBodyError::Ended)));
        }
        let frame = ready!(polled);
        if frame.is_none() || self.body.is_end_stream() {
            self.ended();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<K: Copy + Eq + Hash, R> Drop for PooledBody<K, R> {
    /// An empty body is never polled. Another one that was not read to its end closes its connection.
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.ended();
        }
        drop(take(&self.in_use));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use http_body_util::BodyExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
        time,
    };

    use super::*;

    const LIMITS: PoolLimits = PoolLimits { max_idle: 2, idle_for: Duration::from_secs(60) };

    /// A pool, and a server that answers `answers` requests over each connection and then closes the connection.
    struct Rig {
        pool: Pool<u8, ()>,
        answers: usize,
        current: Arc<AtomicBool>,
        opened: AtomicUsize,
    }

    impl Rig {
        fn new(answers: usize) -> Self {
            let current = Arc::new(AtomicBool::new(true));
            let is_current = Arc::clone(&current);
            let pool = Pool::new(LIMITS, move |_, ()| is_current.load(Ordering::SeqCst));
            Self { pool, answers, current, opened: AtomicUsize::new(0) }
        }

        async fn send(&self) -> PooledBody<u8, ()> {
            let open = async {
                self.opened.fetch_add(1, Ordering::SeqCst);
                let (near, far) = tokio::io::duplex(4096);
                tokio::spawn(answer(far, self.answers));
                self.pool.connect(near, ()).await
            };
            let response = self.pool.send(7, Request::new(Empty::new()), open).await;
            response.expect("an answer").into_body()
        }

        async fn send_and_read(&self) {
            assert_eq!(self.send().await.collect().await.expect("whole").to_bytes(), "ok");
        }

        fn opened(&self) -> usize {
            self.opened.load(Ordering::SeqCst)
        }
    }

    async fn answer(mut stream: DuplexStream, answers: usize) {
        for _ in 0..answers {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("a request"));
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("writes");
        }
        // One more request arrives, and is lost.
        let _ = stream.read_u8().await;
    }

    #[tokio::test]
    async fn a_connection_whose_answer_was_read_serves_the_next_request_until_it_is_too_old() {
        tokio::time::pause();
        let rig = Rig::new(9);
        for _ in 0..3 {
            rig.send_and_read().await;
        }
        assert_eq!(rig.opened(), 1);
        time::advance(LIMITS.idle_for).await;
        rig.send_and_read().await;
        assert_eq!(rig.opened(), 2);
    }

    #[tokio::test]
    async fn a_request_lost_with_a_kept_connection_is_sent_again_over_a_new_one() {
        let rig = Rig::new(1);
        for _ in 0..3 {
            rig.send_and_read().await;
        }
        assert_eq!(rig.opened(), 3);
    }

    #[tokio::test]
    async fn a_connection_whose_answer_was_not_read_or_that_is_not_current_is_not_kept() {
        let rig = Rig::new(9);
        drop(rig.send().await);
        rig.send_and_read().await;
        assert_eq!(rig.opened(), 2);
        rig.current.store(false, Ordering::SeqCst);
        rig.send_and_read().await;
        assert_eq!(rig.opened(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_ends_with_an_error_at_its_deadline() {
        let rig = Rig::new(1);
        let open = async {
            let (near, mut far) = tokio::io::duplex(4096);
            tokio::spawn(async move {
                far.read_u8().await.expect("a request");
                far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").await.expect("writes");
                std::future::pending::<()>().await;
            });
            rig.pool.connect(near, ()).await
        };
        let response = rig.pool.send(7, Request::new(Empty::new()), open).await.expect("an answer");
        let body = response.into_body().until(time::sleep(Duration::from_secs(5)));
        assert!(matches!(body.collect().await, Err(PooledBodyError::Ended)));
    }

    #[cfg(feature = "scraper")]
    struct Held(#[expect(dead_code, reason = "is counted")] Arc<()>);

    #[cfg(feature = "scraper")]
    impl Place for Held {
        fn kept(&mut self) {
            panic!("the connection was closed");
        }
    }

    #[cfg(feature = "scraper")]
    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_reads_ends_at_its_deadline_too() {
        let (rig, place) = (Rig::new(1), Arc::new(()));
        let (near, mut far) = tokio::io::duplex(64);
        let open = async { rig.pool.connect(near, ()).await };
        let answer = async {
            far.read_u8().await.expect("a request");
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";
            far.write_all(head).await.expect("writes");
        };
        let (response, ()) = tokio::join!(rig.pool.send(7, Request::new(Empty::new()), open), answer);
        let (limit, began) = (Duration::from_secs(5), Instant::now());
        let body = response
            .expect("an answer")
            .into_body()
            .holding(Held(Arc::clone(&place)))
            .until(time::sleep_until(began + limit));

        while far.write_all(b"1\r\na\r\n").await.is_ok() {}
        assert_eq!(began.elapsed().as_secs(), limit.as_secs(), "the other end sees the end");
        assert_eq!(Arc::strong_count(&place), 1);
        assert!(matches!(body.collect().await, Err(PooledBodyError::Ended)), "and no clean end is taken for one");
    }
}
