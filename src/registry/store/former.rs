//! Tables of format 1: a directory of sled's, with one key per alias.
//!
//! sled cuts its log at the first damaged byte, and panics over some others. So it counted commits and leases in each
//! commit, and every panic ends here, as damage.

use std::{
    fs::{File, TryLockError},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use super::{
    StoreError,
    content::{Content, Stored},
    record,
};

/// The key of the counters. An alias has no zero byte.
const PROGRESS_KEY: &[u8] = b"\0mark";
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// The leases in the directory, if there is one. What sled cannot read is damage.
pub(super) fn read(path: &Path) -> Result<Option<Content>, StoreError> {
    if !path.is_dir() {
        return Ok(None);
    }
    // sled reports a held lock as an I/O error of no particular kind.
    let db = File::options().read(true).write(true).open(path.join("db"));
    if db.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock))) {
        return Err(StoreError::Locked { path: path.into() });
    }
    let mut content = Content::default();
    let mut noted = None;
    let read = catch_unwind(AssertUnwindSafe(|| read_all(path, &mut content, &mut noted)));
    match read {
        Ok(Ok(())) => {}
        Ok(Err(sled::Error::Io(source))) => {
            return Err(StoreError::Backend { path: path.into(), attempt: "opened", source });
        }
        Ok(Err(error)) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a table of an earlier version is damaged");
            content.damaged = true;
        }
        Err(_) => {
            tracing::error!("a table of an earlier version is damaged: sled panicked");
            content.damaged = true;
        }
    }
    let found = content.leases.len() as u64 + content.unreadable;
    content.damaged |= content.unreadable > 0 || noted.is_some_and(|noted| noted != found);
    if content.damaged {
        content.doubt = u64::MAX;
    }
    Ok(Some(content))
}

/// Reads entry by entry, so that what came before an error stands.
fn read_all(path: &Path, content: &mut Content, noted: &mut Option<u64>) -> sled::Result<()> {
    let db = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()?;
    for entry in &db.open_tree("leases")? {
        let (key, value) = entry?;
        if key == PROGRESS_KEY {
            if let Some((sequence, leases)) = progress(&value) {
                (content.sequence, *noted) = (sequence, Some(leases));
            }
            continue;
        }
        match record::decode(&key, &value) {
            Ok(lease) => {
                content.leases.insert(lease.alias.clone(), Stored { group: 1, lease: Arc::new(lease) });
            }
            Err(error) => {
                let key = key.escape_ascii();
                tracing::warn!(%key, error = &error as &dyn std::error::Error, "stored lease cannot be read");
                content.unreadable += 1;
            }
        }
    }
    Ok(())
}

/// Commits so far, and leases.
fn progress(value: &[u8]) -> Option<(u64, u64)> {
    let (sequence, leases) = value.split_first_chunk()?;
    Some((u64::from_be_bytes(*sequence), u64::from_be_bytes(leases.try_into().ok()?)))
}
