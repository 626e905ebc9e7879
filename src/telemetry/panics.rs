//! Panics: a line of the log each, and none for those that a caller catches and tells of.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
};

thread_local! {
    /// True within [`caught`].
    static CATCHES: Cell<bool> = const { Cell::new(false) };
    /// What the last panic within [`caught`] said, and where.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs the work, or returns what its panic said; in the `narthex` command with the place, and without a line in the log.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let outer = CATCHES.replace(true);
    SAID.take();
    let done = catch_unwind(AssertUnwindSafe(work));
    CATCHES.set(outer);
    done.map_err(|panic| SAID.take().unwrap_or_else(|| text(&*panic).to_owned()))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a text")
}

#[cfg(feature = "cli")]
mod hook {
    use std::{
        backtrace::{Backtrace, BacktraceStatus},
        collections::HashMap,
        panic::{self, PanicHookInfo},
        sync::{LazyLock, Mutex, PoisonError},
    };

    use super::{CATCHES, SAID, text};
    use crate::telemetry::LogPace;

    /// One for each place in the code.
    static PACES: LazyLock<Mutex<HashMap<String, LogPace>>> = LazyLock::new(Mutex::default);

    /// Writes panics to the log instead of stderr: their text may hold what a stranger sent. At most a line a minute for each
    /// place.
    pub(crate) fn log_panics() {
        panic::set_hook(Box::new(log));
    }

    fn log(panic: &PanicHookInfo<'_>) {
        let (said, place) = (text(panic.payload()), panic.location().map(ToString::to_string).unwrap_or_default());
        if CATCHES.get() {
            SAID.replace(Some(format!("{said} ({place})")));
            return;
        }
        let mut paces = PACES.lock().unwrap_or_else(PoisonError::into_inner);
        let due = paces.entry(place.clone()).or_default().due();
        drop(paces);
        let Some(count) = due else { return };
        let backtrace = Some(Backtrace::capture()).filter(|backtrace| backtrace.status() == BacktraceStatus::Captured);
        let backtrace = backtrace.map(tracing::field::display);
        tracing::error!(said, place, count, backtrace, "a part of the program panicked: this is a defect");
    }
}

#[cfg(feature = "cli")]
pub(super) use hook::log_panics;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_that_is_caught_is_a_text_and_one_within_is_not_the_outer_one() {
        assert_eq!(caught(|| 7), Ok(7));
        let outer = caught(|| {
            assert!(caught(|| panic!("inner {}", 1)).is_err_and(|said: String| said.starts_with("inner 1")));
            assert!(CATCHES.get());
            panic!("outer");
        });
        assert!(outer.is_err_and(|said: String| said.starts_with("outer")));
        assert!(!CATCHES.get());
    }
}
