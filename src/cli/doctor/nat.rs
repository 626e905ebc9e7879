//! What stands between us and the nodes: where they see us, and whether they get back to us.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use super::{presence::Presence, report::Check};
use crate::{
    identity::PublicKey,
    network::{LinkTransport, Observation},
};

/// Where one node sees one end of ours.
struct Sight {
    node: PublicKey,
    transport: LinkTransport,
    at: SocketAddr,
}

/// The kind of the NAT, from where several nodes see the same port of ours.
pub(super) async fn kind(presence: &Presence) -> Check {
    let name = "NAT";
    if presence.nodes.is_empty() {
        return Check::skipped(name, "without --bootstrap nobody sees us");
    }
    presence.all_identified().await;
    let mut sights: Vec<Sight> = Vec::new();
    for observation in presence.seen() {
        if let Observation::Identified { peer, transport, seen_at: Some(at), .. } = observation {
            sights.push(Sight { node: peer, transport, at });
        }
    }
    sights.retain(|sight| presence.nodes.iter().any(|node| node.key == sight.node));
    let told: Vec<String> = [(LinkTransport::Tcp, "TCP"), (LinkTransport::Quic, "UDP")]
        .into_iter()
        .flat_map(|(transport, word)| [true, false].map(|v4| (transport, word, v4)))
        .filter_map(|(transport, word, v4)| {
            let same = |sight: &&Sight| sight.transport == transport && sight.at.is_ipv4() == v4;
            let sights: Vec<&Sight> = sights.iter().filter(same).collect();
            let family = if v4 { "IPv4" } else { "IPv6" };
            let told = judged(&sights, &presence.network.ends())?;
            Some(format!("{word} over {family}: {told}"))
        })
        .collect();
    if told.is_empty() {
        return Check::skipped(name, "no node has seen us");
    }
    Check::ok(name, told.join("; "))
}

/// One end of ours, as the nodes see it.
fn judged(sights: &[&Sight], ends: &[(LinkTransport, SocketAddr)]) -> Option<String> {
    let first = sights.first()?;
    let at = first.at;
    if sights.iter().all(|sight| ends.contains(&(sight.transport, sight.at))) {
        return Some(format!("none, seen at {at}"));
    }
    let nodes: BTreeSet<PublicKey> = sights.iter().map(|sight| sight.node).collect();
    let places: BTreeSet<SocketAddr> = sights.iter().map(|sight| sight.at).collect();
    Some(match (nodes.len(), places.len()) {
        (1, _) => format!("there is one, seen at {at}; a second --bootstrap node would tell its kind"),
        (_, 1) => format!("a cone, seen at {at} by all nodes: holes can be punched"),
        _ => {
            let places: Vec<String> = places.iter().map(SocketAddr::to_string).collect();
            let places = places.join(", ");
            format!("a symmetric one, seen at {places}: links to peers behind NAT stay relayed")
        }
    })
}

/// What a node met that dialled us.
pub(super) async fn dial_back(presence: &Presence) -> Check {
    let name = "reachable unasked";
    if !presence.reaches_a_node() {
        return Check::skipped(name, "no node answers that could dial back");
    }
    let limit = ASKED + presence.wait;
    let verdict = |seen: &[Observation]| {
        let dialled: Vec<_> = seen
            .iter()
            .filter_map(|one| match one {
                Observation::DialledBack { address, transport, reached } => Some((*address, *transport, *reached)),
                _ => None,
            })
            .collect();
        dialled.iter().find(|(_, _, reached)| *reached).or(dialled.first()).copied()
    };
    let success = |seen: &[Observation]| verdict(seen).filter(|(_, _, reached)| *reached);
    let verdict = match presence.until(presence.left_of(limit), success).await {
        Some(success) => Some(success),
        None => verdict(&presence.seen()),
    };
    match verdict {
        Some((at, transport, true)) => Check::ok(
            name,
            format!("yes, a node dialled back to {at}, a port of this doctor's, over {}", transport.as_str()),
        ),
        Some((at, _, false)) => Check::ok(
            name,
            format!("no, a node could not dial {at}: usual behind NAT or a firewall, links are opened from here"),
        ),
        None => Check::skipped(name, format!("no node has tried to dial back within {limit:?}")),
    }
}

/// Nodes are asked 5 s after the start.
const ASKED: Duration = Duration::from_secs(7);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyPair;

    fn sight(node: u8, at: &str) -> Sight {
        let node = KeyPair::from_seed(&[node; 32]).public();
        Sight { node, transport: LinkTransport::Quic, at: at.parse().expect("an address") }
    }

    #[test]
    fn a_nat_is_told_from_what_two_nodes_see() {
        let ends = [(LinkTransport::Quic, "10.0.0.2:7".parse().expect("an address"))];
        for (sights, word) in [
            (vec![sight(1, "10.0.0.2:7")], "none"),
            (vec![sight(1, "192.0.2.1:7")], "a second --bootstrap node"),
            (vec![sight(1, "192.0.2.1:7"), sight(1, "192.0.2.1:8")], "a second --bootstrap node"),
            (vec![sight(1, "192.0.2.1:9"), sight(2, "192.0.2.1:9")], "a cone"),
            (vec![sight(1, "192.0.2.1:9"), sight(2, "192.0.2.1:8")], "symmetric"),
        ] {
            let told = judged(&sights.iter().collect::<Vec<_>>(), &ends).expect("sights");
            assert!(told.contains(word), "{word}: {told}");
        }
        assert_eq!(judged(&[], &ends), None);
    }
}
