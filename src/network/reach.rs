//! Where others may reach us, as far as the swarm knows.

use libp2p::Multiaddr;

use crate::network::address;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// What we listen on: an address of this host each.
    pub(crate) listeners: Vec<Multiaddr>,
    /// The operator's external addresses.
    pub(crate) given: Vec<Multiaddr>,
    /// Others that lead to us.
    pub(crate) confirmed: Vec<Multiaddr>,
    /// Through relays.
    pub(crate) circuits: Vec<Multiaddr>,
}

impl Reach {
    pub(crate) fn new<'a>(
        listening: impl Iterator<Item = &'a Multiaddr>,
        external: impl Iterator<Item = &'a Multiaddr>,
        given: Vec<Multiaddr>,
    ) -> Self {
        let (circuits, listeners): (Vec<_>, Vec<_>) = listening.cloned().partition(address::is_relayed);
        let known = |address: &Multiaddr| listeners.contains(address) || given.contains(address);
        let confirmed = external.filter(|address| !address::is_relayed(address) && !known(address)).cloned().collect();
        Self { listeners, given, confirmed, circuits }
    }

    /// The addresses that lead straight to us.
    #[cfg(any(feature = "scraper", feature = "node"))]
    pub(crate) fn direct(&self) -> impl Iterator<Item = &Multiaddr> {
        self.given.iter().chain(&self.listeners).chain(&self.confirmed)
    }
}

#[cfg(all(test, any(feature = "scraper", feature = "node")))]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_leads_to_us_is_listed_once() {
        let [listener, given, seen] = ["/ip4/10.0.0.1/tcp/1", "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1"]
            .map(|address| address.parse::<Multiaddr>().expect("an address"));
        let circuit: Multiaddr =
            "/ip4/192.0.2.3/tcp/1/p2p/12D3KooWEJwx3qvU2w9eaQcSe6UgimumVaG3TtmpFkpqNfdLMjSR/p2p-circuit"
                .parse()
                .expect("an address");
        let external = [&listener, &given, &seen, &circuit];
        let reach = Reach::new([&listener, &circuit].into_iter(), external.into_iter(), vec![given.clone()]);
        assert_eq!(reach.direct().collect::<Vec<_>>(), [&given, &listener, &seen]);
        assert_eq!(reach.circuits, [circuit]);
    }
}
