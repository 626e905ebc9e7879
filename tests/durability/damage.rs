//! Damaged tables: each scraper starts, and none lists fewer or other aliases than there were without a word.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::runtime::Runtime;

use crate::{
    MACHINE,
    clients::registered,
    report, rounds,
    support::{
        SOON, eventually_true,
        fleet::{Fleet, Scraper, narthex},
        noise,
        random::Random,
    },
};

/// Rounds unless `NARTHEX_ROUNDS` gives another number.
const ROUNDS: usize = 24;
/// Aliases of the young table.
const ALIASES: usize = 200;
/// Clients that come and go in the old table's life.
const GENERATIONS: usize = 8;
/// Files of a table that are damaged.
const FILES: [&str; 3] = ["aliases/db", "aliases.check", "aliases.noted"];

#[test]
fn no_damage_keeps_a_scraper_from_starting_and_none_is_silent() {
    let _alone = MACHINE.blocking_lock();
    let fleet = Fleet::new();
    let mut scraper = fleet.scraper(&["--lease", "1h"]);
    let (young, old) = tables(&fleet, &mut scraper);
    let seed = env::var("NARTHEX_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut random = Random(seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        now.subsec_nanos().into()
    }));
    report(&format!("damages: NARTHEX_SEED={}", random.0));
    let (rounds, mut whole, mut noticed) = (rounds(ROUNDS), 0, 0);
    for round in 0..rounds {
        let table = if round % 2 == 0 { &young } else { &old };
        table.restore(&fleet.path().join("scraper-data"));
        let damage = damage(&fleet.path().join("scraper-data"), &mut random);
        scraper.restart();
        let listed: Option<Vec<String>> = scraper.listed().map(|listed| listed.into_keys().collect());
        let counted = scraper.count(&["narthex_store_damaged_total"]) > 0.0;
        match listed {
            Some(listed) if listed == table.aliases && !counted => whole += 1,
            None if counted => noticed += 1,
            // All that was noted could be read.
            Some(listed) if listed == table.aliases => noticed += 1,
            other => panic!(
                "round {round}, {damage}: {} of {} aliases, nothing said",
                other.map_or(0, |listed| listed.len()),
                table.aliases.len()
            ),
        }
        scraper.process.kill();
    }
    report(&format!("damages: {rounds} rounds, {rounds} started, {whole} whole, {noticed} noticed, 0 silent"));
}

#[test]
fn after_damage_the_list_is_there_as_soon_as_its_aliases_are_back() {
    let _alone = MACHINE.blocking_lock();
    let (fleet, mut scraper) = Fleet::with_scraper();
    let runtime = Runtime::new().expect("a runtime");
    let aliases: Vec<String> = (0..50).map(|n| format!("alias-{n}")).collect();
    let client = runtime.block_on(registered(&fleet, &scraper, &aliases));
    let gone = runtime.block_on(registered(&fleet, &scraper, &["released".into()]));
    runtime.block_on(gone.shutdown());
    scraper.process.terminate(SOON);
    let path = fleet.path().join("scraper-data/aliases/db");
    let bytes = fs::read(&path).expect("readable");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
    scraper.restart();
    assert_eq!(scraper.count(&["narthex_store_damaged_total"]), 1.0);
    // Half of the grace of 200 s would be too late for this.
    eventually_true("the list is whole", SOON, || {
        scraper.listed().is_some_and(|listed| aliases.iter().all(|alias| listed.contains_key(alias)))
    });
    drop(client);

    scraper.process.terminate(SOON);
    let kept = fs::read_dir(fleet.path().join("scraper-data")).expect("readable").flatten();
    let kept = kept.filter(|file| file.file_name().to_string_lossy().starts_with("aliases.damaged-"));
    assert_eq!(kept.filter(|directory| directory.path().join("db").is_file()).count(), 1, "the damaged table is kept");
}

/// Before: as many others ended it, and an export was then a backup without any of them.
#[test]
fn other_aliases_do_not_end_the_503_after_damage() {
    let _alone = MACHINE.blocking_lock();
    let (fleet, mut scraper) = Fleet::with_scraper();
    let runtime = Runtime::new().expect("a runtime");
    let client = runtime.block_on(registered(&fleet, &scraper, &["lost".into()]));
    scraper.process.terminate(SOON);
    runtime.shutdown_background();
    drop(client);
    let data = fleet.path().join("scraper-data");
    fs::write(data.join("aliases/db"), "").expect("written");
    scraper.restart();
    let runtime = Runtime::new().expect("a runtime");
    let others: Vec<String> = (0..5).map(|n| format!("other-{n}")).collect();
    let _others = runtime.block_on(registered(&fleet, &scraper, &others));
    assert!(scraper.listed().is_none());
    let export = narthex("export").arg("--data-dir").arg(&data).output();
    assert!(!export.expect("runs").status.success());
    let _back = runtime.block_on(registered(&fleet, &scraper, &["lost".into()]));
    eventually_true("the list is whole", SOON, || scraper.listed().is_some_and(|listed| listed.len() == 6));
}

/// The files of a table, and what is in it.
struct Table {
    files: PathBuf,
    aliases: Vec<String>,
}

impl Table {
    fn keep(fleet: &Fleet, name: &str, mut aliases: Vec<String>) -> Self {
        let files = fleet.path().join(name);
        aliases.sort();
        let table = Self { files, aliases };
        copy(&fleet.path().join("scraper-data"), &table.files);
        table
    }

    fn restore(&self, data: &Path) {
        fs::remove_dir_all(data).expect("removed");
        copy(&self.files, data);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("aliases")).expect("made");
    for file in ["aliases.check", "aliases.noted"] {
        fs::copy(from.join(file), to.join(file)).expect("copied");
    }
    for file in fs::read_dir(from.join("aliases")).expect("readable").flatten().filter(|file| file.path().is_file()) {
        fs::copy(file.path(), to.join("aliases").join(file.file_name())).expect("copied");
    }
    fs::write(to.join("lock"), "").expect("written");
}

/// A table right after its aliases were registered, and one in which most of what was written is of the past.
fn tables(fleet: &Fleet, scraper: &mut Scraper) -> (Table, Table) {
    let aliases = |what: &str| -> Vec<String> { (0..ALIASES).map(|n| format!("{what}-{n}")).collect() };
    let runtime = Runtime::new().expect("a runtime");
    let stay = aliases("stay");
    let client = runtime.block_on(registered(fleet, scraper, &stay));
    // The end of the process notes how far the table is, and clients would be released before.
    scraper.process.terminate(SOON);
    let young = Table::keep(fleet, "young", stay.clone());
    scraper.restart();
    for generation in 0..GENERATIONS {
        let passing = runtime.block_on(registered(fleet, scraper, &aliases(&format!("passing-{generation}"))));
        runtime.block_on(passing.shutdown());
    }
    scraper.process.terminate(SOON);
    let old = Table::keep(fleet, "old", stay);
    runtime.shutdown_background();
    drop(client);
    (young, old)
}

/// Does one thing to one file, and says what.
fn damage(data: &Path, random: &mut Random) -> String {
    let name = match random.below(6) {
        0 => FILES[1],
        1 => FILES[2],
        _ => FILES[0],
    };
    let path = data.join(name);
    let mut bytes = fs::read(&path).expect("readable");
    let at = random.below(bytes.len());
    let what = match random.below(8) {
        0 | 1 => {
            bytes[at] ^= 1 << random.below(8);
            format!("a bit at {at}")
        }
        2 => overwrite(&mut bytes, at, 16, random),
        3 => overwrite(&mut bytes, at / 4096 * 4096, 4096, random),
        4 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        5 => {
            bytes.clear();
            "empty".into()
        }
        6 => {
            fs::remove_file(&path).expect("removed");
            return format!("{name} deleted");
        }
        _ => {
            let junk = noise(1 + random.below(10_000));
            bytes.extend(&junk);
            format!("{} bytes more", junk.len())
        }
    };
    fs::write(path, bytes).expect("written");
    format!("{name}: {what}")
}

fn overwrite(bytes: &mut [u8], at: usize, len: usize, random: &mut Random) -> String {
    let end = (at + len).min(bytes.len());
    let zeros = random.below(2) == 0;
    for (byte, noise) in bytes[at..end].iter_mut().zip(noise(len)) {
        *byte = if zeros { 0 } else { noise };
    }
    format!("{len} bytes at {at} {}", if zeros { "zeroed" } else { "overwritten" })
}
