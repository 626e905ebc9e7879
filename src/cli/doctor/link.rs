//! The link to a scraper, as a client would have it.

use std::{net::SocketAddr, time::Duration};

use tokio::time;

use super::{expected_peer::ExpectedPeer, presence::Presence, reachability, report::Check};
use crate::{
    identity::{PeerAddr, PublicKey},
    network::{self, ConnectError, LinkPath, LinkStatus, Whereabouts},
};

/// Longest wait for a link, in waits for one answer: a look-up comes before the dial.
const CONNECT: u32 = 2;
/// Longest wait for a hole punch.
const PUNCH: Duration = Duration::from_secs(4);
/// Longest wait for the first measured round trip.
const MEASURE: Duration = Duration::from_secs(1);
/// How often the link is asked for that round trip.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Links the scraper as a client does, and reports the path of the link.
pub(super) async fn check(presence: &Presence, name: String, scraper: &PeerAddr, found: Option<&Whereabouts>) -> Check {
    let links = presence.network.links();
    links.keep(scraper.key);
    match time::timeout(presence.wait * CONNECT, presence.network.connect(scraper)).await {
        Ok(Ok(())) => {
            let status = settled(presence, &scraper.key).await;
            let elsewhere = leads_elsewhere(presence, scraper, &status).await;
            linked(name, &status, elsewhere)
        }
        Ok(Err(error)) => unlinked(presence, name, scraper, found, &error),
        Err(_) => {
            let error = ConnectError::timed_out(scraper.key, presence.wait * CONNECT);
            unlinked(presence, name, scraper, found, &error)
        }
    }
}

/// The state of the link, after a wait for its round trip and for a hole punch if it is relayed.
async fn settled(presence: &Presence, scraper: &PublicKey) -> LinkStatus {
    let links = presence.network.links();
    let direct = links.wait_until(|| links.path(scraper) != Some(LinkPath::Relayed));
    let _ = time::timeout(PUNCH, direct).await;
    let measured = async {
        while links.status(scraper).rtt.is_none() {
            time::sleep(LOOK_AGAIN).await;
        }
    };
    let _ = time::timeout(MEASURE, measured).await;
    links.status(scraper)
}

/// True if the link goes to another address than the one that was given: one that is remembered, or was found.
async fn leads_elsewhere(presence: &Presence, scraper: &PeerAddr, status: &LinkStatus) -> bool {
    let hint = scraper.hint.as_ref().filter(|hint| !reachability::is_indirect(presence, hint));
    let to = status.address.as_ref().and_then(|address| address.parse::<SocketAddr>().ok());
    let (Some(hint), Some(to), Some(LinkPath::Direct)) = (hint, to, status.path) else { return false };
    let given = time::timeout(presence.wait, network::resolve(hint.host_port())).await;
    !given.is_ok_and(|found| found.is_ok_and(|found| found.contains(&to)))
}

fn linked(name: String, status: &LinkStatus, elsewhere: bool) -> Check {
    let transport = status.transport.map_or("", |transport| transport.as_str());
    let address = status.address.as_deref().unwrap_or("an unknown address");
    let rtt = status.rtt.map_or_else(String::new, |rtt| format!(", round trip {rtt:.1?}"));
    match status.path {
        Some(LinkPath::Direct) => {
            let elsewhere = match elsewhere {
                true => ", not the address that was given: the agent remembers this one, or has found it by the key",
                false => "",
            };
            Check::ok(name, format!("direct to {address}, {transport}{rtt}{elsewhere}"))
        }
        Some(LinkPath::Relayed) => Check::ok(
            name,
            format!(
                "through the relay at {address}, {transport}{rtt}; no hole was punched within {PUNCH:?}, it works so too"
            ),
        ),
        None => Check::failed(name, "the scraper has closed it again", ExpectedPeer::Scraper.closed_advice()),
    }
}

fn unlinked(
    presence: &Presence,
    name: String,
    scraper: &PeerAddr,
    found: Option<&Whereabouts>,
    error: &ConnectError,
) -> Check {
    if let Some(check) = reachability::wrong_key(&name, ExpectedPeer::Scraper, error) {
        return check;
    }
    let advice = match (&scraper.hint, found) {
        (Some(hint), _) if reachability::is_indirect(presence, hint) => ExpectedPeer::Scraper.proxy_advice(),
        _ if error.was_cut() => ExpectedPeer::Scraper.closed_advice(),
        (_, Some(found)) if found.public == 0 && found.relayed == 0 => {
            "is the scraper still running? It has announced private addresses only, which mean nothing outside of its network: \
             give it a node with --relay as --bootstrap, or forward a port to it and start it with --external"
                .to_owned()
        }
        (_, Some(_)) => "the scraper is announced but does not answer: is it still running, and does its firewall let the \
            port of its --listen pass? Run narthex doctor --key FILE beside it"
            .to_owned(),
        (None, None) => {
            let mend = match presence.nodes.is_empty() {
                true => "start the scraper with --mdns in this network",
                false if presence.reaches_a_node() => "mend the look-up",
                false => "mend the way to a node, of which none answers",
            };
            format!("{mend}, or give the scraper's address: --scraper KEY@HOST:PORT")
        }
        (Some(_), None) => "start the scraper; if it runs, run narthex doctor --key FILE beside it".to_owned(),
    };
    Check::failed(name, error.to_string(), advice)
}
