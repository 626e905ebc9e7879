//! Which announcements a node keeps, and which one goes when there is no room.
//!
//! A network (IPv4: /24, IPv6: /48) has a share. Past that, one of its own goes; with the store full, one of the network
//! that has most. An announcement whose owner is linked never goes. Each step costs a look-up, however many there are.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::Instant,
};

use crate::identity::PublicKey;

pub(crate) struct Announcements {
    most: usize,
    most_of_network: usize,
    held: HashMap<PublicKey, Held>,
    networks: HashMap<IpAddr, Network>,
    /// Networks with an announcement that may go, by the number of all that each has.
    fullest: BTreeSet<(usize, IpAddr)>,
}

struct Held {
    network: IpAddr,
    expires: Instant,
}

#[derive(Default)]
struct Network {
    count: usize,
    /// Announcements whose owners are not linked, by their end.
    unlinked: BTreeSet<(Instant, PublicKey)>,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("as many owners of its network are linked as may be")]
    Network,
    #[error("all owners are linked")]
    All,
}

impl Announcements {
    pub(crate) fn new(most: usize, most_of_network: usize) -> Self {
        Self { most, most_of_network, held: HashMap::new(), networks: HashMap::new(), fullest: BTreeSet::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// The announcement that has to go before this owner's is [inserted](Self::insert), if any.
    pub(crate) fn in_the_way(&self, owner: &PublicKey, network: IpAddr) -> Result<Option<PublicKey>, Full> {
        let held = self.held.get(owner);
        if held.is_some_and(|held| held.network == network) {
            return Ok(None);
        }
        let first = |network: &IpAddr| Some(self.networks.get(network)?.unlinked.first()?.1);
        if self.networks.get(&network).map_or(0, |network| network.count) >= self.most_of_network {
            return first(&network).map(Some).ok_or(Full::Network);
        }
        if held.is_none() && self.held.len() >= self.most {
            return self.fullest.last().and_then(|(_, network)| first(network)).map(Some).ok_or(Full::All);
        }
        Ok(None)
    }

    /// Takes an announcement, from its owner's own link.
    pub(crate) fn insert(&mut self, owner: PublicKey, network: IpAddr, expires: Instant) {
        self.remove(&owner);
        self.change(network, |network| network.count += 1);
        self.held.insert(owner, Held { network, expires });
    }

    pub(crate) fn remove(&mut self, owner: &PublicKey) {
        if let Some(Held { network, expires }) = self.held.remove(owner) {
            self.change(network, |network| {
                network.count -= 1;
                network.unlinked.remove(&(expires, *owner));
            });
        }
    }

    /// The owner has got its first link, or lost its last.
    pub(crate) fn set_linked(&mut self, owner: &PublicKey, linked: bool) {
        if let Some(&Held { network, expires }) = self.held.get(owner) {
            self.change(network, |network| {
                match linked {
                    true => network.unlinked.remove(&(expires, *owner)),
                    false => network.unlinked.insert((expires, *owner)),
                };
            });
        }
    }

    pub(crate) fn expired(&self, now: Instant) -> Vec<PublicKey> {
        self.held.iter().filter(|(_, held)| held.expires <= now).map(|(owner, _)| *owner).collect()
    }

    fn change(&mut self, ip: IpAddr, change: impl FnOnce(&mut Network)) {
        let network = self.networks.entry(ip).or_default();
        self.fullest.remove(&(network.count, ip));
        change(network);
        if network.count == 0 {
            self.networks.remove(&ip);
        } else if !network.unlinked.is_empty() {
            self.fullest.insert((network.count, ip));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(number: u32) -> PublicKey {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        crate::identity::KeyPair::from_seed(&seed).public()
    }

    fn net(number: u8) -> IpAddr {
        [192, 0, number, 0].into()
    }

    /// Puts as a node does; gives whose announcement went.
    fn put(
        all: &mut Announcements,
        owner: PublicKey,
        from: IpAddr,
        expires: Instant,
    ) -> Result<Option<PublicKey>, Full> {
        let gone = all.in_the_way(&owner, from)?;
        gone.iter().for_each(|gone| all.remove(gone));
        all.insert(owner, from, expires);
        Ok(gone)
    }

    #[test]
    fn a_network_past_its_share_displaces_its_own() {
        let (mut all, now) = (Announcements::new(100, 2), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        for (number, from, life) in [(1, net(1), 20), (2, net(1), 10), (3, net(2), 1)] {
            assert_eq!(put(&mut all, key(number), from, later(life)), Ok(None));
        }
        assert_eq!(put(&mut all, key(4), net(1), later(30)), Err(Full::Network), "both owners are linked");
        all.set_linked(&key(1), false);
        all.set_linked(&key(2), false);
        assert_eq!(put(&mut all, key(4), net(1), later(30)), Ok(Some(key(2))), "the first to expire of its network");
        all.set_linked(&key(1), true);
        assert_eq!(put(&mut all, key(5), net(1), later(30)), Err(Full::Network), "its owner is back");
        assert_eq!(put(&mut all, key(1), net(2), later(30)), Ok(None), "an owner moves");
        assert_eq!(put(&mut all, key(5), net(1), later(30)), Ok(None));
        assert_eq!((all.len(), all.expired(later(1))), (4, vec![key(3)]));
    }

    #[test]
    fn thousands_of_keys_of_one_network_displace_nobody_elses() {
        const ROOM: usize = 2_000;
        let (mut all, now) = (Announcements::new(ROOM, ROOM / 2), Instant::now());
        // Scrapers all over the world whose announcements end first, none of them linked here.
        for number in 0..200 {
            let from = net(number as u8);
            assert_eq!(put(&mut all, key(number), from, now), Ok(None));
            all.set_linked(&key(number), false);
        }
        let honest: BTreeSet<PublicKey> = (0..200).map(key).collect();
        let flood = [net(250), net(251)];
        for number in 1_000..6_000 {
            let from = flood[number as usize % 2];
            if let Some(gone) = put(&mut all, key(number), from, now + Duration::from_secs(3_600)).expect("room") {
                assert!(!honest.contains(&gone), "one of a smaller network went");
            }
            all.set_linked(&key(number), false);
        }
        assert_eq!(all.len(), ROOM);
        assert!(honest.iter().all(|owner| all.held.contains_key(owner)));
    }
}
