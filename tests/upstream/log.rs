//! Counts what is logged.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tracing::{Event, Level, Metadata, Subscriber, span, subscriber};

/// Events of one level or above, of the crates whose names begin so.
#[derive(Clone)]
pub(crate) struct Events {
    level: Level,
    target: &'static str,
    panic_at: usize,
    count: Arc<AtomicUsize>,
}

impl Events {
    pub(crate) fn new(level: Level, target: &'static str) -> Self {
        Self { level, target, panic_at: usize::MAX, count: Arc::default() }
    }

    /// Panics in the code that logs this number of lines.
    pub(crate) fn panic_at(self, panic_at: usize) -> Self {
        Self { panic_at, ..self }
    }

    /// Counts on this thread.
    pub(crate) fn during(&self, run: impl FnOnce()) {
        subscriber::with_default(self.clone(), run);
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && metadata.target().starts_with(self.target)
    }

    fn event(&self, _: &Event<'_>) {
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        assert!(before < self.panic_at, "logged {before} times");
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
