//! Answers the register protocol: proof of key and secret first, then the registry decides.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use tokio::{sync::mpsc, task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use super::{
    metrics::ScraperMetrics,
    outcome::{HandshakeFailure, RegistrationOutcome},
    turn::{Turn, Turns},
};
use crate::{
    identity::{KeyPair, PublicKey, SecretId, SharedSecret},
    network::{InboundStream, LinkStream, Links},
    registry::{Registry, RegistryError},
    telemetry::{Chain, LogRate},
    wire::{
        HandshakeError, HandshakeRefusal, Probed, REGISTER_PROTOCOL, RegisterReply, RegisterRequest,
        channel::{self, Channel, ChannelError},
    },
};

/// Longest wait for a peer to read its answer.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes a second above the registrations, so that a peer that registers too often receives a `SlowDown`.
const EXTRA_HANDSHAKES: u32 = 20;
/// Log lines that all peers together can cause.
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
    turns: Arc<Turns>,
    rates: DefaultKeyedRateLimiter<PublicKey>,
    /// Rates of handshakes, whose cost comes before any proof: a client never needs as many.
    handshake_rates: DefaultKeyedRateLimiter<PublicKey>,
    /// Rate of warnings with which peers could fill the log.
    warnings: LogRate,
    clock: DefaultClock,
}

impl Registrar {
    pub(super) fn new(
        key: KeyPair,
        secrets: Vec<SharedSecret>,
        registry: Registry,
        turns: Turns,
        per_second: NonZeroU32,
        handshake_timeout: Duration,
    ) -> Self {
        Self {
            key,
            secrets: secrets.into_iter().map(|secret| (secret.id(), secret)).collect(),
            registry,
            links: turns.links.clone(),
            metrics: Arc::clone(&turns.metrics),
            handshake_timeout,
            turns: Arc::new(turns),
            rates: RateLimiter::keyed(Quota::per_second(per_second)),
            handshake_rates: RateLimiter::keyed(Quota::per_second(per_second.saturating_add(EXTRA_HANDSHAKES))),
            warnings: LogRate::new(WARNINGS_PER_MINUTE),
            clock: DefaultClock::default(),
        }
    }

    /// Answers streams until `stop` fires; the exchanges under way are ended. The first streams wait until the table is
    /// loaded, which tells holders of an alias from strangers.
    pub(super) async fn run(self, mut streams: mpsc::Receiver<InboundStream>, stop: CancellationToken) {
        let registrar = Arc::new(self);
        if stop.run_until_cancelled(registrar.links.known()).await.is_none() {
            return;
        }
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
                    registrar.warnings.forget_old();
                }
                stream = streams.recv() => match stream {
                    Some(stream) => {
                        let Some(turn) = registrar.begin(&stream) else { continue };
                        let registrar = Arc::clone(&registrar);
                        exchanges.spawn(async move { registrar.answer(stream, turn).await });
                    }
                    None => break,
                },
            }
        }
        exchanges.shutdown().await;
    }

    fn begin(&self, stream: &InboundStream) -> Option<Turn> {
        let in_rate = self.handshake_rates.check_key(&stream.peer).is_ok();
        let turn = in_rate.then(|| self.turns.begin(stream.peer, stream.stream.link())).flatten();
        if turn.is_none() {
            self.metrics.handshake_refusal(HandshakeFailure::Busy);
        }
        turn
    }

    async fn answer(&self, inbound: InboundStream, mut turn: Turn) {
        let peer = inbound.peer;
        let over_newest = self.links.best(&peer) == Some(inbound.stream.link());
        let ended = match time::timeout(self.handshake_timeout, self.handshake(inbound, &mut turn)).await {
            Ok(Ok(Some((channel, request)))) => {
                if !over_newest && let Some(left_out) = self.warnings.line(&peer) {
                    tracing::warn!(%peer, left_out, "a peer registers over an older connection; have two processes the same key?");
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

    /// The peer's request, sealed with a secret of ours, which is the proof. None if there is no place for the peer, or the
    /// peer's secret is none of ours; the refusal of the latter was sent.
    async fn handshake(
        &self,
        inbound: InboundStream,
        turn: &mut Turn,
    ) -> Result<Option<(Channel<LinkStream>, RegisterRequest)>, ChannelError> {
        let peer = inbound.peer;
        let first = channel::accept(inbound.stream, &self.key, &peer, REGISTER_PROTOCOL);
        let Some(pending) = turn.wait_for(first).await else {
            self.metrics.handshake_refusal(HandshakeFailure::Timeout);
            return Ok(None);
        };
        let pending = pending?;
        if !turn.take_place() {
            self.metrics.handshake_refusal(HandshakeFailure::Busy);
            return Ok(None);
        }
        let Some(secret) = self.secrets.get(&pending.secret_id()) else {
            self.metrics.handshake_refusal(HandshakeFailure::UnknownSecret);
            if let Some(left_out) = self.warnings.line(&peer) {
                tracing::warn!(%peer, secret = %pending.secret_id(), left_out, "a peer's shared secret is none of ours");
            }
            let _ = pending.refuse(HandshakeRefusal::UnknownSecret).await; // counted already, sent if possible
            return Ok(None);
        };
        let mut channel = pending.confirm(secret).await?;
        let request = channel.receive().await?;
        // Whatever becomes of the request, the peer is no stranger.
        self.links.keep(peer);
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
            if let Some(left_out) = self.warnings.line(&peer) {
                tracing::warn!(%peer, error = %Chain(error), left_out, "could not register a peer");
            }
        }
        reply
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
