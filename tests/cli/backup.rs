//! `narthex export` and `narthex import`, and tables of every format that a narthex has written.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::support::{
    SOON,
    exporter::{Exporter, Reply},
    fleet::{Fleet, narthex, text},
    process::Run,
};

/// The first line of a table of format 3.
const LATER: &str = "narthex aliases 3 94d3a8107e8cd076";

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

/// The lines of aliases, without what changes as time passes.
fn lasting(lines: &[Value]) -> Vec<Value> {
    let mut aliases = lines[1..].to_vec();
    for alias in aliases.iter_mut().filter_map(Value::as_object_mut) {
        for field in ["state", "renewed_at", "expires_at"] {
            assert!(alias.remove(field).is_some(), "{field}");
        }
    }
    aliases
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
    let file = data.join("aliases.table");
    let mut bytes = fs::read(&file).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("writes");
    let refused = run("export", &data, &["--output", &text(&output)]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("damaged") && !output.exists(), "{}", refused.stderr);
}

fn table(format: u32) -> PathBuf {
    format!("tests/tables/format-{format}").into()
}

/// A table of each format was written by the last narthex that had it, and holds the same aliases.
#[test]
fn a_table_of_every_format_is_read_and_taken_over() {
    let expected = lines(&fs::read_to_string("tests/tables/expected.jsonl").expect("reads"));
    for format in [1, 2] {
        let fleet = Fleet::new();
        let data = fleet.path().join("scraper-data");
        copy(&table(format), &data);
        assert_eq!(lasting(&exported(&data)), lasting(&expected), "format {format}");
        let scraper = fleet.scraper(&["--retention", "3650d"]);
        let listed = scraper.listed().expect("a whole table");
        assert_eq!(listed.keys().collect::<Vec<_>>(), ["db-1", "web-1", "web-2"], "format {format}");
        assert_eq!(lasting(&exported(&data)), lasting(&expected), "format {format}, online");
    }
}

#[test]
fn a_table_of_a_later_format_is_refused_and_left_alone() {
    let fleet = Fleet::new();
    let data = fleet.path().join("data");
    copy(&table(2), &data);
    let file = data.join("aliases.table");
    // As `narthex aliases 3` with the checksum of that line.
    let bytes = fs::read(&file).expect("reads");
    let end = bytes.iter().position(|byte| *byte == b'\n').expect("a first line");
    let later = [LATER.as_bytes(), &bytes[end..]].concat();
    fs::write(&file, &later).expect("writes");
    for command in ["export", "import"] {
        let file = text(Path::new("tests/tables/expected.jsonl"));
        let args: &[&str] = if command == "import" { &[&file] } else { &[] };
        let refused = run(command, &data, args);
        assert_eq!((refused.code, refused.stderr.lines().count()), (Some(1), 1), "{}", refused.stderr);
        assert!(refused.stderr.contains("format 3, of a later version of narthex"), "{}", refused.stderr);
    }
    assert_eq!(fs::read(&file).expect("reads"), later);
}
