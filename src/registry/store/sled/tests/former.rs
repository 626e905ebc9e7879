//! Tables of earlier versions.

use super::*;
use crate::registry::store::record;

/// A table as version 0.1 wrote it: 100 commits of one alias each.
fn sled_table() -> Dir {
    let place = Dir::new();
    let db = ::sled::Config::new().path(place.base()).flush_every_ms(None).open().expect("opens");
    let tree = db.open_tree("leases").expect("opens");
    for n in 1..=100_u64 {
        let lease = lease(&format!("a-{n}"));
        tree.insert(lease.alias.as_str(), record::encode(&lease).expect("fits")).expect("written");
        tree.insert(b"\0mark", &((u128::from(n) << 64) | u128::from(n)).to_be_bytes()).expect("written");
    }
    tree.flush().expect("written");
    drop((tree, db));
    let check = "v1 100 100 whole 3753e6fb7bff9034\n";
    fs::write(place.0.path().join("aliases.check"), check).expect("written");
    place
}

#[test]
fn a_table_of_an_earlier_version_is_taken_over() {
    let place = sled_table();
    let (store, loaded) = place.load();
    assert_eq!((loaded.contents.leases.len(), loaded.damage), (100, None));
    assert!(loaded.unconfirmed.is_empty());
    assert_eq!(files::read_without_sled(&place.base()).count(), 100);
    assert_eq!(place.files("aliases"), 2);
    place.goes_on(store);
}

#[test]
fn a_damaged_table_of_an_earlier_version_is_put_aside() {
    for len in [0, 1000, 4096, 20_000] {
        let place = sled_table();
        let db = File::options().write(true).open(place.base().join("db")).expect("opens");
        db.set_len(len).expect("cut");
        let (_store, loaded) = place.load();
        assert_eq!(damage(&loaded).and_then(|(noted, _)| noted), Some(100), "{len} bytes");
        assert_eq!(loaded.unconfirmed.len(), loaded.contents.leases.len());
        assert_eq!(place.files("aliases.damaged-"), 1);
    }
}
