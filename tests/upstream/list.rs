//! `docs/upstream.md` lists each fault, what narthex does about it, and its test. Messages and checks read that list.

use std::{collections::BTreeSet, ffi::OsStr, fs, path::Path, thread};

const LIST: &str = include_str!("../../docs/upstream.md");

/// The message of a test whose fault is mended: the part of narthex that can go.
pub(crate) fn mended() -> String {
    let thread = thread::current();
    let row = LIST.lines().find(|row| thread.name().is_some_and(|test| row.contains(&format!("`{test}`"))));
    match row.map(|row| row.split(" | ").collect::<Vec<_>>()).as_deref() {
        Some([fault, _, ours, _]) => format!("mended: {}. No longer needed: {ours}", fault.trim_start_matches("| ")),
        _ => "mended: docs/upstream.md has what is no longer needed".to_owned(),
    }
}

/// Text between backticks that begins so.
fn quoted(begin: &str) -> impl Iterator<Item = &'static str> {
    LIST.split('`').skip(1).step_by(2).filter(move |text| text.starts_with(begin))
}

#[test]
fn the_list_names_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let missing: BTreeSet<_> = quoted("src/").filter(|file| !root.join(file).is_file()).collect();
    assert!(missing.is_empty(), "docs/upstream.md: {missing:?}");
}

#[test]
fn the_list_names_every_test() {
    let (mut listed, mut tests) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upstream")).expect("the modules") {
        let path = entry.expect("a module").path();
        let module = path.file_stem().and_then(OsStr::to_str).expect("a module");
        // This file tests the list itself.
        if module == "list" {
            continue;
        }
        listed.extend(quoted(&format!("{module}::")).map(str::to_owned));
        let source = fs::read_to_string(&path).expect("a module");
        // The first word with an underscore after `#[test]` or `#[tokio::test]`.
        let found =
            source.split("test]\n").skip(1).filter_map(|test| test.split(['(', ' ']).find(|word| word.contains('_')));
        tests.extend(found.map(|test| format!("{module}::{test}")));
    }
    assert_eq!(listed, tests);
}
