//! The files of a store: their names, and what they hold before anything is repaired.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

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
use crate::registry::Contents;
use crate::telemetry::Chain;

/// The ending of the checkpoint's file.
pub(super) const CHECK: &str = "check";
/// The ending of the file of names.
pub(super) const NOTED: &str = "noted";

/// What the files of a store hold.
pub(super) struct Files {
    pub(super) content: Content,
    /// The database, unless it could not be opened or is damaged.
    pub(super) database: Option<Database>,
    /// The log that was read, if there is one.
    pub(super) log: Option<File>,
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
    /// Opens the database in the directory `path`, whose check file is `check`. Its files are read without sled first, as
    /// sled cuts what it takes for damaged.
    pub(super) fn read(path: &Path, check: &Path) -> Result<Self, StoreError> {
        let check = Checkpoint::read(check);
        if let Err(error) = &check {
            tracing::warn!(error = %Chain(error), "the check file of the store is of no use");
        }
        let is_check_damaged = matches!(check, Err(CheckpointError::Damaged));
        let noted = check.unwrap_or_default();
        let known = noted.unwrap_or_default();

        let is_missing = !path.join(LOG).exists();
        let log = database::open_log(path);
        let mut raw = read_without_sled(path);
        refuse_later(path, &raw)?;
        let mut content = Content::default();
        let mut failure = None;
        let opened = match Database::open(path, &mut content) {
            // What has no frames can be read by sled alone, which needs to write.
            Err(Fault::Failed(error)) if error.may_pass() && raw.last_group() == 0 && !is_missing => {
                let Ok(copy) = copy(path) else { return Err(error) };
                failure = Some(error);
                content = Content::default();
                Database::open(copy.path(), &mut content)
            }
            opened => opened,
        };
        let (database, mut is_damaged) = match opened {
            Ok(database) => {
                refuse_later(path, &content)?;
                let written = content.mark.unwrap_or_default().sequence;
                // One group may be there that was not acknowledged.
                let is_cut = content.mark.is_some() && raw.last_group() > written + 1;
                (Some(database).filter(|_| failure.is_none()), is_cut)
            }
            Err(Fault::Failed(error)) if error.may_pass() => {
                content = std::mem::take(&mut raw);
                failure = Some(error);
                (None, false)
            }
            Err(Fault::Failed(error @ StoreError::Locked { .. })) => return Err(error),
            Err(fault) => {
                let error = fault.into_error(path);
                tracing::error!(error = %Chain(&error), "the table is damaged");
                (None, true)
            }
        };
        let mark = content.mark.unwrap_or_default();
        let count = content.count();
        // Without sled some leases may be seen that were removed, and are over.
        let is_counted = mark.entries == count || (failure.is_some() && mark.entries < count);
        is_damaged |= content.mark.is_some() && !is_counted;
        is_damaged |= content.mark.is_none() && raw.last_group() > 0;
        is_damaged |= mark.sequence < known.sequence || content.unreadable() > 0;
        is_damaged |= is_check_damaged && content.mark.is_none();
        let is_foreign = known.id.zip(mark.id).is_some_and(|(known, there)| known != there);
        if is_foreign {
            tracing::error!("the table is another one than the check file belongs to");
            is_damaged = true;
        }
        let is_former = !is_damaged && content.mark.map_or(count > 0, |mark| mark.format < frame::FIRST_WITH_FRAMES);
        let mut doubt = known.doubt.unwrap_or(0);
        if is_damaged {
            content.merge(raw);
            let is_first = content.mark.is_none_or(|mark| mark.format < frame::FIRST_WITH_FRAMES);
            let hole = if is_first || is_foreign { u64::MAX } else { content.last_hole(known.sequence) };
            doubt = doubt.max(hole.saturating_sub(1));
        }
        let database = database.filter(|_| !is_damaged);
        Ok(Self { content, database, log, failure, noted, is_check_damaged, is_damaged, is_former, doubt })
    }

    /// True if leases were lost, or may have been, and have not been made up for.
    pub(super) fn lost_leases(&self) -> bool {
        self.is_damaged || self.noted.is_some_and(|noted| noted.doubt.is_some())
    }
}

/// Reads what is in the store in the directory `path`, which nobody has open, and changes nothing. The flag is true if
/// leases were lost, or may have been.
#[cfg(feature = "cli")]
pub(crate) fn read_only(path: &Path) -> Result<(Contents, bool), StoreError> {
    // sled writes into what it opens.
    let copy = copy(path).map_err(|error| database::error(path, "read", error))?;
    let files = Files::read(copy.path(), &beside(path, CHECK)).map_err(|error| match error {
        StoreError::Format { format, .. } => StoreError::Format { path: path.into(), format },
        error => error,
    })?;
    let is_damaged = files.lost_leases();
    let mut contents = Contents::default();
    for stored in files.content.entries.into_values() {
        match stored.entry {
            Entry::Lease(lease) => contents.leases.push(lease),
            Entry::Beacon(beacon) => contents.beacons.push(beacon),
            Entry::Removed(_) | Entry::Unreadable => {}
        }
    }
    Ok((contents, is_damaged))
}

pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(".");
    path.push(ending);
    path.into()
}

/// The frames in the files of a database, as far as they can be read.
pub(super) fn read_without_sled(path: &Path) -> Content {
    let mut content = Content::default();
    let log = Some(path.join(LOG)).filter(|log| log.is_file());
    let blobs = database::files(&path.join(BLOBS)).unwrap_or_else(|error| {
        tracing::error!(%error, "the long entries of the table cannot be read");
        Vec::new()
    });
    for file in log.into_iter().chain(blobs) {
        let read = File::open(file).and_then(|file| frame::scan(file, |place, body| content.take(place, body)));
        if let Err(error) = read {
            tracing::error!(%error, "a part of the table cannot be read");
        }
    }
    content
}

/// A copy of a database, in a directory for what is temporary.
fn copy(path: &Path) -> io::Result<TempDir> {
    let copy = tempfile::tempdir().or_else(|_| tempfile::tempdir_in("/dev/shm"))?;
    for directory in [Path::new(""), Path::new(BLOBS)] {
        fs::create_dir_all(copy.path().join(directory))?;
        for file in database::files(&path.join(directory))? {
            fs::copy(&file, copy.path().join(directory).join(file.file_name().unwrap_or_default()))?;
        }
    }
    Ok(copy)
}

fn refuse_later(path: &Path, content: &Content) -> Result<(), StoreError> {
    match content.mark {
        Some(mark) if mark.format > frame::FORMAT => Err(StoreError::Format { path: path.into(), format: mark.format }),
        _ => Ok(()),
    }
}
