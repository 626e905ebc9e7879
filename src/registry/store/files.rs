//! The files of a store: their names, and what they hold before anything is repaired.

use std::{
    ffi::OsString,
    fs::File,
    io, iter,
    path::{Path, PathBuf},
};
#[cfg(feature = "cli")]
use std::{fs, sync::Arc};

#[cfg(feature = "cli")]
use super::frame::Entry;
use super::{
    StoreError,
    checkpoint::{Checkpoint, CheckpointError},
    content::Content,
    database::{self, BLOBS, Database, Fault, LOG},
    frame,
};
#[cfg(feature = "cli")]
use crate::registry::Lease;

/// The ending of the checkpoint's file.
pub(super) const CHECK: &str = "check";

/// What the files of a store hold.
pub(super) struct Files {
    pub(super) content: Content,
    /// The database, unless it could not be opened or is damaged.
    pub(super) database: Option<Database>,
    /// Why it could not be opened; the content was read without sled.
    pub(super) failure: Option<StoreError>,
    /// How far the table had come.
    pub(super) noted: Option<Checkpoint>,
    pub(super) is_check_damaged: bool,
    pub(super) is_damaged: bool,
    /// True if the values are not all of this format.
    pub(super) is_former: bool,
    /// Leases of this group and those before are in doubt.
    pub(super) doubt: u64,
}

impl Files {
    /// Opens the database in the directory `path`. Its files are read without sled first, as sled cuts what it takes for
    /// damaged.
    pub(super) fn read(path: &Path) -> Result<Self, StoreError> {
        let check = Checkpoint::read(&beside(path, CHECK));
        if let Err(error) = &check {
            tracing::warn!(error = error as &dyn std::error::Error, "the check file of the store is of no use");
        }
        let is_check_damaged = matches!(check, Err(CheckpointError::Damaged));
        let noted = check.unwrap_or_default();
        let known = noted.unwrap_or_default();

        let is_missing = !path.join(LOG).exists();
        let mut raw = read_without_sled(path).map_err(|error| database::error(path, "read", error))?;
        refuse_later(path, &raw)?;
        let mut content = Content::default();
        let (database, failure, mut is_damaged) = match Database::open(path, &mut content) {
            Ok(database) => {
                refuse_later(path, &content)?;
                let written = content.mark.unwrap_or_default().sequence;
                // One group may be there that was not acknowledged.
                let is_cut = content.mark.is_some() && raw.last_group() > written + 1;
                (Some(database), None, is_cut)
            }
            Err(Fault::Damaged(message)) => {
                tracing::error!(message, "the table is damaged");
                (None, None, true)
            }
            Err(Fault::Failed(error)) if error.may_pass() && (is_missing || raw.last_group() > 0) => {
                content = std::mem::take(&mut raw);
                (None, Some(error), false)
            }
            Err(Fault::Failed(error)) => return Err(error),
        };
        let mark = content.mark.unwrap_or_default();
        let leases = content.leases();
        // Without sled some leases may be seen that were removed, and are over.
        let is_counted = mark.leases == leases || (failure.is_some() && mark.leases < leases);
        is_damaged |= content.mark.is_some() && !is_counted;
        is_damaged |= content.mark.is_none() && raw.last_group() > 0;
        is_damaged |= mark.sequence < known.sequence || content.unreadable() > 0 || (is_missing && is_check_damaged);
        let is_former = !is_damaged && content.mark.map_or(leases > 0, |mark| mark.format < frame::FORMAT);
        let mut doubt = known.doubt.unwrap_or(0);
        if is_damaged {
            content.merge(raw);
            let is_first = content.mark.is_none_or(|mark| mark.format < frame::FORMAT);
            let hole = if is_first { u64::MAX } else { content.last_hole(known.sequence) };
            doubt = doubt.max(hole.saturating_sub(1));
        }
        let database = database.filter(|_| !is_damaged);
        Ok(Self { content, database, failure, noted, is_check_damaged, is_damaged, is_former, doubt })
    }

    /// True if leases were lost, or may have been, and have not been made up for.
    pub(super) fn lost_leases(&self) -> bool {
        self.is_damaged || self.noted.is_some_and(|noted| noted.doubt.is_some())
    }
}

/// Reads the leases of the store in the directory `path`, which nobody has open, and changes nothing. The flag is true if
/// leases were lost, or may have been.
#[cfg(feature = "cli")]
pub(crate) fn read_only(path: &Path) -> Result<(Vec<Arc<Lease>>, bool), StoreError> {
    // sled writes into what it opens.
    let copied = tempfile::tempdir().and_then(|copy| {
        let to = copy.path().join("aliases");
        for directory in [Path::new(""), Path::new(BLOBS)] {
            fs::create_dir_all(to.join(directory))?;
            for file in database::files(&path.join(directory))? {
                fs::copy(&file, to.join(directory).join(file.file_name().unwrap_or_default()))?;
            }
        }
        if beside(path, CHECK).exists() {
            fs::copy(beside(path, CHECK), beside(&to, CHECK))?;
        }
        Ok((copy, to))
    });
    let (_copy, to) = copied.map_err(|error| database::error(path, "read", error))?;
    let files = Files::read(&to).map_err(|error| match error {
        StoreError::Format { format, .. } => StoreError::Format { path: path.into(), format },
        error => error,
    })?;
    let is_damaged = files.lost_leases();
    let leases = files.content.entries.into_values().filter_map(|stored| match stored.entry {
        Entry::Lease(lease) => Some(lease),
        _ => None,
    });
    Ok((leases.collect(), is_damaged))
}

pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(".");
    path.push(ending);
    path.into()
}

/// The frames in the files of a database.
pub(super) fn read_without_sled(path: &Path) -> io::Result<Content> {
    let mut content = Content::default();
    for file in iter::once(path.join(LOG)).chain(database::files(&path.join(BLOBS))?) {
        let file = match File::open(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        if let Err(error) = frame::scan(file, |place, body| content.take(place, body)) {
            tracing::error!(%error, "a part of the table cannot be read");
        }
    }
    Ok(content)
}

fn refuse_later(path: &Path, content: &Content) -> Result<(), StoreError> {
    match content.mark {
        Some(mark) if mark.format > frame::FORMAT => Err(StoreError::Format { path: path.into(), format: mark.format }),
        _ => Ok(()),
    }
}
