//! Where tests find the programs that they need.

use std::{env, io::Write, iter, path::PathBuf};

/// Where `tests/run --install` unpacks programs.
const UNPACKED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/bin");

/// Finds a program of the Debian package that brings it. Without it there is nothing to test: in CI that is a failure,
/// elsewhere the test prints that, and is skipped.
#[track_caller]
pub(crate) fn program(name: &str, package: &str) -> Option<PathBuf> {
    let directories = env::var_os("PATH").unwrap_or_default();
    let mut directories = iter::once(PathBuf::from(UNPACKED)).chain(env::split_paths(&directories));
    let found = directories.find_map(|directory| Some(directory.join(name)).filter(|path| path.is_file()));
    if found.is_none() {
        skip(&format!("{name} (Debian package {package})"));
    }
    found
}

/// Prints that a test is skipped; in CI that is a failure.
#[track_caller]
pub(crate) fn skip(why: &str) {
    assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
    // Straight to the terminal: what goes through `eprintln!` is hidden when a test passes.
    let _ = writeln!(std::io::stderr(), "\n*** SKIPPED, NOT PASSED: {why} ***\n");
}
