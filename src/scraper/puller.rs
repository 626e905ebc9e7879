//! Pulls expositions: HTTP/1.1 over streams to peers, which are pooled and kept alive.
//!
//! A new stream costs two round trips; a kept one costs none. Idle streams of a peer are closed when they are too old,
//! when a better connection to the peer exists, and when the last link to the peer goes.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast},
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    pull::{Pull, PullBody, PullError},
    reconnect_grace::ReconnectGrace,
};
use crate::{
    http::{BoxError, Connection, Pool, PoolLimits, PullRequest, SendError},
    identity::PublicKey,
    network::{LinkEvent, LinkId, MAX_PULL_STREAMS, Network, PULL_PROTOCOL},
    telemetry::{Limit, remote_message},
    wire::{Alias, scrape_timeout, set_scrape_timeout},
};

/// Idle streams of one peer. Prometheus's usual interval is up to a minute: a stream lives from one scrape to the next.
const POOL: PoolLimits = PoolLimits { max_idle: MAX_PULL_STREAMS, idle_for: Duration::from_secs(90) };
/// How often idle streams are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// Deadlines in a row that a peer may miss before its connection is probed.
const MAX_MISSED_DEADLINES: u32 = 3;
/// Longest wait for the answer to a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How much sooner than Prometheus's own timeout a pull may end without a header that states it: the answer of the
/// peer still comes in time.
const MAX_MARGIN: Duration = Duration::from_secs(1);

/// Pulls over the links of a [`Network`]. Cheap to clone.
#[derive(Clone)]
pub(super) struct Puller(Arc<Inner>);

struct Inner {
    network: Network,
    pulls_per_alias: usize,
    streams: Pool<PublicKey, LinkId>,
    /// Permits for the pulls that one peer is asked for at once.
    permits: Mutex<HashMap<PublicKey, Arc<Semaphore>>>,
    /// The same of each alias, so that readers of one alias who stall leave the peer's others the rest.
    alias_permits: Mutex<HashMap<Alias, Arc<Semaphore>>>,
    /// Deadlines in a row that each peer missed. A live peer answers a little before the deadline.
    missed: Mutex<HashMap<PublicKey, u32>>,
    grace: ReconnectGrace,
    probes: TaskTracker,
}

impl Puller {
    /// `pulls_per_alias` is [`ScrapeConfig::max_pulls_per_alias`](super::ScrapeConfig).
    pub(super) fn new(network: Network, pulls_per_alias: usize) -> Self {
        let links = network.links().clone();
        Self(Arc::new(Inner {
            network,
            pulls_per_alias: pulls_per_alias.min(MAX_PULL_STREAMS),
            streams: Pool::new(POOL, move |peer, link| links.best(peer) == Some(*link)),
            permits: Mutex::default(),
            alias_permits: Mutex::default(),
            missed: Mutex::default(),
            grace: ReconnectGrace::new(),
            probes: TaskTracker::new(),
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
                        self.0.streams.forget(&peer);
                        self.0.missed().remove(&peer);
                    }
                    Ok(LinkEvent::Up(_)) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => self.0.sweep(),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
            }
        }
        self.0.streams.close().await;
        self.0.probes.close();
        self.0.probes.wait().await;
    }
}

impl Inner {
    /// Permits for one pull of the peer: more streams than a connection may have would end the connection. None if there
    /// were none in time.
    async fn permits(&self, peer: &PublicKey, alias: &Alias, deadline: Instant) -> Option<[OwnedSemaphorePermit; 2]> {
        let of_alias = semaphore(&self.alias_permits, alias, self.pulls_per_alias).acquire_owned();
        let Ok(of_alias) = time::timeout_at(deadline, of_alias).await else {
            self.network.refusals().count(Limit::PullsPerAlias, format_args!("alias {alias}"));
            return None;
        };
        let of_peer = semaphore(&self.permits, peer, MAX_PULL_STREAMS).acquire_owned();
        let of_peer = time::timeout_at(deadline, of_peer).await.ok()?;
        // No semaphore is ever closed.
        Some([of_alias.ok()?, of_peer.ok()?])
    }

    fn sweep(&self) {
        forget_unused(&self.permits);
        forget_unused(&self.alias_permits);
        self.grace.forget_old();
        self.streams.sweep();
    }

    fn missed(&self) -> MutexGuard<'_, HashMap<PublicKey, u32>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a pull without an answer. After several in a row the connection is probed. If it swallows the probe too it
    /// is dead, whatever the kernel still hopes, and is closed: scrapes then fail at once until the peer is back.
    fn deadline_missed(self: &Arc<Self>, peer: PublicKey) {
        {
            let mut missed = self.missed();
            let times = missed.entry(peer).or_default();
            *times += 1;
            if *times < MAX_MISSED_DEADLINES {
                return;
            }
            *times = 0;
        }
        let puller = Arc::clone(self);
        self.probes.spawn(async move {
            let Some(link) = puller.network.links().best(&peer) else { return };
            let probe = async {
                let no_alias = Request::get("/").body(Empty::new())?;
                puller.open(&peer).await?.send(no_alias).await?;
                Ok::<_, BoxError>(())
            };
            if !matches!(time::timeout(PROBE_TIMEOUT, probe).await, Ok(Ok(()))) {
                tracing::warn!(%peer, "a peer answered neither several pulls nor a probe: its connection is closed");
                puller.network.disconnect(peer, link).await;
            }
        });
    }

    async fn open(&self, peer: &PublicKey) -> Result<Connection<LinkId>, BoxError> {
        let stream = self.network.open(peer, PULL_PROTOCOL).await?;
        let link = stream.link();
        Ok(self.streams.connect(stream, link).await?)
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
            let Self(inner) = self;
            let (began, deadline) = (Instant::now(), request.deadline);
            let broken = |source| PullError::Broken { alias: alias.clone(), peer, source };
            let late = || PullError::Deadline { alias: alias.clone(), peer, limit: deadline - began };

            if !inner.grace.await_link(inner.network.links(), &peer, deadline).await {
                return Err(PullError::NotConnected { alias: alias.clone(), peer });
            }
            let request = pull_request(alias, request).map_err(|error| broken(error.into()))?;
            let busy = || PullError::Busy { alias: alias.clone(), peer };
            let permits = inner.permits(&peer, alias, deadline).await.ok_or_else(busy)?;

            let sending = inner.streams.send(peer, request, inner.open(&peer));
            let Ok(sent) = time::timeout_at(deadline, sending).await else {
                inner.deadline_missed(peer);
                return Err(late());
            };
            let response = sent.map_err(|error| match error {
                SendError::Open(error) => broken(error),
                SendError::Http(error) => broken(error.into()),
            })?;
            inner.missed().remove(&peer);

            if response.status() != StatusCode::OK {
                let status = response.status();
                let message = remote_message(response.into_body(), deadline).await;
                return Err(PullError::Refused { alias: alias.clone(), peer, status, message });
            }
            Ok(response.map(|body| PullBody::new(body.until(deadline).holding(permits).map_err(Into::into))))
        }
        .boxed()
    }
}

fn semaphore<K: Clone + Eq + Hash>(all: &Mutex<HashMap<K, Arc<Semaphore>>>, key: &K, permits: usize) -> Arc<Semaphore> {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(all.entry(key.clone()).or_insert_with(|| Arc::new(Semaphore::new(permits))))
}

/// A semaphore whose permits are held or waited for has other owners than the table.
fn forget_unused<K: Eq + Hash>(all: &Mutex<HashMap<K, Arc<Semaphore>>>) {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
}

fn pull_request(alias: &Alias, asked: PullRequest) -> Result<Request<Empty<Bytes>>, http::Error> {
    let uri = match asked.query {
        Some(query) => format!("/{alias}?{query}"),
        None => format!("/{alias}"),
    };
    let mut request = Request::get(uri).body(Empty::new())?;
    *request.headers_mut() = asked.headers;
    state_limit(request.headers_mut(), asked.deadline.saturating_duration_since(Instant::now()));
    Ok(request)
}

/// States the time left, unless Prometheus's own header is close enough. A peer that does not know how long it has, or
/// assumes a longer deadline, would answer too late.
fn state_limit(headers: &mut HeaderMap, limit: Duration) {
    let stated = scrape_timeout(headers).ok().flatten();
    if stated.is_none_or(|stated| stated > limit + MAX_MARGIN) {
        set_scrape_timeout(headers, limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::KeyPair,
        network::{NetworkConfig, NetworkRole},
    };

    #[tokio::test]
    async fn an_alias_has_so_many_pulls_at_once_and_those_that_find_none_are_counted() {
        let config = NetworkConfig::new(NetworkRole::Client);
        let (network, _) = Network::start(&KeyPair::generate(), config, Vec::new()).await.expect("starts");
        let Puller(inner) = Puller::new(network, 2);
        let peer = KeyPair::generate().public();
        let [stalled, other] = ["stalled", "other"].map(|alias| alias.parse::<Alias>().expect("an alias"));
        let ask = |alias| inner.permits(&peer, alias, Instant::now() + Duration::from_millis(20));
        let held = [ask(&stalled).await.expect("one"), ask(&stalled).await.expect("two")];
        assert!(ask(&stalled).await.is_none());
        assert_eq!(inner.network.refusals().counted(Limit::PullsPerAlias), 1);
        assert!(ask(&other).await.is_some());
        drop(held);
        assert!(ask(&stalled).await.is_some());
    }
}
