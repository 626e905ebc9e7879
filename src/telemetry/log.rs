//! Logs of the `narthex` command: one line an event, on stderr, as logfmt or JSON.
//!
//! Fields may hold what a stranger sent. Line ends and quotes are escaped, and so are DEL, the C1 controls, line separators
//! and the marks that reorder text: no peer can forge a line or steer the terminal of a reader. Colours are never written.
//!
//! Nobody waits for stderr: see `unblocked`.

mod line;
mod unblocked;

use std::{
    fmt,
    io::{self, Write as _},
    str::FromStr,
    sync::LazyLock,
    time::Duration,
};

use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, Layer, Registry, filter::LevelFilter, layer::SubscriberExt};

pub use line::LogFormat;

use super::panics;
use line::Lines;
use unblocked::Unblocked;

/// Longest wait at the end of the process for a reader of stderr.
const LAST_LINES: Duration = Duration::from_secs(1);

static STDERR: LazyLock<Unblocked> = LazyLock::new(|| Unblocked::new(io::stderr()));

/// Levels that a list may hold besides `target=level`.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Libraries whose `info` is of no use to an operator, and whose `warn` any stranger can cause: libp2p's crates log one for
/// each stream that ends too early. Each is a prefix: `libp2p` stands for `libp2p_swarm` and the rest.
const QUIET: [&str; 10] =
    ["libp2p", "yamux", "quinn", "rustls", "hickory", "netlink", "hyper", "sled", "multistream_select", "tower"];

/// A library that logs what it reports as an event, too, at each attempt to connect.
const SILENT: &str = "async_nats";

/// Which events are logged: a level, or a list such as `info,narthex::registry=debug`.
///
/// The libraries below narthex log errors only, unless the list names them (`libp2p=debug`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

/// Why a text is not a [`LogFilter`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected off, error, warn, info, debug, trace, or a list such as info,narthex::registry=debug")]
#[non_exhaustive]
pub struct LogFilterError;

impl FromStr for LogFilter {
    type Err = LogFilterError;

    /// Stricter than [`EnvFilter`], to which `inof` is the name of a target.
    fn from_str(text: &str) -> Result<Self, LogFilterError> {
        let known = |part: &str| part.contains('=') || part.contains('[') || LEVELS.contains(&part);
        if !text.split(',').all(known) || EnvFilter::try_new(text).is_err() {
            return Err(LogFilterError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&LogFilter> for EnvFilter {
    fn from(filter: &LogFilter) -> Self {
        // The last directive for a target holds, so the user's come last.
        let quiet: String = QUIET.iter().fold(String::new(), |all, target| all + target + "=error,");
        Self::new(format!("{SILENT}=off,{quiet}{}", filter.0))
    }
}

/// Sends the events of the whole process to stderr, panics too. A second call changes nothing.
pub fn start(format: LogFormat, filter: &LogFilter) {
    // The call fails only where a subscriber is set already, as in a test; that one stays.
    let _ = tracing::subscriber::set_global_default(subscriber(format, filter, || STDERR.clone()));
    panics::log_panics();
}

/// Writes a text to stderr behind the lines of the log, and waits up to a second until everything is written: for the end of
/// the process.
pub fn finish(text: &str) {
    let mut stderr = STDERR.clone();
    // The writer keeps what it can, and never fails.
    let _ = stderr.write_all(text.as_bytes());
    stderr.wait_written(LAST_LINES);
}

fn subscriber<W: io::Write + 'static>(
    format: LogFormat,
    filter: &LogFilter,
    open: impl Fn() -> W + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    let filter = EnvFilter::from(filter);
    let whole_keys = filter.max_level_hint().is_none_or(|most| most >= LevelFilter::DEBUG);
    Registry::default().with(Lines { format, whole_keys, open }.with_filter(filter))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged while `events` runs.
    fn logged(format: LogFormat, filter: &str, events: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = subscriber(format, &filter.parse().expect("a filter"), move || writer.clone());
        tracing::subscriber::with_default(subscriber, events);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).expect("text")
    }

    const HOSTILE: &str = "a\nlevel=error\r\x1b[31m \u{7f}\u{9b}31m\u{2028}\u{202e}\"=end";

    #[test]
    fn a_hostile_field_stays_in_its_line_and_cannot_steer_a_terminal() {
        for format in [LogFormat::Logfmt, LogFormat::Json] {
            // Each alone as well: some formatters quote only if another character asks for it.
            for text in HOSTILE.split_inclusive(|_| true).chain([HOSTILE]) {
                let lines = logged(format, "info", || {
                    tracing::info!(alias = text, peer = %text, link = ?text, "{text}");
                });
                let line = lines.strip_suffix('\n').expect("ends its line");
                let raw = ['\n', '\r', '\x1b', '\u{7f}', '\u{9b}', '\u{2028}', '\u{202e}'];
                assert!(!line.contains(raw), "{format:?} {text:?}: {line:?}");
            }
        }
    }

    #[test]
    fn an_escaped_json_line_is_still_json() {
        let line = logged(LogFormat::Json, "info", || tracing::info!(alias = HOSTILE, "hello"));
        let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(event["alias"], HOSTILE);
    }

    #[test]
    fn both_formats_have_the_same_keys_in_the_same_order() {
        let event = || {
            let (count, ok, left_out) = (3, true, None::<u64>);
            tracing::warn!(target: "narthex::registry::health", alias = %"web 1", count, ok, left_out, level = "x", "a peer's shared secret");
        };
        let line = logged(LogFormat::Logfmt, "info", event);
        let (ts, rest) = line.split_once(' ').expect("words");
        let is_time = |ts: &str| ts.len() == "2026-11-23T06:47:42.666Z".len() && humantime::parse_rfc3339(ts).is_ok();
        assert!(ts.strip_prefix("ts=").is_some_and(is_time), "{line}");
        let expected =
            "level=warn component=registry msg=\"a peer's shared secret\" alias=\"web 1\" count=3 ok=true level_=x\n";
        assert_eq!(rest, expected);
        let line = logged(LogFormat::Json, "info", event);
        let (ts, rest) = line.split_once(',').expect("members");
        assert!(ts.strip_prefix("{\"ts\":\"").and_then(|ts| ts.strip_suffix('"')).is_some_and(is_time), "{line}");
        let expected = r#""level":"warn","component":"registry","msg":"a peer's shared secret","alias":"web 1","count":3,"ok":true,"level_":"x"}"#;
        assert_eq!(rest, format!("{expected}\n"));
    }

    #[test]
    fn keys_are_short_unless_the_log_has_debug_lines_and_our_own_is_whole() {
        let key = crate::identity::KeyPair::from_seed(&[9; 32]).public();
        let event = || tracing::info!(peer = %key, key = %key, "of {key}");
        let (whole, begin) = (key.to_string(), key.to_string()[..8].to_owned());
        let line = logged(LogFormat::Logfmt, "info", event);
        assert!(line.ends_with(&format!("msg=\"of {begin}\" peer={begin} key={whole}\n")), "{line}");
        let line = logged(LogFormat::Logfmt, "info,narthex::registry=debug", event);
        assert!(line.ends_with(&format!("msg=\"of {whole}\" peer={whole} key={whole}\n")), "{line}");
    }

    #[test]
    fn libraries_are_quiet_until_they_are_asked_for() {
        let events = || {
            tracing::debug!(target: "narthex::registry", "ours");
            tracing::warn!(target: "libp2p_kad", "theirs");
            tracing::error!(target: "libp2p_swarm", "broken");
        };
        let quiet = logged(LogFormat::Logfmt, "debug", events);
        assert!(quiet.contains("ours") && !quiet.contains("theirs") && quiet.contains("broken"), "{quiet}");
        let asked = logged(LogFormat::Logfmt, "info,libp2p=debug", events);
        assert!(!asked.contains("ours") && asked.contains("theirs"), "{asked}");
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for text in ["inof", "", "info,debgu", "narthex=loud"] {
            assert_eq!(text.parse::<LogFilter>(), Err(LogFilterError), "{text}");
        }
        for text in ["info", "off", "warn,narthex::registry=debug"] {
            assert_eq!(text.parse::<LogFilter>().expect("a filter").to_string(), text);
        }
    }
}
