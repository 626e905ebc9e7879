//! Whether long packets pass in both directions, over each transport by itself.
//!
//! A line may drop long packets without a word (RFC 2923, section 2.1). Links then come up, and short answers pass.

use std::time::Duration;

use futures::future::{FutureExt, join_all};
use tokio::time;

use super::{
    presence::Presence,
    reachability,
    report::{Check, Checks},
};
use crate::{
    client::exchange,
    identity::{PeerAddr, PublicKey, SharedSecret},
    network::LinkTransport,
    wire::{RegisterReply, RegisterRequest},
};

/// Several packets of any line, and two seconds of a slow one.
const LEN: usize = 8 * 1024;
/// Longest wait for them. A scraper ends an exchange of itself after 5 s, as one of an earlier version does at once.
const WAIT: Duration = Duration::from_secs(4);

/// The check of each transport on which the scraper answers at its address, or of the link that there is if it has none.
pub(super) fn checks<'a>(
    presence: &'a Presence,
    name: impl Fn(&str) -> String + Send + 'a,
    scraper: &'a PeerAddr,
    secret: &'a SharedSecret,
) -> Checks<'a> {
    let direct = scraper.hint.as_ref().is_some_and(|hint| !reachability::is_indirect(presence, hint));
    async move {
        if !direct {
            return echo(presence, &scraper.key, secret).await.check(name("the link")).into_iter().collect();
        }
        let over = async |transport| alone(presence, transport, scraper, secret).await;
        let transports = [("TCP", LinkTransport::Tcp), ("UDP", LinkTransport::Quic)];
        let echoed = join_all(transports.map(|(label, transport)| {
            let name = name(label);
            async move { over(transport).await?.check(name) }
        }));
        echoed.await.into_iter().flatten().collect()
    }
    .boxed()
}

/// As another peer, which has nothing but this connection. None if there is no connection.
async fn alone(
    presence: &Presence,
    transport: LinkTransport,
    scraper: &PeerAddr,
    secret: &SharedSecret,
) -> Option<Echo> {
    let other = Presence::start(&[], false, None, presence.wait).await.ok()?;
    let connected = time::timeout(other.wait, other.network.connect_over(scraper, transport)).await;
    let echo = match connected {
        Ok(Ok(())) => Some(echo(&other, &scraper.key, secret).await),
        _ => None,
    };
    other.end().await;
    echo
}

enum Echo {
    Whole,
    /// Short messages were answered, and the long one was not.
    Missing,
    Unknown,
    /// The secret was not accepted, or something else that other checks say.
    NotAsked,
}

async fn echo(presence: &Presence, scraper: &PublicKey, secret: &SharedSecret) -> Echo {
    let handshake = exchange::handshake(&presence.network, &presence.key, secret, scraper);
    let Ok(Ok(mut channel)) = time::timeout(presence.wait, handshake).await else { return Echo::NotAsked };
    let asked = RegisterRequest::Echo(vec![0; LEN]);
    match time::timeout(WAIT, exchange::ask(&mut channel, &asked)).await {
        Ok(Ok(RegisterReply::Echo(bytes))) if bytes.len() == LEN => Echo::Whole,
        Ok(Ok(RegisterReply::SlowDown { .. } | RegisterReply::Unavailable)) => Echo::NotAsked,
        Ok(_) => Echo::Unknown,
        Err(_) => Echo::Missing,
    }
}

impl Echo {
    fn check(self, name: String) -> Option<Check> {
        let kib = LEN / 1024;
        Some(match self {
            Self::Whole => Check::ok(name, format!("{kib} KiB pass in both directions")),
            Self::Missing => Check::failed(
                name,
                format!(
                    "short packets pass, and of {kib} KiB there is no answer: the way drops long packets (path MTU)"
                ),
                "let ICMP through (fragmentation needed, packet too big), or lower the MTU of this host's interface to what the way carries; \
                 narthex needs 1228 bytes with IPv4, 1248 with IPv6",
            ),
            Self::Unknown => {
                Check::skipped(name, "the scraper ends the exchange at this question: it is older than this narthex")
            }
            Self::NotAsked => return None,
        })
    }
}
