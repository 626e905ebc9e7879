//! Disks that are full, read-only or gone, at the start and while the scraper runs.

use std::{fs, os::unix::fs::symlink, time::Duration};

use narthex::{Client, client::EventKind};
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    MACHINE,
    clients::{registered, start},
    support::{
        SOON,
        disk::Disk,
        eventually_true,
        fleet::{Fleet, Scraper},
        http,
    },
};

const SCRAPE: Duration = Duration::from_secs(10);

#[test]
fn a_scraper_starts_on_a_full_disk_and_recovers_without_a_restart() {
    let _alone = MACHINE.blocking_lock();
    let Some(disk) = Disk::tmpfs(4096) else { return };
    let runtime = Runtime::new().expect("a runtime");
    let (fleet, mut scraper, _client) = runtime.block_on(killed_on(&disk));
    fill(&disk);

    scraper.restart_unready();
    scraper.wait_scraped("before");
    let late = runtime.block_on(refused(&fleet, &scraper));
    assert_eq!((status(&scraper, "/sd"), status(&scraper, "/-/ready")), (503, 503));
    assert_eq!(scraper.count(&["narthex_store_failing"]), 1.0);
    scraper.process.wait_log(&["registry store failed", "No space left on device"]);
    assert_eq!(scraper.scrape("before", SCRAPE).status, 200);

    fs::remove_file(disk.path().join("filler")).expect("removed");
    scraper.wait_listed("late-0");
    eventually_true("the scraper is ready again", SOON, || status(&scraper, "/-/ready") == 200);
    assert_eq!(scraper.count(&["narthex_store_failing"]), 0.0);
    scraper.process.kill();
    drop(late);
}

#[test]
fn a_scraper_starts_on_a_read_only_disk_and_serves_what_it_can_read() {
    let _alone = MACHINE.blocking_lock();
    let Some(disk) = Disk::tmpfs(1024) else { return };
    let runtime = Runtime::new().expect("a runtime");
    let (fleet, mut scraper, _client) = runtime.block_on(killed_on(&disk));
    disk.remount("ro");

    scraper.restart_unready();
    scraper.wait_scraped("before");
    assert_eq!((status(&scraper, "/sd"), status(&scraper, "/-/ready")), (503, 503));
    scraper.process.wait_log(&["registry store failed", "Read-only file system"]);

    disk.remount("rw");
    scraper.wait_listed("before");
    let late = runtime.block_on(registered(&fleet, &scraper, &["late".into()]));
    scraper.process.kill();
    drop(late);
    scraper.restart();
    assert!(scraper.listed().is_some_and(|listed| listed.len() == 2));
    scraper.process.kill();
}

#[test]
fn a_deleted_data_directory_is_noticed_and_written_anew() {
    let _alone = MACHINE.blocking_lock();
    let (fleet, mut scraper) = Fleet::with_scraper();
    let runtime = Runtime::new().expect("a runtime");
    let client = runtime.block_on(registered(&fleet, &scraper, &["a".into(), "b".into()]));
    let data = fleet.path().join("scraper-data");
    fs::remove_dir_all(&data).expect("removed");
    eventually_true("the scraper is not ready", SOON, || status(&scraper, "/-/ready") == 503);
    scraper.process.wait_log(&["registry store failed", "deleted or replaced"]);
    eventually_true("the scraper is ready again", SOON, || status(&scraper, "/-/ready") == 200);
    scraper.process.kill();
    runtime.shutdown_background();
    drop(client);
    scraper.restart();
    assert!(scraper.listed().is_some_and(|listed| listed.len() == 2));
}

/// A fleet whose scraper was killed, its data on this disk, and the client whose alias `before` is in its table.
async fn killed_on(disk: &Disk) -> (Fleet, Scraper, Client) {
    let fleet = Fleet::new();
    let data = disk.path().join("data");
    fs::create_dir(&data).expect("made");
    symlink(data, fleet.path().join("scraper-data")).expect("links");
    let mut scraper = fleet.scraper(&[]);
    let client = registered(&fleet, &scraper, &["before".into()]).await;
    scraper.process.kill();
    (fleet, scraper, client)
}

/// Leaves no room on the disk.
fn fill(disk: &Disk) {
    let filler = disk.path().join("filler");
    fs::write(&filler, vec![1; 8 << 20]).expect_err("the disk is smaller");
    assert!(fs::metadata(filler).expect("there").len() > 0);
}

/// A client that was told that it cannot be registered, with more aliases than a page holds.
async fn refused(fleet: &Fleet, scraper: &Scraper) -> Client {
    let aliases: Vec<String> = (0..50).map(|n| format!("late-{n}")).collect();
    let client = start(fleet, scraper, &aliases).await;
    let mut events = client.events();
    let refused = async {
        loop {
            match events.recv().await.expect("events go on").kind {
                EventKind::RegisterFailed { .. } => return,
                EventKind::Registered { .. } => panic!("acknowledged on a full disk"),
                _ => {}
            }
        }
    };
    timeout(SOON, refused).await.expect("the scraper answers");
    client
}

fn status(scraper: &Scraper, path: &str) -> u16 {
    http::get(scraper.http, path, &[]).map_or(0, |answer| answer.status)
}
