//! The limit on open files: every link over TCP takes one.

/// Raises the soft limit to the hard one, as far as the system lets it, and gives what holds now.
///
/// The usual soft limit of 1024 would end a scraper's growth at a thousand peers; it is that low only for programs
/// that use `select`.
pub(super) fn raise_limit() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::warn!(%error, "could not raise the limit on open files");
        rlimit::Resource::NOFILE.get_soft().unwrap_or_default()
    })
}
