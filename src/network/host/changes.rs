//! What whoever depends on this host's network is told.

/// How often this host's network has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostChanges {
    /// In any way, as long as the network leads anywhere.
    pub(crate) any: u64,
    /// So that packets leave by another way, or by one again.
    pub(crate) ways: u64,
}
