//! Tells the program what it was built of: commit, date, compiler.
//!
//! Without git nothing fails. `NARTHEX_COMMIT` and `SOURCE_DATE_EPOCH` (seconds of Unix time) beat what git says, so a package
//! built from an archive can name them, and the same sources give the same bytes. A build of the profile `dev` asks git
//! nothing: a commit would else have everything compiled again.

use std::{env, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for variable in ["NARTHEX_COMMIT", "SOURCE_DATE_EPOCH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let asks_git = env::var("PROFILE").is_ok_and(|profile| profile == "release") && is_repository();
    if asks_git {
        // Written at each commit and each checkout.
        if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
            println!("cargo:rerun-if-changed={log}");
        }
    }
    let of_git = |args: &[&str]| asks_git.then(|| git(args)).flatten();
    let commit = given("NARTHEX_COMMIT").or_else(|| of_git(&["rev-parse", "--short=9", "HEAD"]));
    let seconds = given("SOURCE_DATE_EPOCH").or_else(|| of_git(&["show", "--no-patch", "--format=%ct", "HEAD"]));
    let date = seconds.and_then(|seconds| seconds.parse().ok()).map(date);
    let compiler = env::var("RUSTC").ok().and_then(|rustc| said(Command::new(rustc).arg("--version")));
    let compiler = compiler.and_then(|said| said.split(' ').nth(1).map(str::to_owned));
    // No name begins with `NARTHEX_`: `cargo run` sets these for the program too, which refuses such a variable unknown to it.
    for (name, value) in [("COMMIT", commit), ("DATE", date), ("RUSTC", compiler)] {
        println!("cargo:rustc-env=BUILT_OF_{name}={}", value.as_deref().unwrap_or("unknown"));
    }
}

fn given(variable: &str) -> Option<String> {
    env::var(variable).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn git(args: &[&str]) -> Option<String> {
    said(Command::new("git").args(args))
}

/// True if a repository begins here: sources from a registry may lie somewhere in another one.
fn is_repository() -> bool {
    let prefix = Command::new("git").args(["rev-parse", "--show-prefix"]).output();
    prefix.is_ok_and(|prefix| prefix.status.success() && prefix.stdout.trim_ascii().is_empty())
}

/// The one line that a command answers.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!line.is_empty() && !line.contains('\n')).then_some(line)
}

/// The day of an instant of Unix time, in UTC: `2026-11-23`.
fn date(seconds: u64) -> String {
    // Days in eras of 400 years that begin with a March: Howard Hinnant, "chrono-compatible low-level date algorithms".
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
