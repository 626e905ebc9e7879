//! A power cut: what the device holds at the moment of an acknowledgement is all there is at the next start.

use std::{collections::BTreeSet, os::unix::fs::symlink};

use tokio::runtime::Runtime;

use crate::{
    MACHINE,
    clients::{registered, start},
    report, rounds,
    support::{disk::Disk, fleet::Fleet, http},
};

/// Rounds unless `NARTHEX_ROUNDS` gives another number.
const ROUNDS: usize = 12;
/// Aliases whose registration is under way at the cut.
const RACING: usize = 50;

#[test]
fn a_power_cut_undoes_no_acknowledged_registration_or_release() {
    let _alone = MACHINE.blocking_lock();
    let Some(disk) = Disk::ext4() else { return };
    let fleet = Fleet::new();
    symlink(disk.path().join("data"), fleet.path().join("scraper-data")).expect("links");
    std::fs::create_dir(disk.path().join("data")).expect("made");
    let mut scraper = fleet.scraper(&["--lease", "1h"]);
    let (mut lost, mut revived, mut held) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut racing: Vec<String> = Vec::new();
    let rounds = rounds(ROUNDS);
    for round in 0..rounds {
        let aliases = [format!("kept-{round}"), format!("released-{round}")];
        let runtime = Runtime::new().expect("a runtime");
        // Nobody waits for the other client's answer: the cut hits its registration wherever that is.
        racing.extend((0..RACING).map(|n| format!("racing-{round}.{n}")));
        let other = runtime.block_on(start(&fleet, &scraper, &racing[round * RACING..]));
        let client = runtime.block_on(registered(&fleet, &scraper, &aliases));
        held.extend(aliases.clone());
        // Every other cut is right after a registration.
        if round % 2 == 1 {
            let path = format!("/api/v1/aliases/{}", aliases[1]);
            let answer = http::request("DELETE", scraper.http, &path, &[]).expect("the scraper answers");
            assert_eq!(answer.status, 204, "{}", answer.text());
            held.remove(&aliases[1]);
        }
        let device = disk.bytes();
        scraper.process.kill();
        runtime.shutdown_background();
        drop((client, other));
        disk.restore(device);
        scraper.restart();
        let listed = scraper.listed().expect("a power cut is no damage");
        lost.extend(held.iter().filter(|alias| !listed.contains_key(*alias)).cloned());
        revived.extend(listed.into_keys().filter(|alias| !held.contains(alias) && !racing.contains(alias)));
        held.retain(|alias| !lost.contains(alias));
    }
    report(&format!(
        "power cuts: {rounds} rounds, {} lost, {} revived, {} held",
        lost.len(),
        revived.len(),
        held.len()
    ));
    scraper.process.kill();
    assert!(lost.is_empty() && revived.is_empty(), "lost {lost:?}, revived {revived:?}");
}
