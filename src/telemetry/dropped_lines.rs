//! The number of log lines that nobody read in time, of the whole process.

use std::sync::LazyLock;

use prometheus_client::{metrics::counter::Counter, registry::Registry};

static DROPPED: LazyLock<Counter> = LazyLock::new(Counter::default);

/// Counts one line that was not written.
#[cfg(feature = "cli")]
pub(super) fn count() {
    DROPPED.inc();
}

/// Shows the count as `log_lines_dropped_total`.
pub(crate) fn register(registry: &mut Registry) {
    registry.register("log_lines_dropped", "Log lines that were left out because stderr took no more", DROPPED.clone());
}
