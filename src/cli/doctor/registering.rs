//! A registration without its effect: the handshake, and the state of the aliases.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time,
};

use super::{clock::PeerTime, expected_peer::ExpectedPeer, presence::Presence, report::Check};
use crate::{
    client::{RegisterError, exchange},
    identity::{PublicKey, SharedSecret},
    network::LinkStream,
    telemetry::Chain,
    wire::{
        Alias, AliasGuard, AliasStatus, HandshakeRefusal, Probe, Probed, RegisterReply, RegisterRequest,
        channel::Channel,
    },
};

/// The latest time taken from a scraper: some 3000 years, which each clock can hold.
const MOST_UNIX_MS: u64 = 100_000_000_000_000;

/// Proves the secret to the scraper.
pub(super) async fn handshake(
    presence: &Presence,
    name: String,
    scraper: &PublicKey,
    expected: ExpectedPeer,
    secret: &SharedSecret,
) -> (Check, Option<Channel<LinkStream>>) {
    let handshake = exchange::handshake(&presence.network, &presence.key, secret, scraper);
    let error = match time::timeout(presence.wait, handshake).await {
        Ok(Ok(channel)) => {
            return (Check::ok(name, "the scraper holds it too: both sides have proved it"), Some(channel));
        }
        Ok(Err(error)) => error,
        Err(_) => RegisterError::Timeout(presence.wait),
    };
    let advice = match &error {
        RegisterError::Handshake(HandshakeRefusal::UnknownSecret) => expected.unknown_secret_advice(),
        RegisterError::Handshake(HandshakeRefusal::NotAdmitted) => {
            "an agent that has joined goes on; the doctor, as any other, may not join: see narthex ticket list beside the scraper"
        }
        RegisterError::NotAScraper => "give the key of a scraper with --scraper: its log names it when it starts",
        RegisterError::Handshake(HandshakeRefusal::Busy | HandshakeRefusal::Unavailable)
        | RegisterError::Timeout(_) => "try again in a while; see the scraper's log and load",
        _ => "see the scraper's log; are both of a version that goes together?",
    };
    (Check::failed(name, Chain(&error).to_string(), advice), None)
}

/// Whether the agent with the key `own` could register each alias, and the scraper's time. The probe claims nothing.
pub(super) async fn aliases<S: AsyncRead + AsyncWrite + Unpin>(
    mut channel: Channel<S>,
    wait: Duration,
    name: impl Fn(&Alias) -> String,
    own: Option<PublicKey>,
    aliases: &[Alias],
) -> (Vec<Check>, Option<PeerTime>) {
    let probe = Probe { aliases: aliases.iter().map(Alias::to_string).collect() };
    let reply = time::timeout(wait, exchange::ask(&mut channel, &RegisterRequest::Probe(probe))).await;
    let received_at = SystemTime::now();
    let (detail, advice) = match reply {
        Ok(Ok(RegisterReply::Probed(Probed { unix_ms, statuses }))) if statuses.len() == aliases.len() => {
            let checks = aliases.iter().zip(statuses).map(|(alias, status)| check_alias(name(alias), status, own));
            let time = UNIX_EPOCH + Duration::from_millis(unix_ms.min(MOST_UNIX_MS));
            return (checks.collect(), Some(PeerTime { time, received_at }));
        }
        // An older scraper ends the exchange at a request that it does not know.
        Ok(Err(_)) | Ok(Ok(RegisterReply::Malformed)) => {
            let detail = "the scraper ends the exchange at this question: it is older than this narthex";
            return (aliases.iter().map(|alias| Check::skipped(name(alias), detail)).collect(), None);
        }
        Ok(Ok(RegisterReply::SlowDown { .. })) => ("the scraper asks to slow down", "try again in a while"),
        Ok(Ok(RegisterReply::Unavailable)) => (
            "the scraper cannot register anybody now: it is starting, or its table cannot be written",
            "try again in a while; see the scraper's log",
        ),
        Ok(Ok(_)) => ("the scraper answers something else", "are both of a version that goes together?"),
        Err(_) => ("the scraper does not answer in time", "try again in a while; see the scraper's log and load"),
    };
    (aliases.iter().map(|alias| Check::failed(name(alias), detail, advice)).collect(), None)
}

fn check_alias(name: String, status: AliasStatus, own: Option<PublicKey>) -> Check {
    let (holder, linked, guard) = match status {
        AliasStatus::Free => return Check::ok(name, "nobody holds it"),
        AliasStatus::Full => {
            let advice =
                "raise --max-aliases or --max-table-bytes of the scraper, or release aliases that nobody needs";
            return Check::failed(name, "nobody holds it, but the scraper's table is full", advice);
        }
        AliasStatus::Invalid => return Check::failed(name, "the scraper calls it invalid", "choose another alias"),
        AliasStatus::Held { holder, linked, guard } => (holder, linked, guard),
    };
    let link = if linked { "linked" } else { "not linked" };
    if own == Some(holder) {
        return Check::ok(name, format!("held by this very key, which is {link}"));
    }
    let unknown =
        if own.is_none() { ", if that is not this agent's own key (check with narthex key FILE)" } else { "" };
    let (why, advice) = match guard {
        AliasGuard::None => {
            return Check::ok(name, format!("held by {holder}, which is {link}: whoever registers next takes it over"));
        }
        AliasGuard::Live if linked => (
            "its link is up, and the policy is live",
            "stop that agent, or choose another alias. Do two agents have the same configuration?",
        ),
        AliasGuard::Live => ("the scraper has just started and waits for it", "try again in a minute"),
        AliasGuard::Pinned => {
            ("the policy is pinned", "run narthex alias release ALIAS beside the scraper, or choose another alias")
        }
    };
    Check::failed(name, format!("held by another key, {holder}{unknown}: {why}"), advice)
}

#[cfg(test)]
mod tests {
    use super::{super::clock, *};
    use crate::{
        identity::KeyPair,
        wire::{REGISTER_PROTOCOL, channel},
    };

    /// The clock of the answering scraper is an hour behind.
    #[tokio::test]
    async fn a_clock_that_is_off_is_seen_by_the_scrapers_answer() {
        let (client, scraper) = (KeyPair::from_seed(&[1; 32]), KeyPair::from_seed(&[2; 32]));
        let secret = SharedSecret::from_bytes([3; 32]);
        let (ours, theirs) = tokio::io::duplex(4096);
        let behind = async {
            let pending = channel::accept(theirs, &scraper, &client.public(), REGISTER_PROTOCOL).await?;
            let mut channel = pending.confirm(&secret).await?;
            assert!(matches!(channel.receive().await?, RegisterRequest::Probe(_)));
            let sent = SystemTime::now().duration_since(UNIX_EPOCH).expect("the year is past 1970") - HOUR;
            let unix_ms = sent.as_millis().try_into().expect("the year fits");
            channel.send(&RegisterReply::Probed(Probed { unix_ms, statuses: vec![] })).await
        };
        let asked = async {
            let key = scraper.public();
            let channel = channel::connect(ours, &client, &key, &secret, REGISTER_PROTOCOL).await?;
            Ok(aliases(channel, HOUR, Alias::to_string, None, &[]).await.1)
        };
        let ((), peer_time) = tokio::try_join!(behind, asked).expect("both ends agree");
        let peer_time = peer_time.expect("the scraper sends its time");
        assert!(peer_time.received_at.duration_since(peer_time.time).is_ok_and(|behind| behind >= HOUR));
        assert!(!clock::check(Some(peer_time), None, "").is_ok());
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn an_alias_is_judged_for_the_agents_own_key() {
        let holder = KeyPair::from_seed(&[1; 32]).public();
        let other = KeyPair::from_seed(&[2; 32]).public();
        let held = |linked, guard| AliasStatus::Held { holder, linked, guard };
        for (status, own, fine) in [
            (AliasStatus::Free, Some(other), true),
            (AliasStatus::Full, Some(other), false),
            (AliasStatus::Invalid, Some(other), false),
            (held(true, AliasGuard::Live), Some(holder), true),
            (held(true, AliasGuard::Live), Some(other), false),
            (held(true, AliasGuard::Live), None, false),
            (held(false, AliasGuard::None), Some(other), true),
            (held(false, AliasGuard::Pinned), Some(other), false),
        ] {
            assert_eq!(check_alias(String::new(), status, own).is_ok(), fine, "{status:?}");
        }
    }
}
