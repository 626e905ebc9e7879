//! Disks that are full, read-only or gone, at the start and while the scraper runs.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command, time::Duration};

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

/// Before: both started, and the first deleted what the second had acknowledged.
#[test]
fn of_two_scrapers_in_one_directory_one_writes_and_the_other_says_so() {
    let _alone = MACHINE.blocking_lock();
    let (fleet, mut first) = Fleet::with_scraper();
    let data = fleet.path().join("scraper-data");
    // The first would make it again at once.
    first.process.freeze();
    fs::remove_dir_all(&data).expect("removed");
    let other = Fleet::new();
    symlink(&data, other.path().join("scraper-data")).expect("links");
    fs::create_dir(&data).expect("made");
    let mut second = other.scraper(&[]);
    let runtime = Runtime::new().expect("a runtime");
    let client = runtime.block_on(registered(&other, &second, &["of-the-second".into()]));
    first.process.thaw();
    first.process.wait_log(&["registry store failed", "in use by another narthex: stop that one"]);
    eventually_true("the first is not ready", SOON, || status(&first, "/-/ready") == 503);
    let late = runtime.block_on(refused(&fleet, &first));
    second.wait_listed("of-the-second");
    assert_eq!(status(&second, "/-/ready"), 200);
    first.process.kill();
    second.process.kill();
    second.restart();
    assert!(second.listed().is_some_and(|listed| listed.contains_key("of-the-second")));
    drop((client, late));
}

/// Before: it was deleted.
#[test]
fn a_backup_that_is_put_in_place_under_a_running_scraper_is_kept() {
    let _alone = MACHINE.blocking_lock();
    let (fleet, mut scraper) = Fleet::with_scraper();
    let runtime = Runtime::new().expect("a runtime");
    let client = runtime.block_on(registered(&fleet, &scraper, &["kept".into()]));
    let (data, backup) = (fleet.path().join("scraper-data"), fleet.path().join("backup"));
    scraper.process.terminate(SOON);
    fs::rename(&data, &backup).expect("moved");
    runtime.shutdown_background();
    drop(client);
    scraper.restart();
    fs::rename(&data, fleet.path().join("away")).expect("moved");
    fs::rename(&backup, &data).expect("moved");
    scraper.process.wait_log(&["put in place of the table in use are kept", "aliases.foreign-"]);
    let foreign = fs::read_dir(&data).expect("lists").flatten().map(|file| file.path());
    let foreign = foreign.filter(|path| path.to_string_lossy().contains("foreign-")).collect::<Vec<_>>();
    let db = fs::read(foreign[0].join("db")).expect("readable");
    assert!(db.windows(4).any(|part| part == b"kept"));
}

/// Before: exit 1, as there was nothing that could be read without sled, or nothing could be renamed.
#[test]
fn a_scraper_starts_on_a_read_only_disk_whatever_is_on_it() {
    let _alone = MACHINE.blocking_lock();
    type Deed = fn(&Path);
    let cases: [(&str, u16, Deed); 4] = [
        ("nothing", 503, |data| {
            fs::remove_dir_all(data.join("aliases")).expect("removed");
            ["aliases.check", "lock"].iter().for_each(|file| fs::remove_file(data.join(file)).expect("removed"));
        }),
        ("a table of format 1", 200, |data| {
            fs::remove_dir_all(data.join("aliases")).expect("removed");
            let copied = Command::new("cp").args(["-a", "tests/tables/format-1/."]).arg(data).status();
            assert!(copied.expect("runs").success());
        }),
        ("zeros", 503, |data| {
            let db = data.join("aliases/db");
            let len = fs::metadata(&db).expect("there").len() as usize;
            fs::write(db, vec![0; len]).expect("written");
        }),
        ("a new table half in place", 200, |data| {
            fs::rename(data.join("aliases"), data.join("aliases.new")).expect("renamed");
        }),
    ];
    for (name, sd, deed) in cases {
        let Some(disk) = Disk::tmpfs(4096) else { return };
        let fleet = Fleet::new();
        let data = disk.path().join("data");
        fs::create_dir(&data).expect("made");
        symlink(&data, fleet.path().join("scraper-data")).expect("links");
        let mut scraper = fleet.scraper(&["--retention", "3650d"]);
        let runtime = Runtime::new().expect("a runtime");
        let client = runtime.block_on(registered(&fleet, &scraper, &["before".into()]));
        scraper.process.terminate(SOON);
        runtime.shutdown_background();
        drop(client);
        deed(&data);
        disk.remount("ro");
        scraper.restart_unready();
        eventually_true(&format!("{name}: the table is loaded"), SOON, || {
            scraper.count(&["narthex_table_loaded"]) == 1.0
        });
        assert_eq!(status(&scraper, "/-/ready"), 503, "{name}");
        disk.remount("rw");
        eventually_true(&format!("{name}: the scraper is ready"), SOON, || status(&scraper, "/-/ready") == 200);
        if name != "nothing" {
            assert_eq!(status(&scraper, "/sd"), sd, "{name}");
        }
        scraper.process.kill();
    }
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
