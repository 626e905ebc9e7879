//! `narthex export` and `narthex import`, and tables of every format that a narthex has written.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use blake2::{Blake2s256, Digest};
use serde_json::Value;

use crate::support::{
    SOON, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, narthex, text},
    process::Run,
};

/// `narthex COMMAND --data-dir DIR ARGS`.
fn run(command: &str, data_dir: &Path, args: &[&str]) -> Run {
    Run::of(narthex(command).args(["--data-dir", &text(data_dir)]).args(args))
}

#[track_caller]
fn exported(data_dir: &Path) -> Vec<Value> {
    let run = run("export", data_dir, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    lines(&run.stdout)
}

fn lines(export: &str) -> Vec<Value> {
    export.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The lines of aliases, without what changes as time passes, and those of beacons.
fn lasting(lines: &[Value]) -> Vec<Value> {
    let mut entries = lines[1..].to_vec();
    for alias in entries.iter_mut().filter_map(Value::as_object_mut).filter(|entry| entry.contains_key("alias")) {
        for field in ["state", "renewed_at", "expires_at"] {
            assert!(alias.remove(field).is_some(), "{field}");
        }
    }
    entries
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("is there").permissions().mode() & 0o777
}

fn copy(from: &Path, to: &Path) {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(to).expect("makes");
    for entry in fs::read_dir(from).expect("lists").map(|entry| entry.expect("an entry").path()) {
        let to = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() {
            copy(&entry, &to);
        } else {
            fs::copy(&entry, &to).expect("copies");
        }
    }
}

#[test]
fn a_table_is_exported_while_its_scraper_runs_and_imported_elsewhere() {
    let fleet = Fleet::new();
    let mut scraper = fleet.scraper(&[]);
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let targets = ["web-1", "web-2"].map(|alias| (alias, exporter.url("/metrics")));
    let mut agent = fleet.agent_of(&scraper, "agent", targets, &["--service", "web", "--label", "region=eu"]);
    scraper.wait_scraped("web-1");
    scraper.wait_scraped("web-2");

    let (data, backup) = (fleet.path().join("scraper-data"), fleet.path().join("aliases.jsonl"));
    // A deleted socket is made again.
    fs::remove_file(data.join("control.sock")).expect("there");
    eventually_true("the socket is there", SOON, || data.join("control.sock").exists());
    // A path that is longer than a socket's may be.
    let long = fleet.path().join("long-".repeat(30));
    symlink(&data, &long).expect("links");
    assert_eq!(exported(&long).len(), 3);
    assert_eq!(mode(&data.join("control.sock")), 0o600);
    let run_online = run("export", &data, &["--output", &text(&backup)]);
    assert_eq!((run_online.code, run_online.stdout.as_str()), (Some(0), ""), "{}", run_online.stderr);
    assert_eq!(mode(&backup), 0o600);
    let online = lines(&fs::read_to_string(&backup).expect("text"));
    assert_eq!(
        (&online[0]["format"], &online[0]["version"], &online[0]["aliases"]),
        (&Value::from("narthex aliases"), &Value::from(1), &Value::from(2))
    );
    assert_eq!((&online[1]["alias"], &online[1]["labels"]["region"]), (&Value::from("web-1"), &Value::from("eu")));
    let refused = run("import", &data, &[&text(&backup)]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("in use by another narthex"), "{}", refused.stderr);

    agent.kill();
    assert!(scraper.process.terminate(SOON).success());
    assert_eq!(lasting(&exported(&data)), lasting(&online), "offline as online");

    let elsewhere = fleet.path().join("elsewhere");
    let dry = run("import", &elsewhere, &["--dry-run", &text(&backup)]);
    assert_eq!(dry.stdout, "would add 2, replace 0, leave 0 as they are\n", "{}", dry.stderr);
    assert!(!elsewhere.exists());
    for done in ["added 2, replaced 0, left 0 as they are\n", "added 0, replaced 0, left 2 as they are\n"] {
        assert_eq!(run("import", &elsewhere, &[&text(&backup)]).stdout, done);
    }
    assert_eq!(exported(&elsewhere)[1..], online[1..], "times too");

    // A scraper takes the imported table for its own.
    fs::remove_dir_all(&data).expect("removes");
    fs::rename(&elsewhere, &data).expect("moves");
    scraper.restart();
    let listed = scraper.listed().expect("a whole table");
    assert_eq!(listed.keys().collect::<Vec<_>>(), ["web-1", "web-2"]);
}

/// Before: a device, FIFO or link was replaced by a file, as root `/dev/stdout` too.
#[test]
fn an_export_replaces_files_alone_and_writes_to_what_else_there_is() {
    let fleet = Fleet::new();
    let (data, kept) = (fleet.path().join("data"), fleet.path().join("kept"));
    copy(&table(2), &data);
    fs::create_dir(&kept).expect("makes");
    let export = |output: &Path| {
        let run = run("export", &data, &["--output", &text(output)]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run.stdout
    };

    assert_eq!(lines(&export(Path::new("-"))).len(), 4);
    assert!(!Path::new("-").exists());

    let links = [fleet.path().join("link"), fleet.path().join("link-to-link")];
    symlink("kept/aliases.jsonl", &links[0]).expect("links");
    symlink(&links[0], &links[1]).expect("links");
    for link in &links {
        assert_eq!(export(link), "");
        assert!(link.is_symlink());
        let written = fs::read_to_string(kept.join("aliases.jsonl")).expect("reads");
        assert_eq!(lines(&written).len(), 4);
        assert_eq!(fs::read_dir(&kept).expect("lists").count(), 1);
    }

    let fifo = fleet.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("runs").success());
    let reader = thread::spawn({
        let fifo = fifo.clone();
        move || fs::read_to_string(fifo).expect("reads")
    });
    assert_eq!(export(&fifo), "");
    assert!(fs::metadata(&fifo).expect("there").file_type().is_fifo());
    assert_eq!(lines(&reader.join().expect("ends")).len(), 4);

    let loops = fleet.path().join("loop");
    symlink(&loops, &loops).expect("links");
    assert_eq!(run("export", &data, &["--output", &text(&loops)]).code, Some(1));
    assert!(loops.is_symlink());
}

#[test]
fn an_import_with_bad_lines_names_each_and_does_nothing() {
    let fleet = Fleet::new();
    let data = fleet.path().join("data");
    let export = fs::read_to_string("tests/tables/expected.jsonl").expect("reads");
    let file = fleet.path().join("bad.jsonl");
    fs::write(&file, export.replace("\"db-1\"", "\"no alias\"").replace("\"web-2\"", "\"web-1\"")).expect("writes");
    let bad = run("import", &data, &[&text(&file)]);
    assert_eq!(bad.code, Some(1));
    let lines: Vec<&str> = bad.stderr.lines().collect();
    assert!(lines[0].contains("line 2: ") && lines[1].contains("line 4: alias web-1 is there twice"), "{}", bad.stderr);
    assert!(lines[2].starts_with("error: ") && lines[2].contains("nothing was imported"), "{}", bad.stderr);
    assert!(!data.exists());
}

#[test]
fn a_damaged_table_is_no_backup() {
    let fleet = Fleet::new();
    let (data, output) = (fleet.path().join("data"), fleet.path().join("aliases.jsonl"));
    copy(&table(2), &data);
    let file = data.join("aliases/db");
    let bytes = fs::read(&file).expect("reads");
    fs::write(&file, &bytes[..bytes.len() / 2]).expect("writes");
    let refused = run("export", &data, &["--output", &text(&output)]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("damaged") && !output.exists(), "{}", refused.stderr);
}

fn table(format: u32) -> PathBuf {
    format!("tests/tables/format-{format}").into()
}

/// A table of each format was written by the last narthex that had it, and holds the same aliases; that of format 3 a beacon, too.
#[test]
fn a_table_of_every_format_is_read_and_taken_over() {
    for (format, expected) in [(1, "expected"), (2, "expected"), (3, "with-a-beacon")] {
        let expected = lines(&fs::read_to_string(format!("tests/tables/{expected}.jsonl")).expect("reads"));
        let fleet = Fleet::new();
        let data = fleet.path().join("scraper-data");
        copy(&table(format), &data);
        assert_eq!(lasting(&exported(&data)), lasting(&expected), "format {format}");
        let scraper = fleet.scraper(&["--retention", "3650d"]);
        let sd = scraper.get("/sd").text();
        assert!(
            ["db-1", "web-1", "web-2"].iter().all(|alias| sd.contains(&format!("\"instance\":\"{alias}\""))),
            "{sd}"
        );
        assert_eq!(sd.contains("host-three:9100"), format == 3, "{sd}");
        assert_eq!(lasting(&exported(&data)), lasting(&expected), "format {format}, online");
    }
}

/// The mark of a table of format 4: a frame of group 2^32 that says so.
fn later_mark() -> Vec<u8> {
    let mut frame = b"\xffnx\xfe\x0d\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\x04\0\0\0\x03\0\0\0\0\0\0\0".to_vec();
    let sum = Blake2s256::digest(&frame);
    frame.extend(&sum[..8]);
    frame
}

#[test]
fn a_table_of_a_later_format_is_refused_and_left_alone() {
    let fleet = Fleet::new();
    let data = fleet.path().join("data");
    copy(&table(2), &data);
    let db = sled::open(data.join("aliases")).expect("opens");
    db.open_tree("leases").expect("opens").insert(b"\0mark", later_mark()).expect("writes");
    drop(db);
    for command in ["export", "import"] {
        let file = text(Path::new("tests/tables/expected.jsonl"));
        let args: &[&str] = if command == "import" { &[&file] } else { &[] };
        let refused = run(command, &data, args);
        assert_eq!((refused.code, refused.stderr.lines().count()), (Some(1), 1), "{}", refused.stderr);
        assert!(refused.stderr.contains("format 4, of a later version of narthex"), "{}", refused.stderr);
    }
    let db = sled::open(data.join("aliases")).expect("opens");
    assert_eq!(db.open_tree("leases").expect("opens").len(), 4, "three aliases and the mark");
}
