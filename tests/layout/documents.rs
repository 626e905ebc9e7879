//! The documents: the links, headings and files that they name exist.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Folders with pages for readers.
const FOLDERS: [&str; 5] = ["", "docs", "keys", "examples", "benches/load"];

/// Each page with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = FOLDERS.iter().flat_map(|folder| fs::read_dir(root.join(folder)).expect("a folder"));
    let paths = files.map(|file| file.expect("an entry").path());
    let pages = paths.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.map(|path| (path.clone(), fs::read_to_string(&path).expect("a page"))).collect()
}

/// The anchors that GitHub makes from the headings of a page.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |letter: &char| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter);
    headings.map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

#[test]
fn every_link_of_a_page_leads_to_a_file_and_a_heading() {
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        let links = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
        for link in links.filter(|link| !link.starts_with("http")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
            let found = target.exists()
                && (anchor.is_empty() || anchors(&fs::read_to_string(&target).expect("a page")).contains(anchor));
            if !found {
                wrong.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "lead nowhere:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_of_ours_that_a_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        let ours =
            |name: &&str| ["src/", "tests/", "examples/", "benches/", "fuzz/"].iter().any(|top| name.starts_with(top));
        for name in text.split('`').filter(ours).filter(|name| name.ends_with(".rs")) {
            if !root.join(name).is_file() {
                wrong.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "do not exist:\n{}", wrong.join("\n"));
}

/// In backticks, the column has files of `src/` and names in them, in any order within a cell.
#[test]
fn every_name_in_the_contributors_table_is_in_a_file_of_its_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("CONTRIBUTING.md")).expect("a page");
    let (_, table) = text.split_once("| change | code | test | document |").expect("the table");
    let mut wrong = Vec::new();
    for code in table.lines().skip(2).map_while(|row| row.split('|').nth(2)) {
        let (files, names): (Vec<_>, Vec<_>) = code.split('`').skip(1).step_by(2).partition(|name| name.contains('/'));
        let files = files.iter().filter(|file| file.ends_with(".rs"));
        let sources: String = files.map(|file| fs::read_to_string(root.join(file)).expect(file)).collect();
        wrong.extend(names.into_iter().filter(|name| !sources.contains(*name)));
    }
    assert!(wrong.is_empty(), "not in the files of their rows: {wrong:?}");
}

/// In backticks, the column has names of tests.
#[test]
fn every_test_that_the_security_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/security.md")).expect("a page");
    let (_, table) = text.split_once("| claim | shown by |").expect("the table");
    let tests: Vec<&str> = table
        .lines()
        .skip(2)
        .map_while(|row| row.split('|').nth(2))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let sources = sources(&[root.join("src"), root.join("tests")]);
    let missing: Vec<_> = tests.iter().filter(|test| !sources.contains(&format!("fn {test}("))).collect();
    assert!(tests.len() > 20 && missing.is_empty(), "no such test: {missing:?}");
}

/// All Rust files below these folders, one after the other.
fn sources(folders: &[PathBuf]) -> String {
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("a folder"));
    let (folders, files): (Vec<_>, Vec<_>) =
        entries.map(|entry| entry.expect("an entry").path()).partition(|path| path.is_dir());
    let rust = files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let mut text: String = rust.map(|path| fs::read_to_string(path).expect("a source file")).collect();
    if !folders.is_empty() {
        text += &sources(&folders);
    }
    text
}
