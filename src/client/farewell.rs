//! The end of a client at one scraper: its aliases are released before it goes.
//!
//! The client has patience with a scraper that is there, since a whole fleet may end at once. A link that carries nothing
//! more is waited for shorter, and a scraper without a link not at all: its leases lapse.

use std::{io, time::Duration};

use rand::Rng;
use tokio::time;

use super::{
    Shared,
    event::{EventKind, RegisterError},
    exchange,
};
use crate::{
    identity::PublicKey,
    network::{Network, OpenError, is_unsupported},
    wire::{
        FAREWELL_PROTOCOL, FarewellAnswer, InstanceId, RegisterReply, RegisterRequest,
        farewell::{answered, say},
    },
};

/// Longest wait for a sign of the scraper: a link that is silent for longer is most likely dead.
const SILENT: Duration = Duration::from_secs(15);
/// Longest wait for the end of an exchange with a scraper that knows no farewell.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);
/// Before a farewell is said once more that the scraper had no place for, or could not write.
const AGAIN_MS: std::ops::Range<u64> = 250..1000;

/// Why the aliases were not released.
#[derive(Debug, thiserror::Error)]
enum NotReleased {
    #[error("the link was lost")]
    Lost,
    #[error("the scraper has said nothing for {SILENT:?}")]
    Silent,
    #[error("no release within {0:?}")]
    TooLate(Duration),
    #[error("another running process has our key")]
    InUse,
    #[error(transparent)]
    Exchange(#[from] RegisterError),
    #[error("the scraper's answer was {0:?}")]
    Refused(RegisterReply),
}

/// Releases what the scraper holds for us, within `patience`, and reports that.
pub(super) async fn release(shared: &Shared, scraper: &PublicKey, patience: Duration) {
    if shared.network.links().path(scraper).is_none() {
        return;
    }
    let released = time::timeout(patience, released(shared, scraper)).await;
    match released.unwrap_or(Err(NotReleased::TooLate(patience))) {
        Ok(()) => shared.events.emit(EventKind::Released { scraper: *scraper }),
        Err(NotReleased::Exchange(error @ RegisterError::Handshake(_))) => {
            tracing::debug!(%scraper, %error, "there was nothing to release");
        }
        Err(error) => tracing::warn!(%scraper, %error, "our aliases were not released; they will lapse"),
    }
}

async fn released(shared: &Shared, scraper: &PublicKey) -> Result<(), NotReleased> {
    let links = shared.network.links();
    let gone = links.wait_until(|| links.path(scraper).is_none());
    tokio::select! {
        biased;
        released = said(shared, scraper) => released,
        () = gone => Err(NotReleased::Lost),
    }
}

async fn said(shared: &Shared, scraper: &PublicKey) -> Result<(), NotReleased> {
    loop {
        match farewell(&shared.network, scraper, shared.instance).await {
            Ok(FarewellAnswer::Released(aliases)) => {
                tracing::debug!(%scraper, aliases, "released");
                return Ok(());
            }
            Ok(FarewellAnswer::InUse) => return Err(NotReleased::InUse),
            Err(Failed::Silent) => return Err(NotReleased::Silent),
            Err(Failed::Unknown) => return exchanged(shared, scraper).await,
            Ok(FarewellAnswer::Unavailable) | Err(Failed::Cut) => {}
        }
        let again = Duration::from_millis(rand::rng().random_range(AGAIN_MS));
        time::sleep(again).await;
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
    let plain = || RegisterRequest::Release;
    let exchange = exchange::exchange(&shared.network, &shared.key, &shared.secret, scraper, &request, plain);
    match time::timeout(RELEASE_TIMEOUT, exchange).await {
        Ok(Ok(RegisterReply::Released)) => Ok(()),
        Ok(Ok(reply)) => Err(NotReleased::Refused(reply)),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(NotReleased::TooLate(RELEASE_TIMEOUT)),
    }
}

#[cfg(all(test, feature = "scraper"))]
mod tests {
    use std::convert::Infallible;

    use tokio::{sync::mpsc, task::JoinSet};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        Client, KeyPair, SharedSecret,
        identity::{HostPort, PeerAddr},
        network::{Acceptor, Firewall, InboundStream, NetworkConfig, NetworkRole},
        wire::{AliasOutcome, REGISTER_PROTOCOL, Registered, channel},
    };

    const SOON: Duration = Duration::from_secs(20);

    /// Answers registrations as a scraper that knows no farewell.
    async fn earlier_scraper(mut streams: mpsc::Receiver<InboundStream>, key: KeyPair, secret: SharedSecret) {
        while let Some(InboundStream { peer, stream }) = streams.recv().await {
            let pending = channel::accept(stream, &key, &peer, REGISTER_PROTOCOL).await.expect("a first message");
            let mut channel = pending.confirm(&secret).await.expect("confirms");
            let reply = match channel.receive().await.expect("a request") {
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
    async fn a_scraper_that_knows_no_farewell_is_asked_to_release() {
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
        let client = Client::builder(scraper, secret).alias("web-1").metrics(metrics).start().await.expect("starts");
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
