//! The NAT between this host and the nodes: from which address the nodes see us, and whether they can dial us.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use super::{presence::Presence, report::Check};
use crate::{
    identity::PublicKey,
    network::{LinkTransport, Observation},
};

/// Longest wait from the start to a node's answer, less the wait for one answer: the request goes out after 5 s.
const ASKED: Duration = Duration::from_secs(7);

/// The address at which one node sees one of our sockets.
struct SeenAddress {
    node: PublicKey,
    transport: LinkTransport,
    address: SocketAddr,
}

/// The kind of the NAT: several nodes each see one port of ours at some address, and the kind follows from these addresses.
pub(super) async fn kind(presence: &Presence) -> Check {
    let name = "NAT";
    if presence.nodes.is_empty() {
        return Check::skipped(name, "without --bootstrap no node sees us");
    }
    presence.all_identified().await;
    let mut seen_addresses: Vec<SeenAddress> = Vec::new();
    for observation in presence.observations() {
        if let Observation::Identified { peer, transport, seen_at: Some(address), .. } = observation {
            seen_addresses.push(SeenAddress { node: peer, transport, address });
        }
    }
    seen_addresses.retain(|seen| presence.nodes.iter().any(|node| node.key == seen.node));
    let kinds: Vec<String> = [(LinkTransport::Tcp, "TCP"), (LinkTransport::Quic, "UDP")]
        .into_iter()
        .flat_map(|(transport, protocol)| [true, false].map(|v4| (transport, protocol, v4)))
        .filter_map(|(transport, protocol, v4)| {
            let same = |seen: &&SeenAddress| seen.transport == transport && seen.address.is_ipv4() == v4;
            let seen_addresses: Vec<&SeenAddress> = seen_addresses.iter().filter(same).collect();
            let family = if v4 { "IPv4" } else { "IPv6" };
            let kind = kind_of(&seen_addresses, &presence.network.ends())?;
            Some(format!("{protocol} over {family}: {kind}"))
        })
        .collect();
    if kinds.is_empty() {
        return Check::skipped(name, "no node has seen us");
    }
    Check::ok(name, kinds.join("; "))
}

/// The kind of NAT before one of our sockets, from the addresses at which the nodes see that socket.
fn kind_of(seen_addresses: &[&SeenAddress], own: &[(LinkTransport, SocketAddr)]) -> Option<String> {
    let first = seen_addresses.first()?;
    let at = first.address;
    if seen_addresses.iter().all(|seen| own.contains(&(seen.transport, seen.address))) {
        return Some(format!("none, seen at {at}"));
    }
    let nodes: BTreeSet<PublicKey> = seen_addresses.iter().map(|seen| seen.node).collect();
    let addresses: BTreeSet<SocketAddr> = seen_addresses.iter().map(|seen| seen.address).collect();
    Some(match (nodes.len(), addresses.len()) {
        (1, _) => format!("there is one, seen at {at}; a second --bootstrap node would determine its kind"),
        (_, 1) => format!("a cone, seen at {at} by all nodes: holes can be punched"),
        _ => {
            let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
            let addresses = addresses.join(", ");
            format!("a symmetric one, seen at {addresses}: links to peers behind NAT stay relayed")
        }
    })
}

/// Whether a node that dialled us back reached us.
pub(super) async fn dial_back(presence: &Presence) -> Check {
    let name = "reachable unasked";
    if !presence.reaches_a_node() {
        return Check::skipped(name, "no node answers that could dial back");
    }
    let limit = ASKED + presence.wait;
    let result = |observations: &[Observation]| {
        let dialled: Vec<_> = observations
            .iter()
            .filter_map(|one| match one {
                Observation::DialledBack { address, transport, reached } => Some((*address, *transport, *reached)),
                _ => None,
            })
            .collect();
        dialled.iter().find(|(_, _, reached)| *reached).or(dialled.first()).copied()
    };
    let success = |observations: &[Observation]| result(observations).filter(|(_, _, reached)| *reached);
    let result = match presence.until(presence.left_of(limit), success).await {
        Some(success) => Some(success),
        None => result(&presence.observations()),
    };
    match result {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyPair;

    fn seen(node: u8, at: &str) -> SeenAddress {
        let node = KeyPair::from_seed(&[node; 32]).public();
        SeenAddress { node, transport: LinkTransport::Quic, address: at.parse().expect("an address") }
    }

    #[test]
    fn the_kind_of_nat_follows_from_what_two_nodes_see() {
        let ends = [(LinkTransport::Quic, "10.0.0.2:7".parse().expect("an address"))];
        for (seen_addresses, kind) in [
            (vec![seen(1, "10.0.0.2:7")], "none"),
            (vec![seen(1, "192.0.2.1:7")], "a second --bootstrap node"),
            (vec![seen(1, "192.0.2.1:7"), seen(1, "192.0.2.1:8")], "a second --bootstrap node"),
            (vec![seen(1, "192.0.2.1:9"), seen(2, "192.0.2.1:9")], "a cone"),
            (vec![seen(1, "192.0.2.1:9"), seen(2, "192.0.2.1:8")], "symmetric"),
        ] {
            let found = kind_of(&seen_addresses.iter().collect::<Vec<_>>(), &ends).expect("seen_addresses");
            assert!(found.contains(kind), "{kind}: {found}");
        }
        assert_eq!(kind_of(&[], &ends), None);
    }
}
