//! A directory of target files, followed by polling.
//!
//! Events of the file system would miss changes: Kubernetes changes a ConfigMap by swapping a symbolic link two levels
//! up, and bind mounts and network file systems send no events at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    TargetSpec,
    target_file::{TargetFileError, parse_targets},
};
use crate::{small_file, telemetry::Chain};

/// Most bytes of a target file: room for thousands of targets.
const MAX_LEN: u64 = 4 * 1024 * 1024;

/// The directory and the last valid targets of its files.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Sorted by name, so that the first of two files is always the same one.
    files: BTreeMap<PathBuf, KnownFile>,
}

#[derive(Debug, Default)]
struct KnownFile {
    content: Option<Zeroizing<Vec<u8>>>,
    /// The fault in the content, if any.
    broken: Option<String>,
    /// The last valid targets.
    good: Option<Vec<TargetSpec>>,
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, files: BTreeMap::new() }
    }

    /// Reads changed files. A file with a fault is added to `problems` and keeps its targets. Blocks.
    pub(super) fn read(&mut self, problems: &mut BTreeSet<String>) {
        let found = match target_files(&self.path, problems) {
            Ok(found) => found,
            Err(source) => {
                let error = TargetFileError::Read { path: self.path.clone(), source };
                problems.insert(format!("{}; its targets stay as they were", Chain(&error)));
                return;
            }
        };
        self.files.retain(|path, _| found.contains(path));
        for path in found {
            let known = self.files.entry(path.clone()).or_default();
            let unreadable = match small_file::read(&path, MAX_LEN) {
                Ok((content, _)) => {
                    known.take(&path, content);
                    None
                }
                Err(source) => Some(Chain(&TargetFileError::Read { path: path.clone(), source }).to_string()),
            };
            // Unreadable now, or broken since an earlier read.
            if let Some(why) = unreadable.as_ref().or(known.broken.as_ref()) {
                let meanwhile = match known.good {
                    Some(_) => "its targets stay as they were",
                    None => "none of its targets is registered",
                };
                problems.insert(format!("{why}; {meanwhile}"));
            }
        }
    }

    /// The targets in the order of file names, with the file of each.
    pub(super) fn targets(&self) -> impl Iterator<Item = (&Path, &TargetSpec)> {
        self.files.iter().flat_map(|(path, file)| file.good.iter().flatten().map(move |spec| (path.as_path(), spec)))
    }
}

impl KnownFile {
    fn take(&mut self, path: &Path, content: Zeroizing<Vec<u8>>) {
        if self.content.as_ref() == Some(&content) {
            return;
        }
        let text = String::from_utf8_lossy(&content);
        match parse_targets(path, &text) {
            Ok(good) => {
                self.good = Some(good);
                self.broken = None;
            }
            Err(error) => self.broken = Some(Chain(&error).to_string()),
        }
        self.content = Some(content);
    }
}

/// Files, and links to files, that end in `.toml` or `.json`. Hidden ones are ignored: they belong to editors and
/// Kubernetes. YAML cannot be read, so Prometheus's lists in YAML are a problem.
fn target_files(directory: &Path, problems: &mut BTreeSet<String>) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let ends_in = |ends: [&str; 2]| path.extension().is_some_and(|end| ends.iter().any(|known| end == *known));
        // Follows links. A dangling link counts as a file: its target should be there.
        let is_file = || fs::metadata(&path).map_or(true, |metadata| metadata.is_file());
        if !hidden && ends_in(["yml", "yaml"]) && is_file() {
            problems.insert(format!("{} is YAML, which is not read: write it as JSON", path.display()));
        } else if !hidden && ends_in(["toml", "json"]) && is_file() {
            found.insert(path);
        }
    }
    Ok(found)
}
