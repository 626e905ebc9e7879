//! Bootstrap nodes: whether they answer, are nodes at all, and relay.

use super::{
    super::output::shortened,
    expected_peer::ExpectedPeer,
    presence::Presence,
    reachability,
    report::{Check, Checks},
};
use crate::identity::PeerAddr;

/// The checks of each node, all at the same time.
pub(super) fn checks(presence: &Presence) -> Vec<Checks<'_>> {
    let all = presence.nodes.iter().map(|node| -> Checks<'_> { Box::pin(check(presence, node)) });
    all.collect()
}

async fn check(presence: &Presence, node: &PeerAddr) -> Vec<Check> {
    let what = format!("node {}", shortened(&node.key));
    let mut checks = reachability::reach(presence, &what, node, ExpectedPeer::Node).await;
    checks.push(role(presence, &what, node).await);
    checks
}

async fn role(presence: &Presence, what: &str, node: &PeerAddr) -> Check {
    let name = format!("{what} role");
    if presence.network.links().path(&node.key).is_none() {
        return Check::skipped(name, "it does not answer");
    }
    let Some(kind) = presence.kind(&node.key).await else {
        return Check::failed(name, "it does not report what it is", "restart it; is it a narthex node?");
    };
    if !kind.node {
        let what = if kind.scraper { "it is a scraper, not a node" } else { "it is a peer, but not a node" };
        return Check::failed(
            name,
            format!("{what}: it does not answer look-ups"),
            "give a narthex node with --bootstrap",
        );
    }
    let relays = if kind.relay { "relays links" } else { "does not relay links (--relay)" };
    Check::ok(name, format!("it answers look-ups, and {relays}"))
}
