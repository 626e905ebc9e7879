//! The end of a client at one scraper: its aliases are released before it goes.
//!
//! The client has patience up to its release timeout: a whole fleet may end at once, and the scraper may be restarted or
//! paused meanwhile. A link that is lost, or carries nothing more, is dialled again. A scraper that was gone before is not
//! waited for: its leases lapse. Nor is one for long whose table another scraper keeps, too, and has released the aliases; nor one in
//! whose place another of ours answers.

use std::{io, time::Duration};

use tokio::time;

use super::{
    Shared,
    event::{EventKind, RegisterError},
    exchange,
    held::Held,
};
use crate::{
    identity::{PeerAddr, PublicKey},
    network::{ConnectError, Network, OpenError, is_unsupported, redial_backoff},
    telemetry::{Chain, Few, short_duration},
    wire::{
        FAREWELL_PROTOCOL, FarewellAnswer, InstanceId, RegisterReply, RegisterRequest,
        farewell::{answered, say},
    },
};

/// Longest wait for a sign of the scraper: a link that is silent for longer is most likely dead.
const SILENT: Duration = Duration::from_secs(15);
/// Longest wait for the end of an exchange with a scraper that knows no farewell.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);
/// How much longer is waited for a scraper once another that keeps the same table has released our aliases.
const BESIDE: Duration = Duration::from_secs(1);
/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// How long after the loss of its link a scraper is expected back within the release timeout. A scraper that has been gone for
/// longer must not keep this process, and with it perhaps the end of the host.
const EXPECTED_BACK: Duration = Duration::from_secs(15);

/// Why the aliases were not released.
#[derive(Debug, thiserror::Error)]
enum NotReleased {
    #[error("the scraper had no link")]
    Unlinked,
    #[error("the link was lost")]
    Lost,
    #[error("the scraper has said nothing for {SILENT:?}")]
    Silent,
    #[error("the scraper has no place for a farewell, or cannot write now")]
    Unavailable,
    #[error("the scraper cannot be linked again")]
    Unreachable(#[from] ConnectError),
    #[error("no release within {patience:?}")]
    TooLate { patience: Duration, source: Option<Box<NotReleased>> },
    #[error("another running process has our key")]
    InUse,
    #[error(transparent)]
    Exchange(#[from] RegisterError),
    #[error("the scraper's answer was {0:?}")]
    Refused(RegisterReply),
}

/// How it went well.
enum End {
    Released,
    /// By a scraper that keeps the same table.
    ReleasedBeside,
    /// Another of our scrapers answers in its place: its key has changed.
    Replaced,
}

impl NotReleased {
    /// True if no later attempt can succeed.
    fn is_final(&self) -> bool {
        matches!(
            self,
            Self::InUse
                | Self::Exchange(RegisterError::Handshake(_))
                | Self::Refused(RegisterReply::InUse)
                | Self::Unreachable(ConnectError::Closed)
        )
    }
}

/// Releases what the scraper holds for us, within the release timeout, and reports that.
pub(super) async fn release(shared: &Shared, scraper: &PeerAddr, held: &Held) {
    let aliases = held.aliases();
    if aliases.is_empty() {
        return;
    }
    match patiently(shared, scraper).await {
        Ok(End::Released) => {
            shared.group.released(&scraper.key);
            shared.events.emit(EventKind::Released { scraper: scraper.key });
        }
        Ok(End::ReleasedBeside) => tracing::info!(
            scraper = %scraper.key,
            "not waited for: another scraper of its group has released our aliases"
        ),
        Ok(End::Replaced) => {
            tracing::info!(scraper = %scraper.key, "not waited for: another of our scrapers answers in its place");
        }
        Err(error) => tracing::warn!(
            scraper = %scraper.key,
            aliases = %Few(aliases.into_iter().collect()),
            lease_ends_in = held.left().map(|left| short_duration(Duration::from_secs(left.as_secs()))),
            error = %Chain(&error),
            "our aliases were not released: they stay listed until their lease ends, and as lapsed for the retention after"
        ),
    }
}

async fn patiently(shared: &Shared, scraper: &PeerAddr) -> Result<End, NotReleased> {
    let (links, patience) = (shared.network.links(), shared.release_timeout);
    let is_expected = links.lost_for(&scraper.key).is_some_and(|gone| gone < EXPECTED_BACK);
    if links.path(&scraper.key).is_none() && !is_expected {
        return Err(NotReleased::Unlinked);
    }
    let mut last = None;
    let attempts = async {
        let mut pauses = redial_backoff(MAX_PAUSE);
        loop {
            match released(shared, scraper).await {
                Err(NotReleased::Unreachable(error)) if shared.group.in_place_of_another(&error).is_some() => {
                    return Ok(End::Replaced);
                }
                Err(error) if !error.is_final() => {
                    if last.is_none() {
                        let error = Chain(&error);
                        tracing::info!(scraper = %scraper.key, %error, patience = short_duration(patience), "waiting for our aliases to be released");
                    }
                    last = Some(Box::new(error));
                }
                end => return end.map(|()| End::Released),
            }
            time::sleep(pauses.next().unwrap_or(MAX_PAUSE)).await;
        }
    };
    let beside = async {
        shared.group.released_beside(&scraper.key).await;
        time::sleep(BESIDE).await;
    };
    let end = time::timeout(patience, async {
        tokio::select! {
            end = attempts => end,
            () = beside => Ok(End::ReleasedBeside),
        }
    });
    let end = end.await;
    end.unwrap_or_else(|_| Err(NotReleased::TooLate { patience, source: last }))
}

/// One attempt, over the link that is there or a new one. A silent link is given up.
async fn released(shared: &Shared, scraper: &PeerAddr) -> Result<(), NotReleased> {
    shared.network.connect(scraper).await?;
    let (links, scraper) = (shared.network.links(), &scraper.key);
    let link = links.best(scraper);
    let gone = links.wait_until(|| links.path(scraper).is_none());
    let said = tokio::select! {
        biased;
        said = said(shared, scraper) => said,
        () = gone => Err(NotReleased::Lost),
    };
    if let (Err(NotReleased::Silent), Some(link)) = (&said, link) {
        shared.network.disconnect(*scraper, link).await;
    }
    said
}

async fn said(shared: &Shared, scraper: &PublicKey) -> Result<(), NotReleased> {
    match farewell(&shared.network, scraper, shared.instance).await {
        Ok(FarewellAnswer::Released(aliases)) => {
            tracing::debug!(%scraper, aliases, "released");
            Ok(())
        }
        Ok(FarewellAnswer::InUse) => Err(NotReleased::InUse),
        Ok(FarewellAnswer::Unavailable) | Err(Failed::Cut) => Err(NotReleased::Unavailable),
        Err(Failed::Silent) => Err(NotReleased::Silent),
        Err(Failed::Unknown) => exchanged(shared, scraper).await,
    }
}

/// Why a farewell was not answered.
#[derive(Debug)]
enum Failed {
    /// The scraper is of an earlier version.
    Unknown,
    Silent,
    /// The stream broke, or could not be opened.
    Cut,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        if is_unsupported(&error) { Self::Unknown } else { Self::Cut }
    }
}

async fn farewell(network: &Network, scraper: &PublicKey, instance: InstanceId) -> Result<FarewellAnswer, Failed> {
    let heard = async {
        let mut stream = network.open(scraper, FAREWELL_PROTOCOL).await.map_err(|error| match error {
            OpenError::Unsupported(_) => Failed::Unknown,
            OpenError::Timeout => Failed::Silent,
            _ => Failed::Cut,
        })?;
        say(&mut stream, instance).await?;
        Ok::<_, Failed>(stream)
    };
    let mut stream = time::timeout(SILENT, heard).await.unwrap_or(Err(Failed::Silent))?;
    Ok(answered(&mut stream).await?)
}

/// As scrapers of earlier versions know it: by a handshake and a request.
async fn exchanged(shared: &Shared, scraper: &PublicKey) -> Result<(), NotReleased> {
    let request = RegisterRequest::ReleaseFrom(shared.instance);
    let exchange =
        exchange::exchange(&shared.network, &shared.key, &shared.secret, scraper, &request, [RegisterRequest::Release]);
    match time::timeout(RELEASE_TIMEOUT, exchange).await {
        Ok(Ok(RegisterReply::Released)) => Ok(()),
        Ok(Ok(reply)) => Err(NotReleased::Refused(reply)),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(NotReleased::TooLate { patience: RELEASE_TIMEOUT, source: None }),
    }
}

#[cfg(all(test, feature = "scraper"))]
mod tests {
    use std::convert::Infallible;

    use tokio::{sync::mpsc, task::JoinSet};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        Client, KeyPair, SharedSecret, TargetBuilder,
        identity::{HostPort, PeerAddr},
        network::{Acceptor, Firewall, InboundStream, NetworkConfig, NetworkRole},
        wire::{AliasOutcome, REGISTER_PROTOCOL, Registered, channel},
    };

    const SOON: Duration = Duration::from_secs(20);

    /// Answers as a scraper that knows neither a farewell nor targets in no list.
    async fn earlier_scraper(mut streams: mpsc::Receiver<InboundStream>, key: KeyPair, secret: SharedSecret) {
        while let Some(InboundStream { peer, stream }) = streams.recv().await {
            let pending = channel::accept(stream, &key, &peer, REGISTER_PROTOCOL).await.expect("a first message");
            let mut channel = pending.confirm(&secret).await.expect("confirms");
            let reply = match channel.receive().await.expect("a request") {
                // It could not read this, and ends the stream.
                RegisterRequest::RegisterUnlisted(_) => continue,
                RegisterRequest::RegisterFrom(_) => RegisterReply::Registered(Registered {
                    lease_ms: 600_000,
                    outcomes: vec![AliasOutcome::Granted { updated: true }],
                }),
                RegisterRequest::ReleaseFrom(_) => RegisterReply::Released,
                other => panic!("{other:?}"),
            };
            channel.send(&reply).await.expect("sends");
        }
    }

    #[tokio::test]
    async fn a_scraper_of_an_earlier_version_is_asked_what_it_can_read() {
        let (key, secret) = (KeyPair::generate(), SharedSecret::generate());
        let (inbox, streams) = mpsc::channel(8);
        let acceptor = Acceptor { protocol: REGISTER_PROTOCOL, firewall: Firewall::Anyone, inbox };
        let config =
            NetworkConfig { listen: vec![HostPort::new("127.0.0.1", 0)], ..NetworkConfig::new(NetworkRole::Scraper) };
        let (network, task) = Network::start(&key, config, vec![acceptor]).await.expect("starts");
        network.links().know([]);
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run(CancellationToken::new()));
        tasks.spawn(earlier_scraper(streams, key.clone(), secret.clone()));
        let at = network.listening()[0];
        let scraper = PeerAddr::at(key.public(), at.ip().to_string(), at.port());

        let metrics = || Ok::<_, Infallible>(String::new());
        let target = TargetBuilder::new("web-1").listed(false).metrics(metrics);
        let client = Client::builder(scraper, secret).target(target).start().await.expect("starts");
        let mut events = client.events();
        let mut until = async |wanted: fn(&EventKind) -> bool| {
            let event = async { while !wanted(&events.recv().await.expect("events go on").kind) {} };
            time::timeout(SOON, event).await.expect("the event comes");
        };
        until(|kind| matches!(kind, EventKind::Registered { .. })).await;
        client.shutdown().await;
        until(|kind| matches!(kind, EventKind::Released { .. })).await;
    }
}
