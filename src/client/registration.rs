//! Keeps a client linked to one scraper and registered with it, until its stop token fires.

use std::{convert::Infallible, iter, pin::pin, sync::Arc, time::Duration};

use rand::Rng;
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    event::{EventKind, RegisterError},
    exchange, farewell, group,
    held::Held,
    targets::TargetSet,
};
use crate::{
    identity::{PeerAddr, PublicKey},
    network::{LinkId, Redial, keep_upgrading, linked_by_following, redial_backoff},
    wire::{AliasOutcome, RegisterFrom, RegisterReply, RegisterRequest, Registered},
};

/// Longest pause before a scraper is dialled again that was never reached, or was lost long ago.
const MAX_REDIAL: Duration = Duration::from_secs(15);
/// Longest pause while another of our scrapers, which is linked, answers in its place: a whole fleet has both keys of one scraper
/// for as long as its key is changed, and each attempt costs that scraper a handshake.
const REPLACED_RETRY: Duration = Duration::from_secs(5 * 60);
/// Longest pause after a refusal. A service with a new key waits for its alias until the grace of the old key has passed,
/// and no longer than this.
const MAX_RETRY: Duration = Duration::from_secs(15);
/// As [`MAX_RETRY`], after a stream that the scraper closed: most likely it had no place, and has one a moment later.
const MAX_CLOSED_RETRY: Duration = Duration::from_secs(2);
/// A scraper without room accepts a connection and closes it at once: a link lost so soon counts as a failed attempt.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);
/// A scraper that restarts loses all its links at once; clients redial spread over this time.
const REDIAL_SPREAD_MS: u64 = 250;
/// Longest wait at shutdown for a registration under way.
const LAST_EXCHANGE: Duration = Duration::from_secs(5);
/// Shortest pause between two renewals, whatever lease a scraper grants.
const MIN_RENEWAL: Duration = Duration::from_millis(100);

/// Links, registers, renews and redials until `stop` fires, then releases.
pub(super) async fn keep(shared: Arc<Shared>, scraper: PeerAddr, stop: CancellationToken) {
    shared.network.links().keep(scraper.key);
    let mut targets = shared.targets.subscribe();
    let held = watch::Sender::new(Held::default());
    let work = async {
        let mut redial = Redial::new(MAX_REDIAL, shared.network.host_changes());
        loop {
            connect(&shared, &scraper, &mut redial).await;
            let since = Instant::now();
            shared.pull_watchdog.linked(&scraper.key);
            let refused = tokio::select! {
                biased;
                () = lost(&shared, &scraper.key) => false,
                () = keep_upgrading(&shared.network, &scraper) => false,
                () = renew(&shared, &scraper.key, &mut targets, &held) => true,
                never = miss_pulls(&shared, &scraper.key) => match never {},
                never = group::keep_asking(&shared, &scraper.key) => match never {},
            };
            shared.group.lost(&scraper.key);
            if refused {
                // The link must not stay: the scraper could take this process for the one that holds the key.
                held.send_replace(Held::default());
                let retry_in = redial.next_pause();
                let error = Arc::new(RegisterError::KeyInUse);
                shared.events.emit(EventKind::RegisterFailed { scraper: scraper.key, error, retry_in });
                if let Some(link) = shared.network.links().best(&scraper.key) {
                    shared.network.disconnect(scraper.key, link).await;
                }
                time::sleep(retry_in).await;
                continue;
            }
            if since.elapsed() < REFUSED_WITHIN {
                let pause = redial.next_pause();
                redial.pause(pause).await;
                continue;
            }
            redial.was_good();
            let spread = rand::rng().random_range(0..REDIAL_SPREAD_MS);
            time::sleep(Duration::from_millis(spread)).await;
        }
    };
    until_stopped(&shared, &scraper.key, work, &held, stop).await;
    let held = held.borrow().clone();
    farewell::release(&shared, &scraper, &held).await;
    shared.network.links().let_go(&scraper.key);
}

/// Runs until `stop` fires, and for a moment more if a registration is under way: it may still be granted, and the release
/// must come after the grant. Then the streams of `work` are closed.
async fn until_stopped(
    shared: &Shared,
    scraper: &PublicKey,
    work: impl Future<Output = ()>,
    held: &watch::Sender<Held>,
    stop: CancellationToken,
) {
    let mut work = pin!(work);
    if stop.run_until_cancelled(&mut work).await.is_some() {
        return;
    }
    let mut answered = held.subscribe();
    let answered = answered.wait_for(|held| !held.is_waiting());
    let links = shared.network.links();
    let unlinked = links.wait_until(|| links.path(scraper).is_none());
    let longest = LAST_EXCHANGE.min(shared.release_timeout);
    let _ = time::timeout(longest, async {
        tokio::select! { () = work => {}, _ = answered => {}, () = unlinked => {} }
    })
    .await;
}

/// Links the scraper, however long that takes: by dialling again and again, or because a node tells that it is back.
async fn connect(shared: &Shared, scraper: &PeerAddr, redial: &mut Redial) {
    tokio::select! {
        () = dial(shared, scraper, redial) => {}
        () = linked_by_following(&shared.network, &scraper.key) => {}
    }
}

async fn dial(shared: &Shared, scraper: &PeerAddr, redial: &mut Redial) {
    while let Err(error) = redial.attempt(|| shared.network.connect(scraper)).await {
        let links = shared.network.links();
        let in_its_place = shared.group.in_place_of_another(&error).filter(|other| links.path(other).is_some());
        let retry_in = in_its_place.map_or_else(|| redial.next_pause(), |_| REPLACED_RETRY);
        shared.events.emit(EventKind::LinkFailed { scraper: scraper.key, error: Arc::new(error), retry_in });
        match in_its_place {
            None => redial.pause(retry_in).await,
            Some(other) => {
                let gone = links.wait_until(|| links.path(&other).is_none());
                let _ = time::timeout(retry_in, gone).await;
                // Most likely this is the moment at which one key takes the place of the other.
                redial.was_good();
            }
        }
    }
}

/// Reports the link and each change of its path; returns once the link is lost.
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

/// Has the connections tested whenever pulls are overdue: those that are silent are closed.
async fn miss_pulls(shared: &Shared, scraper: &PublicKey) -> Infallible {
    loop {
        shared.pull_watchdog.overdue(scraper).await;
        tracing::debug!(%scraper, "no pull when one was due: its connections are tested");
        shared.network.test(scraper).await;
    }
}

/// Registers again and again while the link is there: before the lease ends, when the targets change, and when another
/// connection is the best, over which the scraper then pulls. Returns if another process has the key.
async fn renew(
    shared: &Shared,
    scraper: &PublicKey,
    targets: &mut watch::Receiver<TargetSet>,
    held: &watch::Sender<Held>,
) {
    let mut pauses = redial_backoff(MAX_RETRY);
    let mut closed = redial_backoff(MAX_CLOSED_RETRY);
    loop {
        let set = Arc::clone(&targets.borrow_and_update());
        let link = shared.network.links().best(scraper);
        held.send_modify(|held| held.asked(&set));
        let answer = register(shared, scraper, &set).await;
        held.send_modify(|held| match &answer {
            Ok(Answer::Registered(registered)) => held.answered(&set, registered),
            Err(RegisterError::Broken(_) | RegisterError::Timeout(_)) => held.broke_off(),
            Ok(Answer::SlowDown(_) | Answer::KeyInUse) | Err(_) => held.refused(),
        });
        let (error, retry_in) = match answer {
            Ok(Answer::Registered(registered)) => {
                shared.group.registered(scraper);
                closed = redial_backoff(MAX_CLOSED_RETRY);
                let renew_in = third(registered.lease_ms);
                let pause = match report(shared, scraper, &set, registered, &mut pauses) {
                    Some(sooner) => sooner.min(renew_in),
                    None => {
                        pauses = redial_backoff(MAX_RETRY);
                        renew_in
                    }
                };
                pause_or_change(shared, scraper, link, pause, targets).await;
                continue;
            }
            Ok(Answer::SlowDown(pause)) => (RegisterError::SlowDown, pause),
            Ok(Answer::KeyInUse) => return,
            Err(error @ RegisterError::Broken(_)) => (error, closed.next().unwrap_or(MAX_CLOSED_RETRY)),
            Err(error) => (error, pauses.next().unwrap_or(MAX_RETRY)),
        };
        let asked_to_wait = matches!(error, RegisterError::SlowDown);
        shared.events.emit(EventKind::RegisterFailed { scraper: *scraper, error: Arc::new(error), retry_in });
        if asked_to_wait {
            time::sleep(retry_in).await;
        } else {
            pause_or_change(shared, scraper, link, retry_in, targets).await;
        }
    }
}

/// Waits for `pause`, or for a change of the targets, which scrapers see at once and which may end a refusal, or until
/// `link` is no longer the best.
async fn pause_or_change(
    shared: &Shared,
    scraper: &PublicKey,
    link: Option<LinkId>,
    pause: Duration,
    targets: &mut watch::Receiver<TargetSet>,
) {
    let links = shared.network.links();
    tokio::select! {
        () = time::sleep(pause) => {}
        // An error means that the client itself is gone, which ends this task as well.
        _ = targets.changed() => {}
        () = links.wait_until(|| links.best(scraper) != link) => {}
    }
}

/// Reports what became of each alias. Returns the pause until the next attempt if one was refused.
fn report(
    shared: &Shared,
    scraper: &PublicKey,
    set: &TargetSet,
    registered: Registered,
    pauses: &mut impl Iterator<Item = Duration>,
) -> Option<Duration> {
    let refused = registered.outcomes.iter().any(|outcome| matches!(outcome, AliasOutcome::Refused(_)));
    let retry_in = refused.then(|| pauses.next().unwrap_or(MAX_RETRY));
    let outcomes = set.keys().zip(registered.outcomes).map(|(alias, outcome)| {
        let (scraper, alias) = (*scraper, alias.clone());
        match outcome {
            AliasOutcome::Granted { updated } => EventKind::Registered { scraper, alias, updated },
            AliasOutcome::Refused(refusal) => EventKind::RegisterFailed {
                scraper,
                error: Arc::new(RegisterError::Alias { alias, refusal }),
                retry_in: retry_in.unwrap_or(MAX_RETRY),
            },
        }
    });
    shared.events.emit_registration(outcomes.collect());
    retry_in
}

enum Answer {
    Registered(Registered),
    SlowDown(Duration),
    /// Another process is registered with our key.
    KeyInUse,
}

async fn register(shared: &Shared, scraper: &PublicKey, set: &TargetSet) -> Result<Answer, RegisterError> {
    let from =
        || RegisterFrom { register: shared.targets.registration(set), instance: shared.instance, kept: shared.kept };
    let request = RegisterRequest::from(from());
    let says_unlisted = matches!(request, RegisterRequest::RegisterUnlisted(_));
    let listing_all = iter::once_with(|| RegisterRequest::RegisterFrom(from())).filter(|_| says_unlisted);
    let plain = iter::once_with(|| RegisterRequest::Register(shared.targets.registration(set)));
    match exchange(shared, scraper, &request, listing_all.chain(plain)).await? {
        RegisterReply::InUse => Ok(Answer::KeyInUse),
        RegisterReply::Contested(registered) if registered.outcomes.len() == set.len() => {
            shared.events.emit(EventKind::KeyContested { scraper: *scraper });
            Ok(Answer::Registered(registered))
        }
        RegisterReply::Registered(registered) if registered.outcomes.len() == set.len() => {
            Ok(Answer::Registered(registered))
        }
        RegisterReply::SlowDown { retry_after_ms } => {
            Ok(Answer::SlowDown(Duration::from_millis(retry_after_ms).min(MAX_RETRY)))
        }
        RegisterReply::Unavailable => Err(RegisterError::Unavailable),
        RegisterReply::Malformed => Err(RegisterError::Malformed),
        reply => Err(exchange::broken(format!("an answer to something else: {reply:?}"))),
    }
}

async fn exchange(
    shared: &Shared,
    scraper: &PublicKey,
    request: &RegisterRequest,
    earlier: impl IntoIterator<Item = RegisterRequest>,
) -> Result<RegisterReply, RegisterError> {
    exchange::exchange(&shared.network, &shared.key, &shared.secret, scraper, request, earlier).await
}

/// A third of the lease, less up to a tenth of it at random.
fn third(lease_ms: u64) -> Duration {
    let third = Duration::from_millis(lease_ms) / 3;
    third.mul_f64(rand::rng().random_range(0.9..1.0)).max(MIN_RENEWAL)
}
