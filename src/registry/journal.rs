//! Who took and who lost which alias, in the order of the table, for a log that is kept beside the store.

use std::time::SystemTime;

use super::EventKind;
use crate::{
    identity::{PublicKey, SecretId},
    wire::Alias,
};

/// Keeps entries. It belongs to the writer's thread, so it may block.
pub(crate) trait Journal: Send {
    /// Writes these, which may be none: the writer calls every few seconds. What they are of is acknowledged after this. What
    /// cannot be written must not keep the table from changing: the journal says so itself.
    fn write(&mut self, entries: Vec<JournalEntry>);

    /// Called once, after the last [`write`](Self::write).
    fn close(&mut self);
}

/// An alias that came to a holder, or was lost by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JournalEntry {
    pub(crate) alias: Alias,
    pub(crate) peer: PublicKey,
    pub(crate) kind: EventKind,
    pub(crate) cause: Cause,
    /// The secret of the holder; none of one that has lost the alias.
    pub(crate) secret: Option<SecretId>,
    pub(crate) at: SystemTime,
}

/// Who or what has changed the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The peer that registers, or says farewell.
    Peer,
    /// Somebody who may release aliases of others.
    Operator,
    /// The right of a key, which is gone.
    Key,
    /// The right of a secret or ticket, which is gone.
    Secret,
    /// The clock.
    Time,
    /// Another scraper of the same table.
    Elsewhere,
}

impl JournalEntry {
    /// True of what a journal keeps: who came and who went. New labels are no such thing.
    pub(super) fn is_about(kind: EventKind) -> bool {
        match kind {
            EventKind::Registered
            | EventKind::SecretChanged
            | EventKind::Returned
            | EventKind::Released
            | EventKind::Lapsed
            | EventKind::Gone
            | EventKind::TakenOver { .. } => true,
            EventKind::Updated | EventKind::TakeoverRefused { .. } => false,
        }
    }
}
