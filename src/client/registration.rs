//! Keeps a client linked to one scraper and registered with it, until told to stop.

use std::{pin::pin, sync::Arc, time::Duration};

use rand::Rng;
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    event::{EventKind, RegisterError},
    exchange,
    targets::TargetSet,
};
use crate::{
    identity::{PeerAddr, PublicKey},
    network::{keep_upgrading, redial_backoff},
    wire::{AliasOutcome, RegisterReply, RegisterRequest, Registered},
};

/// How far registering with a scraper has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exchange {
    /// Nothing was ever sent.
    None,
    UnderWay,
    Ended,
}

/// Links, registers, renews, redials; at the end releases.
pub(super) async fn keep(shared: Arc<Shared>, scraper: PeerAddr, stop: CancellationToken) {
    shared.network.links().keep(scraper.key);
    let mut targets = shared.targets.subscribe();
    let exchange = watch::Sender::new(Exchange::None);
    let mut work = pin!(async {
        let mut pauses = redial_backoff(MOST_REDIAL);
        loop {
            connect(&shared, &scraper).await;
            let since = Instant::now();
            shared.pull_watchdog.begins(&scraper.key);
            tokio::select! {
                biased;
                () = lost(&shared, &scraper.key) => {}
                () = keep_upgrading(&shared.network, &scraper) => {}
                () = renew(&shared, &scraper.key, &mut targets, &exchange) => {}
            }
            // A scraper that has no room for a connection takes it, and ends it.
            if since.elapsed() < AT_ONCE {
                time::sleep(pauses.next().unwrap_or(MOST_REDIAL)).await;
                continue;
            }
            pauses = redial_backoff(MOST_REDIAL);
            // A scraper that restarts loses all its links at once; they shall not come back at once.
            let spread = rand::rng().random_range(0..REDIAL_SPREAD_MS);
            time::sleep(Duration::from_millis(spread)).await;
        }
    });
    tokio::select! {
        () = &mut work => {}
        () = stop.cancelled() => {
            // A registration that has left may be granted: it is let end, so that the release comes after it.
            let mut ended = exchange.subscribe();
            let ended = ended.wait_for(|exchange| *exchange != Exchange::UnderWay);
            let _ = time::timeout(LAST_EXCHANGE, async { tokio::select! { () = &mut work => {}, _ = ended => {} } }).await;
        }
    }
    if *exchange.borrow() != Exchange::None {
        release(&shared, &scraper.key).await;
    }
    shared.network.links().let_go(&scraper.key);
}

async fn connect(shared: &Shared, scraper: &PeerAddr) {
    let mut pauses = redial_backoff(MOST_REDIAL);
    while let Err(error) = shared.network.connect(scraper).await {
        let retry_in = pauses.next().unwrap_or(MOST_REDIAL);
        shared.events.emit(EventKind::LinkFailed { scraper: scraper.key, error: Arc::new(error), retry_in });
        time::sleep(retry_in).await;
    }
}

/// Tells of the link and of each change of its path; returns once it is lost.
async fn lost(shared: &Shared, scraper: &PublicKey) {
    let links = shared.network.links();
    let mut known = None;
    while let Some(path) = links.path(scraper) {
        let scraper = *scraper;
        shared.events.emit(match known.replace(path) {
            None => EventKind::LinkUp { scraper, path },
            Some(_) => EventKind::PathChanged { scraper, path },
        });
        links.wait_until(|| links.path(&scraper) != known).await;
    }
    if known.is_some() {
        shared.events.emit(EventKind::LinkDown { scraper: *scraper });
    }
}

/// Registers again and again, for as long as the link is there: before the lease ends, when the targets change, and when
/// the scraper has fallen silent. If it then lets that pass in silence, too, the connection is given up.
async fn renew(
    shared: &Shared,
    scraper: &PublicKey,
    targets: &mut watch::Receiver<TargetSet>,
    exchange: &watch::Sender<Exchange>,
) {
    let mut pauses = redial_backoff(MOST_RETRY);
    let mut missed = false;
    loop {
        let set = Arc::clone(&targets.borrow_and_update());
        exchange.send_replace(Exchange::UnderWay);
        let answer = if missed {
            sign_of_life(shared, scraper, register(shared, scraper, &set)).await
        } else {
            register(shared, scraper, &set).await
        };
        exchange.send_replace(Exchange::Ended);
        let (error, retry_in) = match answer {
            Ok(Answer::Registered(registered)) => {
                let renew_in = third(registered.lease_ms);
                let pause = match report(shared, scraper, &set, registered, &mut pauses) {
                    Some(sooner) => sooner.min(renew_in),
                    None => {
                        pauses = redial_backoff(MOST_RETRY);
                        renew_in
                    }
                };
                missed = pause_or_change(shared, scraper, pause, targets).await;
                continue;
            }
            Ok(Answer::SlowDown(pause)) => (RegisterError::SlowDown, pause),
            Err(error) => (error, pauses.next().unwrap_or(MOST_RETRY)),
        };
        let asked_to_wait = matches!(error, RegisterError::SlowDown);
        shared.events.emit(EventKind::RegisterFailed { scraper: *scraper, error: Arc::new(error), retry_in });
        if asked_to_wait {
            time::sleep(retry_in).await;
        } else {
            missed |= pause_or_change(shared, scraper, retry_in, targets).await;
        }
    }
}

/// A change of the targets ends the pause: it shall be seen at once, and it may be what mends a refusal. So does the
/// scraper's silence, which is what true tells of.
async fn pause_or_change(
    shared: &Shared,
    scraper: &PublicKey,
    pause: Duration,
    targets: &mut watch::Receiver<TargetSet>,
) -> bool {
    tokio::select! {
        () = time::sleep(pause) => false,
        // An error means that the client itself is gone, which ends this task as well.
        _ = targets.changed() => false,
        () = shared.pull_watchdog.falls(scraper) => true,
    }
}

/// Gives the connection up if it swallows this exchange.
async fn sign_of_life(
    shared: &Shared,
    scraper: &PublicKey,
    exchange: impl Future<Output = Result<Answer, RegisterError>>,
) -> Result<Answer, RegisterError> {
    let (asked, link) = (shared.pull_watchdog.last(scraper), shared.network.links().best(scraper));
    let answer = time::timeout(SIGN_OF_LIFE, exchange).await.unwrap_or(Err(RegisterError::Timeout(SIGN_OF_LIFE)));
    if let (Err(RegisterError::Timeout(_)), Some(link)) = (&answer, link)
        && shared.pull_watchdog.last(scraper) == asked
    {
        tracing::debug!(%scraper, "no pull when one was due, and no answer: the connection is closed");
        shared.network.disconnect(*scraper, link).await;
    }
    answer
}

/// Tells what became of each alias. If one was refused, gives the pause until it is tried again.
fn report(
    shared: &Shared,
    scraper: &PublicKey,
    set: &TargetSet,
    registered: Registered,
    pauses: &mut impl Iterator<Item = Duration>,
) -> Option<Duration> {
    let refused = registered.outcomes.iter().any(|outcome| matches!(outcome, AliasOutcome::Refused(_)));
    let retry_in = refused.then(|| pauses.next().unwrap_or(MOST_RETRY));
    for (alias, outcome) in set.keys().zip(registered.outcomes) {
        let (scraper, alias) = (*scraper, alias.clone());
        shared.events.emit(match outcome {
            AliasOutcome::Granted { updated } => EventKind::Registered { scraper, alias, updated },
            AliasOutcome::Refused(refusal) => EventKind::RegisterFailed {
                scraper,
                error: Arc::new(RegisterError::Alias { alias, refusal }),
                retry_in: retry_in.unwrap_or(MOST_RETRY),
            },
        });
    }
    retry_in
}

enum Answer {
    Registered(Registered),
    SlowDown(Duration),
}

async fn register(shared: &Shared, scraper: &PublicKey, set: &TargetSet) -> Result<Answer, RegisterError> {
    match exchange(shared, scraper, &shared.targets.registration(set)).await? {
        RegisterReply::Registered(registered) if registered.outcomes.len() == set.len() => {
            Ok(Answer::Registered(registered))
        }
        RegisterReply::SlowDown { retry_after_ms } => {
            Ok(Answer::SlowDown(Duration::from_millis(retry_after_ms).min(MOST_RETRY)))
        }
        RegisterReply::Unavailable => Err(RegisterError::Unavailable),
        RegisterReply::Malformed => Err(RegisterError::Malformed),
        reply => Err(exchange::broken(format!("an answer to something else: {reply:?}"))),
    }
}

async fn release(shared: &Shared, scraper: &PublicKey) {
    if shared.network.links().path(scraper).is_none() {
        return;
    }
    // Shorter than another exchange: somebody waits for our end, and the lease lapses by itself.
    let exchanged = time::timeout(RELEASE_TIMEOUT, exchange(shared, scraper, &RegisterRequest::Release)).await;
    match exchanged.unwrap_or(Err(RegisterError::Timeout(RELEASE_TIMEOUT))) {
        Ok(RegisterReply::Released) => shared.events.emit(EventKind::Released { scraper: *scraper }),
        Ok(reply) => tracing::warn!(%scraper, ?reply, "the scraper did not release our aliases; they will lapse"),
        Err(error @ RegisterError::Handshake(_)) => tracing::debug!(%scraper, %error, "there was nothing to release"),
        Err(error) => tracing::warn!(%scraper, %error, "our aliases were not released; they will lapse"),
    }
}

async fn exchange(
    shared: &Shared,
    scraper: &PublicKey,
    request: &RegisterRequest,
) -> Result<RegisterReply, RegisterError> {
    exchange::exchange(&shared.network, &shared.key, &shared.secret, scraper, request).await
}

/// A third of the lease, less up to a tenth of it at random.
fn third(lease_ms: u64) -> Duration {
    let third = Duration::from_millis(lease_ms) / 3;
    third.mul_f64(rand::rng().random_range(0.9..1.0)).max(LEAST_RENEWAL)
}

const MOST_REDIAL: Duration = Duration::from_secs(15);
const MOST_RETRY: Duration = Duration::from_secs(30);
/// A link that is lost so soon was refused.
const AT_ONCE: Duration = Duration::from_secs(2);
const REDIAL_SPREAD_MS: u64 = 250;
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);
const LAST_EXCHANGE: Duration = Duration::from_secs(2);
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
const LEAST_RENEWAL: Duration = Duration::from_millis(100);
