//! What our dependencies ask for.

use std::{collections::BTreeMap, env, process::Command};

use serde_json::Value;

/// So many numbers of a Rust version matter: `1.89` is `1.89.0`.
type RustVersion = [u32; 3];

#[test]
fn no_dependency_asks_for_a_newer_rust_version_than_ours() {
    let metadata = metadata();
    let packages = by_id(&metadata["packages"]);
    let nodes = by_id(&metadata["resolve"]["nodes"]);
    let root = metadata["resolve"]["root"].as_str().expect("one package is the root");
    let ours = rust_version(packages[root]).expect("ours is declared");

    let (mut left, mut linked) = (vec![root], Vec::new());
    while let Some(id) = left.pop() {
        if linked.contains(&id) {
            continue;
        }
        linked.push(id);
        let needed = list(&nodes[id]["deps"]).filter(|dependency| is_built_for_users(dependency));
        left.extend(needed.filter_map(|dependency| dependency["pkg"].as_str()));
    }
    assert!(linked.len() > 100, "only {} packages were found", linked.len());
    let newer: Vec<String> = linked
        .iter()
        .map(|id| packages[id])
        .filter(|package| rust_version(package) > Some(ours))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["rust_version"]))
        .collect();
    assert!(newer.is_empty(), "newer than {ours:?}:\n{}", newer.join("\n"));
}

/// What cargo knows of this package and all that it depends on. It names what the fuzz targets depend on as well, and gets that
/// where it has never been built.
pub(crate) fn metadata() -> Value {
    let mut cargo = Command::new(env::var_os("CARGO").expect("set by cargo"));
    cargo.args(["metadata", "--format-version=1", "--all-features", "--locked"]);
    cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn by_id(entries: &Value) -> BTreeMap<&str, &Value> {
    list(entries).map(|entry| (entry["id"].as_str().expect("an id"), entry)).collect()
}

/// Dependencies for tests alone are not.
fn is_built_for_users(dependency: &Value) -> bool {
    list(&dependency["dep_kinds"]).any(|kind| kind["kind"] != "dev")
}

fn rust_version(package: &Value) -> Option<RustVersion> {
    let mut numbers = package["rust_version"].as_str()?.split('.').map(|number| number.parse().unwrap_or(0));
    Some(std::array::from_fn(|_| numbers.next().unwrap_or(0)))
}
