//! Counts what is logged.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tracing::{Event, Level, Subscriber, subscriber};
use tracing_subscriber::{
    Layer,
    layer::{self, SubscriberExt},
    registry,
};

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
        subscriber::with_default(registry().with(self.clone()), run);
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() <= self.level && metadata.target().starts_with(self.target) {
            let before = self.count.fetch_add(1, Ordering::Relaxed);
            assert!(before < self.panic_at, "logged {before} times");
        }
    }
}
