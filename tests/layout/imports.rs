//! Imports point down: between the top-level modules by a fixed order, between the files of one module without a circle.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    slice::from_ref,
};

use crate::files::{Crate, Segments};

/// Each top-level module uses only those before it.
const ORDER: [&str; 24] = [
    "atomic_file",
    "small_file",
    "private_file",
    "secret_file",
    "dir_lock",
    "socket_file",
    "ip_network",
    "identity",
    "wire",
    "access",
    "telemetry",
    "hook",
    "http",
    "nats",
    "lobby",
    "network",
    "registry",
    "registration_log",
    "client",
    "agent",
    "node",
    "scraper",
    "cli",
    "fuzzing",
];
/// The two roles that share no code of their own: a service must not link the scraper, nor the scraper a service.
const APART: [&str; 2] = ["client", "scraper"];

/// Modules whose files do not use each other in a circle.
const WITHOUT_CIRCLES: [&str; 8] = ["atomic_file", "telemetry", "hook", "http", "lobby", "network", "registry", "node"];

#[test]
fn top_level_modules_use_only_those_before_them() {
    let source = Crate::read();
    let mut wrong = Vec::new();
    for (module, file) in source.files.iter().filter(|(module, _)| !module.is_empty()) {
        for (used, path) in source.uses(module) {
            let Some(used) = used.first() else {
                wrong.push(format!("{} uses {path}, which stands in lib.rs", file.path.display()));
                continue;
            };
            let upwards = rank(used) > rank(&module[0]);
            let apart = *used != module[0] && APART.contains(&used.as_str()) && APART.contains(&module[0].as_str());
            if upwards || apart {
                wrong.push(format!("{} uses {path}", file.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "against the order {ORDER:?}:\n{}", wrong.join("\n"));
}

#[test]
fn no_files_of_a_module_use_each_other_in_a_circle() {
    let source = Crate::read();
    let mut circles = Vec::new();
    for top in WITHOUT_CIRCLES {
        let files: Vec<&Segments> =
            source.files.keys().filter(|module| module.first().is_some_and(|m| m == top)).collect();
        let uses: BTreeMap<&Segments, BTreeMap<Segments, String>> =
            files.iter().map(|&module| (module, source.uses(module))).collect();
        let mut in_a_circle = BTreeSet::new();
        for &module in &files {
            if in_a_circle.contains(module) {
                continue;
            }
            if let Some(circle) = circle_through(module, &uses) {
                in_a_circle.extend(circle.iter().cloned());
                circles.push(describe(&source, &circle, &uses));
            }
        }
    }
    assert!(circles.is_empty(), "{} circles:\n{}", circles.len(), circles.join("\n"));
}

fn rank(module: &str) -> usize {
    ORDER.iter().position(|&known| known == module).unwrap_or_else(|| panic!("{module} has no place in the order"))
}

/// The shortest way from `start` back to itself.
fn circle_through(start: &Segments, uses: &BTreeMap<&Segments, BTreeMap<Segments, String>>) -> Option<Vec<Segments>> {
    let mut seen = BTreeSet::new();
    let mut ways = VecDeque::from([vec![start.clone()]]);
    while let Some(way) = ways.pop_front() {
        for next in uses.get(&way[way.len() - 1]).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                return Some(way);
            }
            if seen.insert(next.clone()) {
                ways.push_back([&way[..], from_ref(next)].concat());
            }
        }
    }
    None
}

fn describe(source: &Crate, circle: &[Segments], uses: &BTreeMap<&Segments, BTreeMap<Segments, String>>) -> String {
    let step = |(from, to): (&Segments, &Segments)| {
        format!("    {} uses {}", source.files[from].path.display(), uses[from][to])
    };
    let next = circle.iter().cycle().skip(1);
    format!("a circle of {}:\n{}", circle.len(), circle.iter().zip(next).map(step).collect::<Vec<_>>().join("\n"))
}
