//! The files of a store: their names, and what they hold before anything is repaired.

#[cfg(feature = "cli")]
use std::sync::Arc;
use std::{
    ffi::OsString,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::{
    StoreError,
    checkpoint::{Checkpoint, CheckpointError},
    content::{Content, OtherFormat},
    former,
    sectors::Sectors,
};
#[cfg(feature = "cli")]
use crate::registry::Lease;

/// The ending of the table's file.
pub(super) const TABLE: &str = "table";
/// The ending of the checkpoint's file.
pub(super) const CHECK: &str = "check";

/// What the files of a store hold.
pub(super) struct Files {
    pub(super) content: Content,
    /// How far the table had come.
    pub(super) noted: Option<Checkpoint>,
    pub(super) is_check_damaged: bool,
    /// True if there is no table's file.
    pub(super) is_new: bool,
    /// True if the content is of a table of an earlier version.
    pub(super) is_former: bool,
}

impl Files {
    pub(super) fn read(path: &Path) -> Result<Self, StoreError> {
        let check = Checkpoint::read(&beside(path, CHECK));
        if let Err(error) = &check {
            tracing::warn!(error = error as &dyn std::error::Error, "the check file of the store is of no use");
        }
        let is_check_damaged = matches!(check, Err(CheckpointError::Damaged));
        let noted = check.unwrap_or_default();
        let known = noted.unwrap_or_default();

        let table = read_table(path, known.sequence)?;
        let is_new = table.is_none();
        let former = if is_new { former::read(path)? } else { None };
        let is_former = former.is_some();
        let mut content = table.or(former).unwrap_or_default();
        let is_missing = is_new && !is_former;
        if content.sequence < known.sequence || (is_missing && is_check_damaged) {
            content.damaged = true;
            content.doubt = u64::MAX;
        }
        content.doubt = content.doubt.max(known.doubt.unwrap_or(0));
        Ok(Self { content, noted, is_check_damaged, is_new, is_former })
    }

    /// True if leases were lost, or may have been, and have not been made up for.
    pub(super) fn is_damaged(&self) -> bool {
        self.content.damaged || self.noted.is_some_and(|noted| noted.doubt.is_some())
    }
}

/// Reads the leases of the store of the files `path.*`, which nobody has open, and changes nothing. The flag is true if leases
/// were lost, or may have been.
#[cfg(feature = "cli")]
pub(crate) fn read_only(path: &Path) -> Result<(Vec<Arc<Lease>>, bool), StoreError> {
    let files = Files::read(path)?;
    let is_damaged = files.is_damaged();
    Ok((files.content.leases.into_values().map(|stored| stored.lease).collect(), is_damaged))
}

pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(".");
    path.push(ending);
    path.into()
}

/// The content of the table's file, if there is one.
fn read_table(path: &Path, known: u64) -> Result<Option<Content>, StoreError> {
    let table = beside(path, TABLE);
    let failed = |source| StoreError::Backend { path: path.into(), attempt: "read", source };
    let file = match File::open(&table) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    match Content::read(Sectors::new(&file), known).map_err(failed)? {
        Ok(content) => Ok(Some(content)),
        Err(OtherFormat(format)) => Err(StoreError::Format { path: table, format }),
    }
}
