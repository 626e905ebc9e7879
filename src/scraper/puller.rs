//! Pulls expositions: HTTP/1.1 over streams to peers, which are pooled and kept alive.
//!
//! A new stream costs two round trips; a kept one costs none. Streams of a peer that are idle for too long are closed,
//! and all of them when its last link goes.

use std::{
    collections::HashMap,
    error::Error,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore, broadcast, watch},
    time::{self, Instant, MissedTickBehavior, Sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    pull::{Links, Pull, PullBody, PullBodyError, PullError, PullRequest},
    reconnect_grace::{self, ReconnectGrace},
};
use crate::{
    identity::PublicKey,
    network::{
        InboundCounts, LinkCounts, LinkEvent, LinkId, LinkPath, LinkStatus, MAX_PULL_STREAMS, Network, PULL_PROTOCOL,
    },
    telemetry::remote_message,
    wire::{Alias, scrape_timeout, set_scrape_timeout},
};

type BoxError = Box<dyn Error + Send + Sync>;

/// The near end of a stream.
struct Sender {
    requests: SendRequest<Empty<Bytes>>,
    link: LinkId,
}

/// Pulls over the links of a [`Network`]. Cheap to clone.
#[derive(Clone)]
pub(super) struct Puller(Arc<Inner>);

struct Inner {
    network: Network,
    idle: Mutex<HashMap<PublicKey, Vec<Idle>>>,
    /// Pulls that a peer may still be asked for at once.
    slots: Mutex<HashMap<PublicKey, Arc<Semaphore>>>,
    /// Deadlines in a row that passed without a sign of life. A peer of ours answers a little before the deadline.
    silent: Mutex<HashMap<PublicKey, u32>>,
    reconnect_grace: ReconnectGrace,
    streams: TaskTracker,
    started_at: Instant,
}

/// A stream that waits for the next pull.
struct Idle {
    sender: Sender,
    since: Instant,
}

impl Puller {
    pub(super) fn new(network: Network) -> Self {
        Self(Arc::new(Inner {
            network,
            idle: Mutex::default(),
            slots: Mutex::default(),
            silent: Mutex::default(),
            reconnect_grace: ReconnectGrace::default(),
            streams: TaskTracker::new(),
            started_at: Instant::now(),
        }))
    }

    /// Closes streams that nobody uses, until `stop` fires; then all of them.
    pub(super) async fn keep_pool(self, stop: CancellationToken) {
        let mut links = self.0.network.links().events();
        let mut sweep = time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = sweep.tick() => self.0.sweep(),
                event = links.recv() => match event {
                    Ok(LinkEvent::Down(peer)) => {
                        self.0.idle().remove(&peer);
                        self.0.heard_from(&peer);
                    }
                    Ok(LinkEvent::Up(_)) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => self.0.sweep(),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
            }
        }
        self.0.idle().clear();
        self.0.streams.close();
        self.0.streams.wait().await;
    }
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, HashMap<PublicKey, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream that was used last: the others get a chance to grow old. Those over another connection than the best
    /// are closed, as it may be dead, or the detour.
    fn take(&self, peer: &PublicKey) -> Option<Sender> {
        let best = self.network.links().best(peer)?;
        let mut idle = self.idle();
        let streams = idle.get_mut(peer)?;
        while let Some(stream) = streams.pop() {
            if stream.sender.link == best && !stream.sender.requests.is_closed() {
                return Some(stream.sender);
            }
        }
        None
    }

    /// A place among the pulls of the peer, once there is one: more streams than a connection may have would end it.
    async fn slot(&self, peer: &PublicKey) -> Result<OwnedSemaphorePermit, AcquireError> {
        let slots = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Semaphore::new(MAX_PULL_STREAMS));
            Arc::clone(slots.entry(*peer).or_insert_with(new))
        };
        slots.acquire_owned().await
    }

    fn put_back(&self, peer: PublicKey, sender: Sender) {
        if sender.requests.is_closed() || self.network.links().best(&peer) != Some(sender.link) {
            return;
        }
        let mut idle = self.idle();
        let streams = idle.entry(peer).or_default();
        if streams.len() < MAX_IDLE {
            streams.push(Idle { sender, since: Instant::now() });
        }
    }

    fn sweep(&self) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slots| slots.available_permits() < MAX_PULL_STREAMS);
        drop(slots);
        self.reconnect_grace.forget_old();
        self.idle().retain(|_, streams| {
            streams.retain(|stream| stream.since.elapsed() < IDLE_FOR && !stream.sender.requests.is_closed());
            !streams.is_empty()
        });
    }

    fn silent(&self) -> MutexGuard<'_, HashMap<PublicKey, u32>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard_from(&self, peer: &PublicKey) {
        self.silent().remove(peer);
    }

    /// A peer that lets several pulls in a row pass in silence is asked for a sign of life. If its connection swallows
    /// that too it is dead, whatever the kernel still hopes: it is given up, so that scrapes fail at once until the
    /// peer is back.
    fn heard_nothing_from(self: &Arc<Self>, peer: PublicKey) {
        {
            let mut silent = self.silent();
            let times = silent.entry(peer).or_default();
            *times += 1;
            if *times < SILENT_PULLS {
                return;
            }
            *times = 0;
        }
        let pool = Arc::clone(self);
        self.streams.spawn(async move {
            let Some(link) = pool.network.links().best(&peer) else { return };
            let sign = async {
                let mut sender = pool.open(&peer).await?;
                let nothing = Request::get("/").body(Empty::new())?;
                sender.requests.send_request(nothing).await?;
                Ok::<_, BoxError>(())
            };
            if !matches!(time::timeout(SIGN_OF_LIFE, sign).await, Ok(Ok(()))) {
                tracing::warn!(%peer, "a peer let several pulls and a question pass in silence: its connection is closed");
                pool.network.disconnect(peer, link).await;
            }
        });
    }

    async fn open(&self, peer: &PublicKey) -> Result<Sender, BoxError> {
        let stream = self.network.open(peer, PULL_PROTOCOL).await?;
        let link = stream.link();
        let (requests, connection) =
            http1::Builder::new().max_buf_size(MAX_BUFFER).handshake(TokioIo::new(stream)).await?;
        self.streams.spawn(async {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "a pull stream ended");
            }
        });
        Ok(Sender { requests, link })
    }

    /// Shortly after a link was lost, or after our own start, a peer may be about to come back: it is given a moment.
    async fn await_link(&self, peer: &PublicKey, deadline: Instant) -> bool {
        let links = self.network.links();
        if links.path(peer).is_some() {
            return true;
        }
        let until = match links.lost_for(peer) {
            Some(lost_for) => self.reconnect_grace.wait_until(*peer, lost_for),
            None => {
                (self.started_at.elapsed() < reconnect_grace::WINDOW).then(|| Instant::now() + reconnect_grace::WAIT)
            }
        };
        match until {
            Some(until) => time::timeout_at(deadline.min(until), links.up(peer)).await.is_ok(),
            None => false,
        }
    }

    /// Sends the request over a kept stream, or over a new one. A kept stream may have died unnoticed: a request that
    /// never left is sent again.
    async fn ask(
        &self,
        peer: &PublicKey,
        mut request: Request<Empty<Bytes>>,
    ) -> Result<(Response<Incoming>, Sender), BoxError> {
        if let Some(mut kept) = self.take(peer)
            && kept.requests.ready().await.is_ok()
        {
            match kept.requests.try_send_request(request).await {
                Ok(response) => return Ok((response, kept)),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failed.into_error().into()),
                },
            }
        }
        let mut fresh = self.open(peer).await?;
        let response = fresh.requests.send_request(request).await?;
        Ok((response, fresh))
    }
}

impl Pull for Puller {
    fn pull<'a>(
        &'a self,
        alias: &'a Alias,
        peer: PublicKey,
        request: PullRequest,
    ) -> BoxFuture<'a, Result<Response<PullBody>, PullError>> {
        async move {
            let began = Instant::now();
            let deadline = request.deadline;
            if !self.0.await_link(&peer, deadline).await {
                return Err(PullError::NotConnected { alias: alias.clone(), peer });
            }
            let broken = |source| PullError::Broken { alias: alias.clone(), peer, source };
            let request = pull_request(alias, request).map_err(|error| broken(error.into()))?;
            let too_late = || PullError::Deadline { alias: alias.clone(), peer, limit: deadline - began };
            let slot = match time::timeout_at(deadline, self.0.slot(&peer)).await {
                Ok(slot) => slot.map_err(|error| broken(error.into()))?,
                Err(_) => return Err(too_late()),
            };
            let (response, sender) = match time::timeout_at(deadline, self.0.ask(&peer, request)).await {
                Ok(answer) => answer.map_err(broken)?,
                Err(_) => {
                    self.0.heard_nothing_from(peer);
                    return Err(too_late());
                }
            };
            self.0.heard_from(&peer);
            if response.status() != StatusCode::OK {
                let status = response.status();
                let message = remote_message(response.into_body(), deadline).await;
                return Err(PullError::Refused { alias: alias.clone(), peer, status, message });
            }
            let pool = Arc::clone(&self.0);
            Ok(response.map(|body| {
                PullBody::new(PooledBody {
                    body,
                    deadline: Box::pin(time::sleep_until(deadline)),
                    sender: Some((sender, slot)),
                    peer,
                    pool,
                })
            }))
        }
        .boxed()
    }
}

fn pull_request(alias: &Alias, asked: PullRequest) -> Result<Request<Empty<Bytes>>, http::Error> {
    let uri = match asked.query {
        Some(query) => format!("/{alias}?{query}"),
        None => format!("/{alias}"),
    };
    let mut request = Request::get(uri).body(Empty::new())?;
    *request.headers_mut() = asked.headers;
    tell_limit(request.headers_mut(), asked.deadline.saturating_duration_since(Instant::now()));
    Ok(request)
}

/// A peer that is not told how long it has, or is told of more than it has, would answer too late.
fn tell_limit(headers: &mut HeaderMap, limit: Duration) {
    let told = scrape_timeout(headers).ok().flatten();
    if told.is_none_or(|told| told > limit + MOST_MARGIN) {
        set_scrape_timeout(headers, limit);
    }
}

impl Links for Puller {
    fn path(&self, peer: &PublicKey) -> Option<LinkPath> {
        self.0.network.links().path(peer)
    }

    fn status(&self, peer: &PublicKey) -> LinkStatus {
        self.0.network.links().status(peer)
    }

    fn counts(&self) -> LinkCounts {
        self.0.network.links().counts()
    }

    fn inbound(&self) -> InboundCounts {
        self.0.network.inbound()
    }

    fn holders(&self) -> usize {
        self.0.network.holders()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.network.links().changes()
    }
}

/// A body on its way. Read to its end, it gives its stream back to the pool; dropped before, it ends the stream, which
/// ends the pull at the peer.
struct PooledBody {
    body: Incoming,
    deadline: Pin<Box<Sleep>>,
    sender: Option<(Sender, OwnedSemaphorePermit)>,
    peer: PublicKey,
    pool: Arc<Inner>,
}

impl PooledBody {
    fn ended(&mut self) {
        if let Some((sender, _slot)) = self.sender.take() {
            self.pool.put_back(self.peer, sender);
        }
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = PullBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if this.body.is_end_stream() {
                    this.ended();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(PullBodyError { reason: format!("the peer broke off: {error}") })))
            }
            Poll::Ready(None) => {
                this.ended();
                Poll::Ready(None)
            }
            Poll::Pending if this.deadline.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Some(Err(PullBodyError { reason: "the deadline passed".to_owned() })))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for PooledBody {
    fn drop(&mut self) {
        // An empty body is never polled.
        if self.body.is_end_stream() {
            self.ended();
        }
    }
}

/// Prometheus's usual interval is up to a minute: a stream lives from one scrape to the next.
const IDLE_FOR: Duration = Duration::from_secs(90);
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// Streams of one peer that are kept.
const MAX_IDLE: usize = MAX_PULL_STREAMS;
const SILENT_PULLS: u32 = 3;
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// What a scraper may take off Prometheus's own timeout without telling.
const MOST_MARGIN: Duration = Duration::from_secs(1);
const MAX_BUFFER: usize = 64 * 1024;
