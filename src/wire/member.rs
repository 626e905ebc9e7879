//! The scrapers of a group, as one of them names the others to a client.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::identity::{DialAddress, PublicKey};

/// Most members that a client takes from one scraper.
pub const MAX_MEMBERS: usize = 16;
/// Most addresses that a client takes of one member.
pub const MAX_ADDRESSES: usize = 8;

/// A scraper that keeps the same table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMember {
    /// Its key.
    pub key: PublicKey,
    /// Unchecked [`DialAddress`]es.
    pub addresses: Vec<String>,
}

impl GroupMember {
    /// The members to go by: the first [`MAX_MEMBERS`] that are not the `asker` itself, each once, with the first
    /// [`MAX_ADDRESSES`] of their addresses that can be dialled.
    pub fn checked(members: &[Self], asker: &PublicKey) -> Vec<(PublicKey, Vec<DialAddress>)> {
        let mut seen = BTreeSet::from([*asker]);
        let others = members.iter().filter(|member| seen.insert(member.key)).take(MAX_MEMBERS);
        others.map(|member| (member.key, member.dial_addresses())).collect()
    }

    fn dial_addresses(&self) -> Vec<DialAddress> {
        self.addresses.iter().filter_map(|text| text.parse().ok()).take(MAX_ADDRESSES).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyPair;

    fn key(seed: usize) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        KeyPair::from_seed(&bytes).public()
    }

    fn member(seed: usize, addresses: &[&str]) -> GroupMember {
        GroupMember { key: key(seed), addresses: addresses.iter().map(|&text| text.to_owned()).collect() }
    }

    #[test]
    fn the_asker_itself_doubles_and_members_beyond_the_limit_are_left_out() {
        let members: Vec<_> = [0, 1, 1, 2].into_iter().chain(3..2000).map(|seed| member(seed, &["h:1"])).collect();
        let checked = GroupMember::checked(&members, &key(0));
        assert_eq!(checked.iter().map(|(key, _)| *key).collect::<Vec<_>>(), (1..=16).map(key).collect::<Vec<_>>());
    }

    #[test]
    fn addresses_that_cannot_be_dialled_and_those_beyond_the_limit_are_left_out() {
        let good: Vec<String> = (1..=20).map(|port| format!("192.0.2.1:{port}")).collect();
        let mut all = vec!["", "h", "h:0", "0.0.0.0:1", "a b:1", "http://h:1", "h:1\n"];
        all.extend(good.iter().map(String::as_str));
        let checked = GroupMember::checked(&[member(1, &all)], &key(0));
        let texts: Vec<String> = checked[0].1.iter().map(DialAddress::to_string).collect();
        assert_eq!(texts, good[..8]);
        assert_eq!(
            GroupMember::checked(&[member(1, &["nowhere"])], &key(0)),
            [(key(1), vec![])],
            "its key may be announced"
        );
    }
}
