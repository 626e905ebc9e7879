//! A copy of the shared table on the scraper's own disk, for a start while the shared store cannot be reached.
//!
//! The copy is a sled store, and a note beside it, `aliases.shared`: of which bucket it is a copy, up to which revision, and when
//! the bucket was last reached. What is not noted as copied is listed again.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::known::Place;
use crate::{
    atomic_file,
    registry::{Change, Loaded, Name, SledStore, Store, StoreError, store::files::beside},
};

/// Ending of the note's name.
const NOTE: &str = "shared";
/// Changes of one commit. sled frees what a commit replaced only in later ones: in one of 10 000 changes that is 50 MB.
const PART: usize = 128;

pub(super) struct Mirror {
    store: SledStore,
    note: PathBuf,
    /// What is not copied yet.
    changes: BTreeMap<Name, Change>,
}

/// The note, JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    stream_created_unix_ns: i128,
    revision: u64,
    reached_at_unix_ms: u64,
}

impl Mirror {
    /// The copy in the table's files at `path`.
    pub(super) fn open(path: PathBuf) -> Result<Self, StoreError> {
        let note = beside(&path, NOTE);
        Ok(Self { store: SledStore::open(path)?, note, changes: BTreeMap::new() })
    }

    /// What was copied, of which bucket, and when that was last reached.
    pub(super) fn load(&mut self) -> Result<(Loaded, Option<(Place, SystemTime)>), StoreError> {
        let loaded = self.store.load()?;
        let note = fs::read(&self.note).ok().and_then(|note| serde_json::from_slice::<Note>(&note).ok());
        // A copy that has lost something is the copy of nothing.
        let note = note.filter(|_| loaded.damage.is_none());
        let place = note.map(|Note { stream_created_unix_ns, revision, reached_at_unix_ms }| {
            let reached_at = UNIX_EPOCH.checked_add(Duration::from_millis(reached_at_unix_ms)).unwrap_or(UNIX_EPOCH);
            (Place { stream: stream_created_unix_ns, at: revision }, reached_at)
        });
        Ok((loaded, place))
    }

    pub(super) fn take(&mut self, change: Change) {
        self.changes.insert(change.name(), change);
    }

    /// Copies what was taken, which is all up to `place`.
    pub(super) fn write(&mut self, place: Option<Place>, reached_at: SystemTime) -> Result<(), StoreError> {
        if !self.changes.is_empty() {
            let changes: Vec<Change> = self.changes.values().cloned().collect();
            changes.chunks(PART).try_for_each(|part| self.store.commit(part).map(drop))?;
            self.changes.clear();
        }
        self.store.checkpoint()?;
        let Some(Place { stream, at }) = place else { return Ok(()) };
        let reached_at = reached_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let note = Note {
            stream_created_unix_ns: stream,
            revision: at,
            reached_at_unix_ms: u64::try_from(reached_at).unwrap_or(u64::MAX),
        };
        let note = serde_json::to_vec(&note).expect("numbers are JSON");
        let failed = |source| StoreError::Backend { path: self.note.clone(), attempt: "written", source };
        atomic_file::replace(&self.note, &note, atomic_file::PRIVATE).map_err(failed)
    }
}
