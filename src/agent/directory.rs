//! A directory of target files, watched by reading it again and again.
//!
//! Polled by content rather than by events: a ConfigMap of Kubernetes is changed by swapping a symbolic link two levels
//! up, and bind mounts and network file systems tell of nothing at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    TargetSpec,
    target_file::{TargetFileError, parse_targets},
};
use crate::telemetry::Chain;

/// The directory and what its files said when they last made sense.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// By name, so that the first of two files is always the same one.
    files: BTreeMap<PathBuf, KnownFile>,
}

#[derive(Debug, Default)]
struct KnownFile {
    content: Option<Vec<u8>>,
    /// What is wrong with the content.
    broken: Option<String>,
    /// What it said when it last made sense.
    good: Option<Vec<TargetSpec>>,
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, files: BTreeMap::new() }
    }

    /// Reads what has changed; what is wrong goes to `problems`, and leaves the targets as they were. Blocks.
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
            let unreadable = match content(&path) {
                Ok(content) => {
                    known.take(&path, content);
                    None
                }
                Err(error) => Some(Chain(&error).to_string()),
            };
            if let Some(why) = unreadable.as_ref().or(known.broken.as_ref()) {
                let meanwhile = match known.good {
                    Some(_) => "its targets stay as they were",
                    None => "none of its targets is registered",
                };
                problems.insert(format!("{why}; {meanwhile}"));
            }
        }
    }

    /// The targets, by file name, with the file of each.
    pub(super) fn targets(&self) -> impl Iterator<Item = (&Path, &TargetSpec)> {
        self.files.iter().flat_map(|(path, file)| file.good.iter().flatten().map(move |spec| (path.as_path(), spec)))
    }
}

impl KnownFile {
    fn take(&mut self, path: &Path, content: Vec<u8>) {
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

/// Files and links to files that end in `.toml` or `.json`. Hidden ones are not meant: editors and Kubernetes keep
/// their own things there. Prometheus's lists in YAML are meant, but not read: that is a problem.
fn target_files(directory: &Path, problems: &mut BTreeSet<String>) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let ends_in = |ends: [&str; 2]| path.extension().is_some_and(|end| ends.iter().any(|known| end == *known));
        // Through links; one that leads nowhere is still a file that should be there.
        let is_file = || fs::metadata(&path).map_or(true, |metadata| metadata.is_file());
        if !hidden && ends_in(["yml", "yaml"]) && is_file() {
            problems.insert(format!("{} is YAML, which is not read: write it as JSON", path.display()));
        } else if !hidden && ends_in(["toml", "json"]) && is_file() {
            found.insert(path);
        }
    }
    Ok(found)
}

fn content(path: &Path) -> Result<Vec<u8>, TargetFileError> {
    let failed = |source| TargetFileError::Read { path: path.to_owned(), source };
    let mut content = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_LEN + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > MAX_LEN {
        return Err(TargetFileError::TooLong { path: path.to_owned(), limit: MAX_LEN });
    }
    Ok(content)
}

/// Thousands of targets.
const MAX_LEN: u64 = 4 * 1024 * 1024;
