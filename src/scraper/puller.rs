//! Pulls expositions: HTTP/1.1 over streams to peers, which are pooled and kept alive.
//!
//! A new stream costs two round trips; a kept one costs none. Idle streams of a peer are closed when they are too old,
//! when a better connection to the peer exists, and when the last link to the peer goes.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{self, BoxFuture, FutureExt};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast},
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    config::ScrapeConfig,
    pull::{Pull, PullBody, PullError},
    reconnect_grace::ReconnectGrace,
    shares::{Share, Shares},
    silence::Silence,
    stream_place::StreamPlace,
};
use crate::{
    http::{BoxError, Connection, Place, Pool, PoolLimits, PullRequest, SendError},
    identity::PublicKey,
    network::{LinkEvent, LinkId, LinkPath, LinkTransport, MAX_PULL_STREAMS, Network, PULL_PROTOCOL, patience},
    telemetry::{Limit, remote_message},
    wire::{Alias, PullReason, scrape_timeout, set_scrape_timeout},
};

/// Idle streams of one peer. Prometheus's usual interval is up to a minute: a stream lives from one scrape to the next.
const POOL: PoolLimits = PoolLimits { max_idle: MAX_PULL_STREAMS, idle_for: Duration::from_secs(90) };
/// How often idle streams are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// How much sooner than Prometheus's own timeout a pull may end without a header that states it: the answer of the
/// peer still comes in time.
const MAX_MARGIN: Duration = Duration::from_secs(1);
/// A pull over QUIC that has waited so long for its answer has the connection probed: no kernel closes that of a process which
/// was killed, and QUIC itself finds out after 25 s. Most exporters answer sooner.
const QUIC_SUSPECTED_AFTER: Duration = Duration::from_secs(1);

/// Pulls over the links of a [`Network`]. Cheap to clone.
#[derive(Clone)]
pub(super) struct Puller(Arc<Inner>);

struct Inner {
    network: Network,
    pulls_per_alias: usize,
    streams: Pool<PublicKey, LinkId>,
    /// The pulls that each peer is asked for at once, shared out among its aliases.
    of_peers: Arc<Shares<PublicKey, Alias>>,
    /// Permits for those of each alias, so that readers of one alias who stall leave the peer's others the rest.
    of_aliases: Mutex<HashMap<Alias, Arc<Semaphore>>>,
    silence: Arc<Silence>,
    grace: ReconnectGrace,
    given_up: TaskTracker,
}

/// The place of one pull, at its alias and at its peer.
struct PullPlace {
    of_peer: StreamPlace<Alias>,
    _of_alias: OwnedSemaphorePermit,
}

impl Puller {
    pub(super) fn new(network: Network, config: &ScrapeConfig) -> Self {
        let links = network.links().clone();
        Self(Arc::new(Inner {
            network,
            pulls_per_alias: config.max_pulls_per_alias.min(MAX_PULL_STREAMS),
            streams: Pool::new(POOL, move |peer, link| links.best(peer) == Some(*link)),
            of_peers: Shares::new(usize::MAX, config.max_pulls_per_peer.min(MAX_PULL_STREAMS)),
            of_aliases: Mutex::default(),
            silence: Arc::new(Silence::new()),
            grace: ReconnectGrace::new(),
            given_up: TaskTracker::new(),
        }))
    }

    pub(super) fn is_linked(&self, peer: &PublicKey) -> bool {
        self.0.network.links().path(peer).is_some()
    }

    /// Pulls from a peer that has a link; without one, fails at once.
    pub(super) async fn pull_linked(
        &self,
        alias: &Alias,
        peer: PublicKey,
        request: PullRequest,
    ) -> Result<Response<PullBody>, PullError> {
        let Self(inner) = self;
        let (began, deadline) = (Instant::now(), request.deadline);
        let broken = |source| PullError::Broken { alias: alias.clone(), peer, source };
        let late = || PullError::Deadline { alias: alias.clone(), peer, limit: deadline - began };

        let request = pull_request(alias, request).map_err(|error| broken(error.into()))?;
        let busy = || PullError::Busy { alias: alias.clone(), peer };
        let place = inner.place(&peer, alias, deadline).await.ok_or_else(busy)?;

        let (asked, evicted) = (Instant::now(), place.of_peer.evicted());
        let sending = async {
            tokio::select! {
                sent = inner.streams.send(peer, request, inner.open(&peer)) => sent,
                never = inner.suspect_quic(peer) => match never {},
            }
        };
        let sending = time::timeout_at(deadline, sending);
        let Ok(sent) = evicted.run_until_cancelled(sending).await.ok_or_else(busy)? else {
            inner.deadline_missed(peer, deadline - asked);
            return Err(late());
        };
        let response = sent.map_err(|error| match error {
            SendError::Open(error) => broken(error),
            SendError::Http(error) => broken(error.into()),
        })?;
        inner.silence.answered(&peer);

        let response = response.map(|body| body.holding(place));
        if response.status() != StatusCode::OK {
            let (status, reason) = (response.status(), PullReason::of(response.headers()));
            let message = remote_message(response.into_body(), deadline).await;
            return Err(PullError::Refused { alias: alias.clone(), peer, status, reason, message });
        }
        let end = async move { drop(time::timeout_at(deadline, evicted.cancelled_owned()).await) };
        Ok(response.map(|body| PullBody::new(body.until(end).map_err(Into::into))))
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
                        self.0.silence.answered(&peer);
                    }
                    Ok(LinkEvent::Up(_)) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => self.0.sweep(),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
            }
        }
        self.0.streams.close().await;
        self.0.silence.close().await;
        self.0.given_up.close();
        self.0.given_up.wait().await;
    }
}

impl Inner {
    /// A place for one pull. None if there was none in time.
    async fn place(&self, peer: &PublicKey, alias: &Alias, deadline: Instant) -> Option<PullPlace> {
        let Ok(of_alias) = time::timeout_at(deadline, self.of_alias(alias).acquire_owned()).await else {
            self.network.refusals().count(Limit::PullsPerAlias, format_args!("alias {alias}"));
            return None;
        };
        let of_peer = time::timeout_at(deadline, self.of_peers.wait(*peer, alias.clone())).await.ok().flatten();
        if of_peer.as_ref().is_none_or(Share::has_displaced) {
            self.network.refusals().count(Limit::PullsPerPeer, peer);
        }
        // No semaphore is ever closed.
        Some(PullPlace { of_peer: StreamPlace::new(of_peer?, self.given_up.clone()), _of_alias: of_alias.ok()? })
    }

    fn of_alias(&self, alias: &Alias) -> Arc<Semaphore> {
        let mut all = self.of_aliases.lock().unwrap_or_else(PoisonError::into_inner);
        let permits = || Arc::new(Semaphore::new(self.pulls_per_alias));
        Arc::clone(all.entry(alias.clone()).or_insert_with(permits))
    }

    fn sweep(&self) {
        // A semaphore whose permits are held or waited for has other owners than the table.
        let mut of_aliases = self.of_aliases.lock().unwrap_or_else(PoisonError::into_inner);
        of_aliases.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        drop(of_aliases);
        self.silence.sweep();
        self.grace.forget_old();
        self.streams.sweep();
    }

    /// Notes a pull without an answer, which had so long. After several in a row the connection is probed, and closed if it
    /// swallows the probe too: scrapes then fail at once until the peer is back.
    fn deadline_missed(self: &Arc<Self>, peer: PublicKey, had: Duration) {
        if self.silence.missed(peer, had) {
            self.probe(peer);
        }
    }

    /// Has the connection probed if it is a direct one over QUIC, after a while, in which an answer should have come.
    async fn suspect_quic(self: &Arc<Self>, peer: PublicKey) -> Infallible {
        patience::sleep(QUIC_SUSPECTED_AFTER).await;
        let way = self.network.links().way(&peer);
        if way == Some((LinkPath::Direct, Some(LinkTransport::Quic))) && self.silence.suspected(peer) {
            self.probe(peer);
        }
        future::pending().await
    }

    fn probe(self: &Arc<Self>, peer: PublicKey) {
        let link = self.network.links().best(&peer);
        let (prober, closer) = (Arc::clone(self), Arc::clone(self));
        let probe = async move {
            let no_alias = Request::get("/").body(Empty::new())?;
            prober.open(&peer).await?.send(no_alias).await?;
            Ok::<_, BoxError>(())
        };
        let close = async move {
            if let Some(link) = link {
                closer.network.disconnect(peer, link).await;
            }
        };
        self.silence.probe(peer, probe, close);
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
            if !inner.grace.await_link(inner.network.links(), &peer, request.deadline).await {
                return Err(PullError::NotConnected { alias: alias.clone(), peer });
            }
            self.pull_linked(alias, peer, request).await
        }
        .boxed()
    }
}

impl Place for PullPlace {
    fn kept(&mut self) {
        self.of_peer.kept();
    }
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
        scraper::stream_place::GIVEN_UP_FOR,
    };

    async fn puller(max_pulls_per_alias: usize, max_pulls_per_peer: usize) -> Arc<Inner> {
        let config = NetworkConfig::new(NetworkRole::Client);
        let (network, _) = Network::start(&KeyPair::generate(), config, Vec::new()).await.expect("starts");
        Puller::new(network, &ScrapeConfig { max_pulls_per_alias, max_pulls_per_peer, ..ScrapeConfig::default() }).0
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[tokio::test]
    async fn an_alias_has_so_many_pulls_at_once_and_those_that_find_none_are_counted() {
        let (inner, peer) = (puller(2, 64).await, KeyPair::generate().public());
        let [stalled, other] = ["stalled", "other"].map(|alias| alias.parse::<Alias>().expect("an alias"));
        let held = [(); 2].map(|()| inner.place(&peer, &stalled, soon()));
        let held = future::join_all(held).await;
        assert!(held.iter().all(Option::is_some));
        assert!(inner.place(&peer, &stalled, soon()).await.is_none());
        assert_eq!(inner.network.refusals().counted(Limit::PullsPerAlias), 1);
        assert!(inner.place(&peer, &other, soon()).await.is_some());
        drop(held);
        assert!(inner.place(&peer, &stalled, soon()).await.is_some());
    }

    /// Before: readers of two aliases who stalled left the third nothing.
    #[tokio::test]
    async fn aliases_with_many_pulls_give_a_place_up_for_one_without() {
        let (inner, peer) = (puller(2, 4).await, KeyPair::generate().public());
        let [first, second, third] =
            ["first", "second", "third"].map(|alias| alias.parse::<Alias>().expect("an alias"));
        let held = [&first, &first, &second, &second].map(|alias| inner.place(&peer, alias, soon()));
        let mut held: Vec<_> = future::join_all(held).await.into_iter().flatten().collect();
        let ends = Instant::now() + GIVEN_UP_FOR;
        let displacing = tokio::spawn({
            let inner = Arc::clone(&inner);
            async move { inner.place(&peer, &third, Instant::now() + Duration::from_secs(60)).await }
        });
        held[0].of_peer.evicted().cancelled().await;
        drop(held.remove(0));
        assert!(displacing.await.expect("ends").is_some());
        assert!(Instant::now() >= ends, "the stream that was given up counts until the peer has noticed");
        assert!(!held.iter().any(|place| place.of_peer.evicted().is_cancelled()));
        assert_eq!(inner.network.refusals().counted(Limit::PullsPerPeer), 1);
    }

    /// Before: scrapes with a timeout of a millisecond opened streams faster than their peer noticed the end of the last
    /// ones, which cost the link.
    #[tokio::test]
    async fn a_stream_that_was_given_up_keeps_its_place_until_the_peer_has_noticed() {
        let (inner, peer) = (puller(1, 1).await, KeyPair::generate().public());
        let alias = "a".parse::<Alias>().expect("an alias");
        drop(inner.place(&peer, &alias, soon()).await.expect("a place"));
        let began = Instant::now();
        let mut place = inner.place(&peer, &alias, Instant::now() + Duration::from_secs(60)).await.expect("a place");
        assert!(began.elapsed() >= GIVEN_UP_FOR);
        place.kept();
        drop(place);
        assert!(inner.place(&peer, &alias, Instant::now()).await.is_some(), "one that is kept has a place at once");
    }
}
