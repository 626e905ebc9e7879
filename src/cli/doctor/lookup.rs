//! What the DHT holds about a scraper.

use std::time::{Duration, SystemTime};

use tokio::time;

use super::{presence::Presence, report::Check};
use crate::{
    identity::PublicKey,
    network::{Observation, Whereabouts},
    wire::AnnounceError,
};

/// Longest wait for a look-up: the DHT's own limit for a query.
const LOOKUP: Duration = Duration::from_secs(10);

/// Asks the nodes for the announcement of the scraper.
pub(super) async fn find(presence: &Presence, name: String, scraper: &PublicKey) -> (Check, Option<Whereabouts>) {
    if presence.nodes.is_empty() {
        return (Check::skipped(name, "without --bootstrap no node is asked"), None);
    }
    if !presence.reaches_a_node() {
        return (Check::skipped(name, "no bootstrap node answers"), None);
    }
    let found = match time::timeout(LOOKUP, presence.network.find(scraper)).await {
        Ok(Ok(Some(found))) => found,
        Ok(Ok(None)) => return (not_found(presence, name, scraper), None),
        Ok(Err(error)) => {
            let check = Check::failed(name, format!("the nodes cannot be asked ({error})"), "see the nodes above");
            return (check, None);
        }
        Err(_) => {
            let detail = format!("the nodes did not answer within {LOOKUP:?}");
            return (Check::failed(name, detail, "see the nodes above; do they reach each other?"), None);
        }
    };
    let Whereabouts { announced_at, public, private, relayed } = found;
    let detail = format!(
        "announced {}, with {public} public and {private} private addresses, and {relayed} through relays",
        ago(announced_at)
    );
    (Check::ok(name, detail), Some(found))
}

fn not_found(presence: &Presence, name: String, scraper: &PublicKey) -> Check {
    let mut observations = presence.observations().into_iter().rev();
    let invalid = observations.find_map(|one| match one {
        Observation::InvalidAnnouncement { peer, error } if peer == *scraper => Some(error),
        _ => None,
    });
    match invalid {
        Some(error @ (AnnounceError::Expired { .. } | AnnounceError::TooFarAhead { .. })) => Check::failed(
            name,
            format!("its announcement is there, but not for the time that this host's clock shows ({error})"),
            "set the clocks of this host and of the scraper's right (NTP)",
        ),
        Some(error) => Check::failed(
            name,
            format!("its announcement is there, but not fit ({error})"),
            "narthex of different versions? See CHANGELOG, and the nodes' logs",
        ),
        None => Check::failed(
            name,
            format!("{scraper} is not announced at these nodes"),
            "is the scraper running, with the same --bootstrap, and is that its key? If it is, its log has the reason why it is \
             not announced; a scraper whose clock is a day behind is refused by nodes",
        ),
    }
}

/// How long ago, by this host's clock.
fn ago(at: SystemTime) -> String {
    match SystemTime::now().duration_since(at) {
        Ok(age) => format!("{} ago", whole_seconds(age)),
        Err(early) => format!("{} ahead of this host's clock", whole_seconds(early.duration())),
    }
}

/// `3m 20s`.
pub(super) fn whole_seconds(span: Duration) -> String {
    humantime::format_duration(Duration::from_secs(span.as_secs())).to_string()
}
