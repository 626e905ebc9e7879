//! `docs/upstream.md`: the one list of faults, of what narthex does about each, and of the tests here.

use std::{collections::BTreeSet, fs, path::Path, thread};

const LIST: &str = include_str!("../../docs/upstream.md");

/// What a test says once its fault is mended: which part of narthex can go.
pub(crate) fn mended() -> String {
    let thread = thread::current();
    let row = LIST.lines().find(|row| thread.name().is_some_and(|test| row.contains(&format!("`{test}`"))));
    match row.map(|row| row.split(" | ").collect::<Vec<_>>()).as_deref() {
        Some([fault, _, ours, _]) => format!("mended: {}. No longer needed: {ours}", fault.trim_start_matches("| ")),
        _ => "mended: docs/upstream.md has what is no longer needed".to_owned(),
    }
}

/// What stands between backticks, and begins so.
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
    for module in ["autonat", "identify", "others", "punching", "relay", "streams"] {
        listed.extend(quoted(&format!("{module}::")).map(str::to_owned));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/upstream/{module}.rs"));
        let source = fs::read_to_string(path).expect("a module");
        // The first word with an underscore after `#[test]` or `#[tokio::test]`.
        let found =
            source.split("test]\n").skip(1).filter_map(|test| test.split(['(', ' ']).find(|word| word.contains('_')));
        tests.extend(found.map(|test| format!("{module}::{test}")));
    }
    assert_eq!(listed, tests);
}
