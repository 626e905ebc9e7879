//! The limit on open files: each link over TCP takes one.

/// Raises the soft limit to the hard one, as far as the system permits, and gives the limit that holds now.
///
/// The usual soft limit of 1024 would stop a scraper at a thousand peers. The limit is low only for programs that use
/// `select`.
pub(super) fn raise_limit() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::warn!(%error, "could not raise the limit on open files");
        rlimit::Resource::NOFILE.get_soft().unwrap_or_default()
    })
}
