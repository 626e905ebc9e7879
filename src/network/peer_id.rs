//! Public keys and libp2p's peer ids.

use libp2p::{
    PeerId,
    identity::{Keypair, PublicKey as Libp2pKey, ed25519},
    multihash::Multihash,
};

use crate::identity::{KeyPair, PublicKey};

/// The multihash code of peer ids that carry the key itself.
const IDENTITY_HASH: u64 = 0;

pub(crate) fn peer_id(key: &PublicKey) -> PeerId {
    let key = ed25519::PublicKey::try_from_bytes(key.as_bytes()).expect("a PublicKey is a valid Ed25519 key");
    Libp2pKey::from(key).to_peer_id()
}

/// None for peers whose id is not an Ed25519 key: no narthex peer has one.
pub(crate) fn public_key(peer: &PeerId) -> Option<PublicKey> {
    let hash = Multihash::<64>::from_bytes(&peer.to_bytes()).ok()?;
    if hash.code() != IDENTITY_HASH {
        return None;
    }
    let key = Libp2pKey::try_decode_protobuf(hash.digest()).ok()?.try_into_ed25519().ok()?;
    PublicKey::from_bytes(&key.to_bytes()).ok()
}

pub(crate) fn keypair(key: &KeyPair) -> Keypair {
    Keypair::ed25519_from_bytes(*key.seed()).expect("any 32 bytes are an Ed25519 seed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_ids_and_public_keys_map_both_ways() {
        let pair = KeyPair::from_seed(&[4; 32]);
        let id = peer_id(&pair.public());
        assert_eq!(id, keypair(&pair).public().to_peer_id());
        assert_eq!(public_key(&id), Some(pair.public()));
    }

    #[test]
    fn a_peer_id_that_is_a_hash_is_no_public_key() {
        assert_eq!(public_key(&PeerId::random()), None);
    }
}
