//! Answers the register protocol: proof of key and secret first, then the registry decides.

mod farewell;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;

use super::{
    config::RegistrationLimits,
    enforcement::Enforcement,
    group::{Group, Members, Presences},
    metrics::ScraperMetrics,
    outcome::{HandshakeFailure, RegistrationOutcome},
    processes::{Admission, Processes},
    turn::{Turn, Turns},
    warnings::Warnings,
};
use farewell::Farewells;

use crate::{
    access::{Policy, Refused},
    identity::{KeyPair, PublicKey, SecretId},
    network::{InboundStream, LinkId, LinkStream, Links, Network},
    registry::{Presence, Registrant, Registry, RegistryError},
    telemetry::{Chain, Limit, Refusals},
    wire::{
        GroupMember, HandshakeError, HandshakeRefusal, InstanceId, MAX_MEMBERS, Probed, REGISTER_PROTOCOL, Register,
        RegisterFrom, RegisterReply, RegisterRequest,
        channel::{self, Channel, ChannelError},
    },
};

/// Longest wait for a peer to read its answer.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes a second above the registrations, so that a peer that registers too often receives a `SlowDown`.
const EXTRA_HANDSHAKES: u32 = 20;
/// Longest wait for a refused process to close its connection, after it has read why.
const GOODBYE: Duration = Duration::from_secs(1);
/// Bytes that a peer may have sent back.
const MAX_ECHO: usize = 64 * 1024;
/// Requests of more than 256 KiB, which have many targets, that are received at once.
const LONG_MESSAGES: usize = 32;
/// How often the rates of peers that are gone are dropped.
const UPKEEP_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Registrar {
    key: KeyPair,
    policy: Policy,
    enforcement: Enforcement,
    registry: Registry,
    group: Group,
    links: Links,
    network: Network,
    /// The scrapers of the group, of which clients are told.
    members: Option<Members>,
    processes: Processes,
    metrics: Arc<ScraperMetrics>,
    refusals: Arc<Refusals>,
    /// For the handshake and the request after.
    handshake_timeout: Duration,
    turns: Arc<Turns>,
    /// Room for requests of many targets.
    long_messages: Semaphore,
    farewells: Farewells,
    rates: DefaultKeyedRateLimiter<PublicKey>,
    /// Rates of handshakes, whose cost comes before any proof: a client never needs as many.
    handshake_rates: DefaultKeyedRateLimiter<PublicKey>,
    warnings: Warnings,
    clock: DefaultClock,
}

impl Registrar {
    pub(super) fn new(
        key: KeyPair,
        policy: Policy,
        registry: Registry,
        group: Group,
        network: Network,
        limits: RegistrationLimits,
        metrics: Arc<ScraperMetrics>,
    ) -> Self {
        let (links, refusals) = (network.links().clone(), Arc::clone(network.refusals()));
        let rate = limits.per_second;
        Self {
            key,
            enforcement: Enforcement { policy: policy.clone(), registry: registry.clone(), network: network.clone() },
            policy,
            handshake_timeout: limits.handshake_timeout,
            turns: Arc::new(Turns::new(
                links.clone(),
                registry.clone(),
                limits,
                Arc::clone(&metrics),
                Arc::clone(&refusals),
            )),
            long_messages: Semaphore::new(LONG_MESSAGES),
            farewells: Farewells::default(),
            registry,
            group,
            links,
            metrics,
            refusals,
            processes: Processes::new(network.clone()),
            network,
            members: None,
            rates: RateLimiter::keyed(Quota::per_second(rate)),
            handshake_rates: RateLimiter::keyed(Quota::per_second(rate.saturating_add(EXTRA_HANDSHAKES))),
            warnings: Warnings::new(),
            clock: DefaultClock::default(),
        }
    }

    /// Tells clients that ask for the group of these.
    pub(super) fn naming(self, members: Option<Members>) -> Self {
        Self { members, ..self }
    }

    /// Answers streams until `stop` fires, farewells first; the exchanges under way are ended. The first streams wait until the
    /// table is loaded, which tells holders of an alias from strangers.
    pub(super) async fn run(
        self,
        mut streams: mpsc::Receiver<InboundStream>,
        mut farewells: mpsc::Receiver<InboundStream>,
        stop: CancellationToken,
    ) {
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
                    registrar.processes.forget_gone();
                    registrar.metrics.set_duplicate_keys(registrar.processes.contested());
                    registrar.warnings.forget_old();
                }
                Some(stream) = farewells.recv() => {
                    let registrar = Arc::clone(&registrar);
                    exchanges.spawn(async move { registrar.farewell(stream).await });
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
        let turn = if self.handshake_rates.check_key(&stream.peer).is_ok() {
            self.turns.begin(stream.peer, stream.stream.link())
        } else {
            self.refusals.count(Limit::RegistrationRate, stream.peer);
            None
        };
        if turn.is_none() {
            self.metrics.handshake_refusal(HandshakeFailure::Busy);
        }
        turn
    }

    async fn answer(&self, inbound: InboundStream, mut turn: Turn) {
        let (peer, link) = (inbound.peer, inbound.stream.link());
        let evicted = turn.evicted();
        let answered = evicted.run_until_cancelled(self.exchange(inbound, &mut turn)).await;
        drop(turn);
        match answered {
            None => {
                self.metrics.handshake_refusal(HandshakeFailure::Busy);
                tracing::debug!(%peer, "a registration gave its place up");
            }
            Some(Some(RegisterReply::InUse)) => {
                let closed = self.links.wait_until(|| !self.links.is_listed(&peer, link));
                if time::timeout(GOODBYE, closed).await.is_err() {
                    self.network.close(link, "another process holds its key").await;
                }
            }
            Some(_) => {}
        }
    }

    /// Answers one request; returns the reply if there was a request.
    async fn exchange(&self, inbound: InboundStream, turn: &mut Turn) -> Option<RegisterReply> {
        let (peer, link) = (inbound.peer, inbound.stream.link());
        let broke_off =
            |error: &ChannelError| tracing::debug!(%peer, error = %Chain(error), "a registration broke off");
        let asked = time::timeout(self.handshake_timeout, self.handshake(inbound, turn)).await.unwrap_or_else(|_| {
            self.metrics.handshake_refusal(HandshakeFailure::Timeout);
            tracing::debug!(%peer, "a register handshake took too long");
            Ok(None)
        });
        let (channel, secret, request) = asked
            .inspect_err(|error| {
                self.metrics.handshake_refusal(reason(error));
                broke_off(error);
            })
            .ok()??;
        let reply = self.reply(peer, link, secret, request).await;
        // A peer that does not read its answer must not hold a place for ever.
        let sent = time::timeout(REPLY_TIMEOUT, send(channel, &reply)).await;
        if let Ok(Err(error)) = sent {
            broke_off(&error);
        }
        Some(reply)
    }

    /// The peer's request, sealed with a secret of ours, which is the proof. None if there is no place for the peer, or the
    /// peer's secret is none of ours; the refusal of the latter was sent.
    async fn handshake(
        &self,
        inbound: InboundStream,
        turn: &mut Turn,
    ) -> Result<Option<(Channel<LinkStream>, SecretId, RegisterRequest)>, ChannelError> {
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
        let secret = match self.policy.find(pending.secret_id(), &peer, SystemTime::now()) {
            Ok(secret) => secret,
            Err(refused) => {
                let refusal = self.refused(peer, pending.secret_id(), refused);
                let _ = pending.refuse(refusal).await; // counted already, sent if possible
                return Ok(None);
            }
        };
        let mut channel = pending.confirm(&secret).await?;
        let request = channel.receive_with_room(&self.long_messages).await?;
        Ok(Some((channel, secret.id(), request)))
    }

    /// Notes that a peer may not use a secret; what the peer is told.
    fn refused(&self, peer: PublicKey, secret: SecretId, refused: Refused) -> HandshakeRefusal {
        let (failure, refusal) = match refused {
            Refused::Unknown => (HandshakeFailure::UnknownSecret, HandshakeRefusal::UnknownSecret),
            Refused::NotYet | Refused::Expired | Refused::UsedUp | Refused::BlockedKey => {
                (HandshakeFailure::NotAdmitted, HandshakeRefusal::NotAdmitted)
            }
            Refused::Unwritten => (HandshakeFailure::Busy, HandshakeRefusal::Unavailable),
        };
        self.metrics.handshake_refusal(failure);
        self.warnings.refused_secret(peer, secret, refused, || self.links.status(&peer).address);
        refusal
    }

    async fn reply(&self, peer: PublicKey, link: LinkId, secret: SecretId, request: RegisterRequest) -> RegisterReply {
        if let Err(early) = self.rates.check_key(&peer) {
            self.metrics.registration(RegistrationOutcome::SlowDown);
            self.refusals.count(Limit::RegistrationRate, peer);
            let wait = early.wait_time_from(self.clock.now());
            return RegisterReply::SlowDown { retry_after_ms: wait.as_millis().try_into().unwrap_or(u64::MAX) };
        }
        match request {
            RegisterRequest::Register(register) => {
                self.register(Registrant { peer, secret, kept: None }, None, link, &register).await
            }
            RegisterRequest::RegisterFrom(RegisterFrom { register, instance, kept }) => {
                self.register(Registrant { peer, secret, kept: Some(kept) }, Some(instance), link, &register).await
            }
            RegisterRequest::RegisterUnlisted(unlisted) => {
                let RegisterFrom { register, instance, kept } = unlisted.into();
                self.register(Registrant { peer, secret, kept: Some(kept) }, Some(instance), link, &register).await
            }
            RegisterRequest::Release => released(self.release(peer, None, link).await),
            RegisterRequest::ReleaseFrom(instance) => released(self.release(peer, Some(instance), link).await),
            RegisterRequest::Probe(probe) => {
                let found = self.find(&peer, probe.aliases.iter().map(String::as_str)).await;
                let presence = self.presence(&found);
                match self.registry.alias_statuses(&peer, &probe.aliases, presence, SystemTime::now()) {
                    Ok(statuses) => {
                        self.metrics.registration(RegistrationOutcome::Probed);
                        RegisterReply::Probed(Probed { unix_ms: unix_ms(), statuses })
                    }
                    Err(error) => self.failed(peer, &error),
                }
            }
            RegisterRequest::Echo(bytes) if bytes.len() <= MAX_ECHO => {
                self.metrics.registration(RegistrationOutcome::Probed);
                RegisterReply::Echo(bytes)
            }
            RegisterRequest::Echo(_) => {
                self.metrics.registration(RegistrationOutcome::Malformed);
                RegisterReply::Malformed
            }
            RegisterRequest::Group => {
                self.metrics.registration(RegistrationOutcome::Group);
                RegisterReply::Group(self.others())
            }
        }
    }

    /// The other members of the group, as clients are told.
    fn others(&self) -> Vec<GroupMember> {
        let Some(members) = &self.members else { return Vec::new() };
        let members = members.borrow();
        let others = members.iter().filter(|member| member.key != self.key.public()).take(MAX_MEMBERS);
        let named = others.map(|member| GroupMember {
            key: member.key,
            addresses: member.addresses.iter().map(ToString::to_string).collect(),
        });
        named.collect()
    }

    async fn register(
        &self,
        by: Registrant,
        instance: Option<InstanceId>,
        link: LinkId,
        register: &Register,
    ) -> RegisterReply {
        let admission = self.processes.admit(by.peer, instance, link).await;
        if admission == Admission::InUse {
            return self.in_use(by.peer, instance);
        }
        let version = self.policy.version();
        let scope = match self.policy.admit(by.secret, &by.peer, SystemTime::now()).await {
            Ok(scope) => scope,
            // The next handshake says why.
            Err(refused) => {
                self.refused(by.peer, by.secret, refused);
                return RegisterReply::Unavailable;
            }
        };
        let found = self.find(&by.peer, register.claims.iter().map(|claim| claim.alias.as_str())).await;
        match self.registry.register(&by, register, &scope, self.presence(&found), SystemTime::now()).await {
            // Rights went meanwhile: what was released then may have come back.
            Ok(_) if self.policy.version() != version => {
                let _ = self.enforcement.enforce().await; // the next one tries again
                RegisterReply::Unavailable
            }
            Ok(registered) => {
                self.network.has_proved(&by.peer);
                self.network.test_before(&by.peer, link).await;
                // A peer that is refused all that it claims asks again soon, and makes room for others.
                if self.registry.is_holder(&by.peer) {
                    self.links.keep(by.peer);
                } else {
                    self.links.keep_claimant(by.peer);
                }
                for outcome in &registered.outcomes {
                    self.metrics.registration(outcome);
                }
                match (admission, instance) {
                    (Admission::Contested, Some(_)) => RegisterReply::Contested(registered),
                    _ => RegisterReply::Registered(registered),
                }
            }
            Err(error) => self.failed(by.peer, &error),
        }
    }

    /// Releases every alias of the peer; gives their number, or the reply that says why not.
    async fn release(
        &self,
        peer: PublicKey,
        instance: Option<InstanceId>,
        link: LinkId,
    ) -> Result<usize, RegisterReply> {
        if !self.processes.holds(&peer, instance, link) {
            return Err(self.in_use(peer, instance));
        }
        let released = self.registry.release_peer(peer, SystemTime::now()).await;
        let aliases = released.map_err(|error| self.failed(peer, &error))?;
        self.links.let_go(&peer);
        self.metrics.registration(RegistrationOutcome::Released);
        Ok(aliases)
    }

    /// Refuses a process whose key another one holds. Who does not name itself may be the holder, whose exchange broke off,
    /// and tries again.
    fn in_use(&self, peer: PublicKey, instance: Option<InstanceId>) -> RegisterReply {
        if instance.is_none() {
            self.metrics.registration(RegistrationOutcome::Unavailable);
            tracing::debug!(%peer, "refused a process without a name beside the one that holds its key");
            return RegisterReply::Unavailable;
        }
        self.metrics.registration(RegistrationOutcome::KeyInUse);
        self.metrics.set_duplicate_keys(self.processes.contested());
        self.warnings.copied_key(peer, || self.links.status(&peer).address);
        RegisterReply::InUse
    }

    /// Finds those who hold these aliases, beside `peer`, at the other members of the group.
    async fn find(&self, peer: &PublicKey, aliases: impl Iterator<Item = &str>) -> Presences {
        if self.group.is_alone() {
            return Presences::Alone;
        }
        let leases = aliases.filter_map(|alias| self.registry.lookup(alias).ok().flatten());
        let holders: HashSet<PublicKey> = leases.map(|lease| lease.peer).filter(|holder| holder != peer).collect();
        self.group.presence_of(holders).await
    }

    /// Whether a holder has a link, for the registry: to us, or as was found elsewhere.
    fn presence(&self, found: &Presences) -> impl Fn(&PublicKey) -> Presence {
        |holder| {
            let here = match self.links.path(holder) {
                Some(_) => Presence::Linked,
                None => self.links.lost_for(holder).map_or(Presence::Unseen, Presence::Lost),
            };
            found.of(holder, here)
        }
    }

    fn failed(&self, peer: PublicKey, error: &RegistryError) -> RegisterReply {
        let reply = error.reply();
        if reply == RegisterReply::Malformed {
            self.metrics.registration(RegistrationOutcome::Malformed);
            tracing::debug!(%peer, error = %Chain(error), "refused a registration");
        } else {
            self.metrics.registration(RegistrationOutcome::Unavailable);
            self.warnings.failed(peer, error);
        }
        reply
    }
}

fn released(released: Result<usize, RegisterReply>) -> RegisterReply {
    released.map_or_else(|refused| refused, |_| RegisterReply::Released)
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

#[cfg(test)]
mod tests;
