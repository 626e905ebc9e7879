//! Where others may reach us, as far as the swarm knows.

use std::collections::HashSet;

use libp2p::Multiaddr;

#[cfg(feature = "scraper")]
use crate::identity::DialAddress;
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
        // Each reservation at a relay has a listener, and all of them the same addresses.
        let mut seen = HashSet::new();
        let listening = listening.filter(|address| seen.insert(*address)).cloned();
        let (circuits, listeners): (Vec<_>, Vec<_>) = listening.partition(address::is_relayed);
        let known = |address: &Multiaddr| listeners.contains(address) || given.contains(address);
        let confirmed = external.filter(|address| !address::is_relayed(address) && !known(address)).cloned().collect();
        Self { listeners, given, confirmed, circuits }
    }

    /// The addresses that lead straight to us.
    #[cfg(any(feature = "scraper", feature = "node"))]
    pub(crate) fn direct(&self) -> impl Iterator<Item = &Multiaddr> {
        self.given.iter().chain(&self.listeners).chain(&self.confirmed)
    }

    /// What others are told: the addresses given by the operator, or else those we listen on or were seen at; loopback ones only if
    /// there are no others.
    #[cfg(feature = "scraper")]
    pub(crate) fn told(&self) -> Vec<Multiaddr> {
        let mut addresses = self.given.clone();
        if addresses.is_empty() {
            addresses.extend(self.direct().filter(|address| address::is_dialable(address)).cloned());
        }
        let is_loopback = |address: &Multiaddr| address::ip(address).is_some_and(|ip| ip.is_loopback());
        if addresses.iter().any(|address| !is_loopback(address)) {
            addresses.retain(|address| !is_loopback(address));
        }
        addresses
    }

    /// The same as people write them, public ones first.
    #[cfg(feature = "scraper")]
    pub(crate) fn dial_addresses(&self) -> Vec<DialAddress> {
        let mut told = self.told();
        told.sort_by_key(address::is_private);
        let mut addresses: Vec<DialAddress> = Vec::new();
        for address in told.iter().filter_map(address::dial_address) {
            // TCP and QUIC share a port.
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
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

    #[cfg(feature = "scraper")]
    #[test]
    fn others_are_told_of_loopback_addresses_only_if_there_are_no_others() {
        let [loopback, own] = ["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1"]
            .map(|address| address.parse::<Multiaddr>().expect("an address"));
        let told = |listeners: &[&Multiaddr]| Reach::new(listeners.iter().copied(), [].into_iter(), Vec::new()).told();
        assert_eq!(told(&[&loopback, &own]), std::slice::from_ref(&own));
        assert_eq!(told(&[&loopback]), [loopback]);
    }

    #[cfg(feature = "scraper")]
    #[test]
    fn each_address_is_dialled_once_and_a_public_one_first() {
        let listeners = ["/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/8.8.8.8/tcp/1"]
            .map(|address| address.parse::<Multiaddr>().expect("an address"));
        let addresses = Reach::new(listeners.iter(), [].into_iter(), Vec::new()).dial_addresses();
        assert_eq!(addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["8.8.8.8:1", "10.0.0.1:1"]);
    }
}
