//! Answers the register protocol: proof of key and secret first, then the registry decides.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;

use super::{
    metrics::ScraperMetrics,
    outcome::{HandshakeFailure, RegistrationOutcome},
};
use crate::{
    identity::{KeyPair, PublicKey, SecretId, SharedSecret},
    network::{InboundStream, LinkStream, Links},
    registry::{Registry, RegistryError},
    telemetry::Chain,
    wire::{
        HandshakeError, HandshakeRefusal, Probed, REGISTER_PROTOCOL, RegisterReply, RegisterRequest,
        channel::{self, Channel, ChannelError},
    },
};

/// Longest wait for a peer to read its answer.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// Exchanges at once. Each costs a handshake, then waits for a disk flush that it shares with the others.
const MAX_EXCHANGES: usize = 512;
/// Exchanges of one peer at once: a client needs one at a time.
const MAX_EXCHANGES_PER_PEER: usize = 4;
/// Handshakes a second above the registrations, so that a peer that registers too often receives a `SlowDown`.
const EXTRA_HANDSHAKES: u32 = 20;
/// Warnings that strangers can cause.
const WARNINGS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).expect("thirty is not zero");
/// How often the rates of peers that are gone are dropped.
const UPKEEP_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Registrar {
    key: KeyPair,
    secrets: HashMap<SecretId, SharedSecret>,
    registry: Registry,
    links: Links,
    metrics: Arc<ScraperMetrics>,
    /// For the handshake and the request after.
    handshake_timeout: Duration,
    /// Exchanges under way, by peer.
    under_way: Mutex<HashMap<PublicKey, usize>>,
    /// Permits for exchanges with all other peers, and with peers that hold an alias: strangers cannot keep the latter from
    /// renewing.
    permits: [Arc<Semaphore>; 2],
    rates: DefaultKeyedRateLimiter<PublicKey>,
    /// Rates of handshakes, whose cost comes before any proof: a client never needs as many.
    handshake_rates: DefaultKeyedRateLimiter<PublicKey>,
    /// Rate of warnings with which a stranger could fill the log.
    warnings: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

impl Registrar {
    pub(super) fn new(
        key: KeyPair,
        secrets: Vec<SharedSecret>,
        registry: Registry,
        links: Links,
        metrics: Arc<ScraperMetrics>,
        per_second: NonZeroU32,
        handshake_timeout: Duration,
    ) -> Self {
        Self {
            key,
            secrets: secrets.into_iter().map(|secret| (secret.id(), secret)).collect(),
            registry,
            links,
            metrics,
            handshake_timeout,
            under_way: Mutex::default(),
            permits: [MAX_EXCHANGES; 2].map(|most| Arc::new(Semaphore::new(most))),
            rates: RateLimiter::keyed(Quota::per_second(per_second)),
            handshake_rates: RateLimiter::keyed(Quota::per_second(per_second.saturating_add(EXTRA_HANDSHAKES))),
            warnings: RateLimiter::direct(Quota::per_minute(WARNINGS_PER_MINUTE)),
            clock: DefaultClock::default(),
        }
    }

    /// Answers streams until `stop` fires; the exchanges under way are ended.
    pub(super) async fn run(self, mut streams: mpsc::Receiver<InboundStream>, stop: CancellationToken) {
        let registrar = Arc::new(self);
        let mut exchanges = JoinSet::new();
        let mut upkeep = time::interval(UPKEEP_EVERY);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = exchanges.join_next() => {}
                _ = upkeep.tick() => {
                    registrar.rates.retain_recent();
                    registrar.handshake_rates.retain_recent();
                }
                stream = streams.recv() => match stream {
                    Some(stream) => {
                        let Some(turn) = Turn::take(&registrar, stream.peer) else { continue };
                        exchanges.spawn(async move {
                            turn.registrar.answer(stream).await;
                            drop(turn);
                        });
                    }
                    None => break,
                },
            }
        }
        exchanges.shutdown().await;
    }

    async fn answer(&self, inbound: InboundStream) {
        let peer = inbound.peer;
        let over_newest = self.links.best(&peer) == Some(inbound.stream.link());
        let ended = match time::timeout(self.handshake_timeout, self.handshake(inbound)).await {
            Ok(Ok(Some((channel, request)))) => {
                if !over_newest && self.warnings.check().is_ok() {
                    tracing::warn!(%peer, "a peer registers over an older connection; have two processes the same key?");
                }
                let reply = self.reply(peer, request).await;
                // A peer that does not read its answer must not hold a permit for ever.
                time::timeout(REPLY_TIMEOUT, send(channel, &reply)).await.unwrap_or(Ok(()))
            }
            Ok(Ok(None)) => Ok(()),
            Ok(Err(error)) => {
                self.metrics.handshake_refusal(reason(&error));
                Err(error)
            }
            Err(_) => {
                self.metrics.handshake_refusal(HandshakeFailure::Timeout);
                tracing::debug!(%peer, "a register handshake took too long");
                Ok(())
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, error = %Chain(&error), "a registration broke off");
        }
    }

    /// The peer's request, sealed with a secret of ours, which is the proof. None if the peer's secret is none of ours;
    /// the refusal was sent.
    async fn handshake(
        &self,
        inbound: InboundStream,
    ) -> Result<Option<(Channel<LinkStream>, RegisterRequest)>, ChannelError> {
        let peer = inbound.peer;
        let pending = channel::accept(inbound.stream, &self.key, &peer, REGISTER_PROTOCOL).await?;
        let Some(secret) = self.secrets.get(&pending.secret_id()) else {
            self.metrics.handshake_refusal(HandshakeFailure::UnknownSecret);
            if self.warnings.check().is_ok() {
                tracing::warn!(%peer, secret = %pending.secret_id(), "a peer's shared secret is none of ours");
            }
            let _ = pending.refuse(HandshakeRefusal::UnknownSecret).await; // counted already, sent if possible
            return Ok(None);
        };
        let mut channel = pending.confirm(secret).await?;
        let request = channel.receive().await?;
        Ok(Some((channel, request)))
    }

    async fn reply(&self, peer: PublicKey, request: RegisterRequest) -> RegisterReply {
        if let Err(early) = self.rates.check_key(&peer) {
            self.metrics.registration(RegistrationOutcome::SlowDown);
            let wait = early.wait_time_from(self.clock.now());
            return RegisterReply::SlowDown { retry_after_ms: wait.as_millis().try_into().unwrap_or(u64::MAX) };
        }
        let linked = |holder: &PublicKey| self.links.path(holder).is_some();
        match request {
            RegisterRequest::Register(register) => {
                match self.registry.register(peer, &register, linked, SystemTime::now()).await {
                    Ok(registered) => {
                        self.links.has_proved(peer);
                        for outcome in &registered.outcomes {
                            self.metrics.registration(outcome);
                        }
                        RegisterReply::Registered(registered)
                    }
                    Err(error) => self.failed(peer, &error),
                }
            }
            RegisterRequest::Release => match self.registry.release_peer(peer).await {
                Ok(()) => {
                    self.links.let_go(&peer);
                    self.metrics.registration(RegistrationOutcome::Released);
                    RegisterReply::Released
                }
                Err(error) => self.failed(peer, &error),
            },
            RegisterRequest::Probe(probe) => {
                match self.registry.alias_statuses(&probe.aliases, linked, SystemTime::now()) {
                    Ok(statuses) => {
                        self.metrics.registration(RegistrationOutcome::Probed);
                        RegisterReply::Probed(Probed { unix_ms: unix_ms(), statuses })
                    }
                    Err(error) => self.failed(peer, &error),
                }
            }
        }
    }

    fn failed(&self, peer: PublicKey, error: &RegistryError) -> RegisterReply {
        let reply = error.reply();
        if reply == RegisterReply::Malformed {
            self.metrics.registration(RegistrationOutcome::Malformed);
            tracing::debug!(%peer, error = %Chain(error), "refused a registration");
        } else {
            self.metrics.registration(RegistrationOutcome::Unavailable);
            tracing::warn!(%peer, error = %Chain(error), "could not register a peer");
        }
        reply
    }
}

/// One of the few exchanges that a peer may have under way: no peer can hold all permits.
struct Turn {
    registrar: Arc<Registrar>,
    peer: PublicKey,
    _permit: OwnedSemaphorePermit,
}

impl Turn {
    fn take(registrar: &Arc<Registrar>, peer: PublicKey) -> Option<Self> {
        let turn = Self::find(registrar, peer);
        if turn.is_none() {
            registrar.metrics.handshake_refusal(HandshakeFailure::Busy);
        }
        turn
    }

    fn find(registrar: &Arc<Registrar>, peer: PublicKey) -> Option<Self> {
        registrar.handshake_rates.check_key(&peer).ok()?;
        let known = registrar.links.is_kept(&peer);
        let permit = Arc::clone(&registrar.permits[usize::from(known)]).try_acquire_owned().ok()?;
        let most = if known { MAX_EXCHANGES_PER_PEER } else { 1 };
        let mut under_way = registrar.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let count = under_way.entry(peer).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        registrar.metrics.registration_began();
        Some(Self { registrar: Arc::clone(registrar), peer, _permit: permit })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.registrar.metrics.registration_ended();
        let mut under_way = self.registrar.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = under_way.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.peer);
            }
        }
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}

async fn send(mut channel: Channel<LinkStream>, reply: &RegisterReply) -> Result<(), ChannelError> {
    channel.send(reply).await?;
    channel.close().await
}

fn reason(error: &ChannelError) -> HandshakeFailure {
    match error {
        ChannelError::Handshake(HandshakeError::IdentityMismatch { .. }) => HandshakeFailure::WrongKey,
        ChannelError::Session(_) => HandshakeFailure::BadProof,
        ChannelError::Frame(_) | ChannelError::Handshake(_) | ChannelError::Codec(_) => HandshakeFailure::Malformed,
        _ => HandshakeFailure::Broken,
    }
}
