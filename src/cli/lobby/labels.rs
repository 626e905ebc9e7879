//! Where a host's labels come from.
//!
//! - Those that are given: `--lobby-label`, `LABELS`.
//! - Files of a directory, one label a line, read anew each time. What is no file in there is passed over, and so are hidden files,
//!   files that cannot be read, and lines that can be no label.
//! - The runtime file, which the HTTP API changes: replaced and synced in one step, so that it is whole after a power cut.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    atomic_file,
    lobby::{LabelsChange, LabelsError, is_label},
    small_file,
};

/// Most bytes of a file of labels.
const MAX_FILE: u64 = 1 << 20;

/// The sources of a host's labels.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    pub(super) given: Vec<String>,
    pub(super) directory: PathBuf,
    pub(super) runtime: PathBuf,
}

impl Sources {
    /// All labels, sorted, each once. Blocks.
    pub(super) fn read(&self) -> io::Result<Vec<String>> {
        self.with(&self.run_time()?)
    }

    /// All labels if these are those of the runtime file.
    fn with(&self, run_time: &[String]) -> io::Result<Vec<String>> {
        let mut labels: BTreeSet<String> = self.given.iter().chain(run_time).cloned().collect();
        for file in self.files()? {
            match lines(&file) {
                Ok(lines) => labels.extend(lines),
                Err(error) => tracing::debug!(file = %file.display(), %error, "a file of labels cannot be read"),
            }
        }
        Ok(labels.into_iter().collect())
    }

    /// The files of the directory, without the runtime file.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            // Follows links, as those of a Kubernetes volume.
            if path != self.runtime && !is_hidden && fs::metadata(&path).is_ok_and(|file| file.is_file()) {
                files.push(path);
            }
        }
        Ok(files)
    }

    /// The labels of the runtime file.
    fn run_time(&self) -> io::Result<Vec<String>> {
        match lines(&self.runtime) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            labels => labels,
        }
    }

    /// Adds labels to the runtime file, or takes them out, if `check` has nothing against all labels as they would be then; returns
    /// once it is on disk. One call at a time. Blocks.
    pub(super) fn change(
        &self,
        change: LabelsChange,
        labels: &[String],
        check: impl FnOnce(Vec<String>) -> Result<(), LabelsError>,
    ) -> Result<(), LabelsError> {
        let failed = |error: io::Error| LabelsError::Failed(error.to_string());
        let mut kept = self.run_time().map_err(failed)?;
        let mut all = self.with(&kept).map_err(failed)?;
        let before = kept.len();
        match change {
            LabelsChange::Delete => kept.retain(|label| !labels.contains(label)),
            LabelsChange::Add => {
                for label in labels {
                    if !all.contains(label) {
                        all.push(label.clone());
                        kept.push(label.clone());
                    }
                }
                check(all)?;
            }
        }
        if kept.len() == before {
            return Ok(());
        }
        let written = self
            .runtime
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| atomic_file::replace(&self.runtime, kept.join("\n").as_bytes(), atomic_file::SHARED));
        written.map_err(failed)
    }
}

/// The labels of a file; lines that can be none are passed over.
fn lines(path: &Path) -> io::Result<Vec<String>> {
    let (bytes, _) = small_file::read(path, MAX_FILE)?;
    let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    Ok(lines.map(str::trim).filter(|line| is_label(line)).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_joined_and_those_of_run_time_survive() {
        let place = tempfile::tempdir().expect("a directory");
        let directory = place.path().join("labels");
        let sources =
            Sources { given: vec!["given".into()], directory: directory.clone(), runtime: directory.join("_runtime") };
        assert_eq!(sources.read().expect("read"), ["given"], "the directory may be missing");
        fs::create_dir_all(directory.join("a-directory")).expect("made");
        fs::write(directory.join("one"), " file:1 \n\nfile:2\r\n").expect("written");
        fs::write(directory.join("two"), "file:1\ngiven\n").expect("written");
        fs::write(directory.join(".hidden"), "hidden").expect("written");
        fs::write(directory.join("odd"), b"\xff\xfe\nfile:1\na\x07b\n").expect("written");
        std::os::unix::net::UnixListener::bind(directory.join("socket")).expect("made");
        assert_eq!(sources.read().expect("read"), ["file:1", "file:2", "given"]);

        let labels = |labels: &[&str]| labels.iter().map(ToString::to_string).collect::<Vec<_>>();
        let change = |change, given: &[&str]| sources.change(change, &labels(given), |_| Ok(()));
        change(LabelsChange::Add, &["r:2", "r:1", "r:2", "given"]).expect("written");
        assert_eq!(fs::read_to_string(&sources.runtime).expect("there"), "r:2\nr:1", "as the original writes it");
        assert_eq!(sources.clone().read().expect("read"), ["file:1", "file:2", "given", "r:1", "r:2"]);
        change(LabelsChange::Delete, &["r:2", "file:1", "other"]).expect("written");
        let refused = sources.change(LabelsChange::Add, &labels(&["new"]), |all| {
            assert_eq!(all, ["file:1", "file:2", "given", "r:1", "new"]);
            Err(LabelsError::Invalid("why".into()))
        });
        assert!(refused.is_err());
        assert_eq!(sources.read().expect("read"), ["file:1", "file:2", "given", "r:1"]);
    }
}
