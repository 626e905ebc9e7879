//! Whose types appear in the public API: those in `public_types.txt`, and no others.
//!
//! rustdoc writes the API as JSON. An item that is public and not hidden is in its index, with each type by an id.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    process::Command,
};

use serde_json::Value;

use crate::dependencies::metadata;

const ALLOWED: &str = include_str!("public_types.txt");
/// Everybody has these.
const STANDARD: [&str; 3] = ["core", "alloc", "std"];

#[test]
fn public_types_of_dependencies_are_those_in_the_list() {
    let rustdoc = rustdoc();
    let mut found = BTreeMap::new();
    for item in public_items(&rustdoc) {
        collect(&rustdoc, &item["inner"], &item["name"], &mut found);
    }
    let lines = ALLOWED.lines().filter(|line| !line.starts_with('#'));
    let allowed: BTreeSet<&str> = lines.filter_map(|line| line.split_whitespace().next()).collect();
    let unlisted: Vec<_> = found.iter().filter(|(path, _)| !allowed.contains(path.as_str())).collect();
    assert!(unlisted.is_empty(), "types of dependencies, and where: {unlisted:#?}");
    let gone: Vec<_> = allowed.iter().filter(|path| !found.contains_key(**path)).collect();
    assert!(gone.is_empty(), "in the list, and not in the API: {gone:#?}");
}

/// The public API, with all features.
fn rustdoc() -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut cargo = Command::new(env::var_os("CARGO").expect("set by cargo"));
    cargo.current_dir(folder).env("RUSTDOC", folder.join("tests/layout/json_rustdoc"));
    // ring's build script runs again when these change, and then every crate above ring is built again, each time.
    let ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars().filter(|(name, _)| ours(name)) {
        cargo.env_remove(name);
    }
    cargo.args(["rustdoc", "--lib", "--all-features", "--quiet", "--locked"]);
    cargo.args(["--", "-Zunstable-options", "--output-format=json"]);
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata = metadata();
    let target = Path::new(metadata["target_directory"].as_str().expect("a path"));
    let text = fs::read(target.join("doc/narthex.json")).expect("rustdoc has written");
    serde_json::from_slice(&text).expect("rustdoc writes JSON")
}

/// All items that a path from the root of the crate leads to.
fn public_items(rustdoc: &Value) -> Vec<&Value> {
    let mut left = vec![&rustdoc["root"]];
    let (mut seen, mut items) = (BTreeSet::new(), Vec::new());
    while let Some(id) = left.pop() {
        let item = &rustdoc["index"][id.to_string()];
        if item["crate_id"] == 0 && !is_made_by_the_compiler(item) && seen.insert(id.to_string()) {
            ids_inside(&item["inner"], &mut left);
            items.push(item);
        }
    }
    items
}

/// Ids of what belongs to an item, which rustdoc writes as lists under these names.
fn ids_inside<'a>(inner: &'a Value, ids: &mut Vec<&'a Value>) {
    for (name, value) in inner.as_object().into_iter().flatten() {
        match name.as_str() {
            "items" | "impls" | "implementations" | "variants" | "fields" | "tuple" => {
                ids.extend(value.as_array().into_iter().flatten())
            }
            "use" => ids.push(&value["id"]),
            _ => ids_inside(value, ids),
        }
    }
}

/// Auto traits, and what is implemented for every type.
fn is_made_by_the_compiler(item: &Value) -> bool {
    let implementation = &item["inner"]["impl"];
    implementation["is_synthetic"] == true || !implementation["blanket_impl"].is_null()
}

/// Adds all types and traits of dependencies that `value` names, with the name of the item.
fn collect(rustdoc: &Value, value: &Value, item: &Value, found: &mut BTreeMap<String, BTreeSet<String>>) {
    match value {
        Value::Object(fields) => {
            if let (Some(id), true, true) = (fields.get("id"), fields.contains_key("path"), fields.contains_key("args"))
                && let Some(path) = path_in_a_dependency(rustdoc, id)
            {
                found.entry(path).or_default().insert(item.as_str().unwrap_or("an impl").to_owned());
            }
            fields.values().for_each(|value| collect(rustdoc, value, item, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(rustdoc, value, item, found)),
        _ => {}
    }
}

fn path_in_a_dependency(rustdoc: &Value, id: &Value) -> Option<String> {
    let known = &rustdoc["paths"][id.to_string()];
    let segments: Vec<&str> = known["path"].as_array()?.iter().filter_map(Value::as_str).collect();
    (known["crate_id"] != 0 && !STANDARD.contains(segments.first()?)).then(|| segments.join("::"))
}
