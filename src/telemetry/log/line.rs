//! One event as one line: the same keys in logfmt and in JSON, flat.
//!
//! `ts level component msg`, then the event's own fields. `component` is the module of narthex, or the library, that tells.
//! Keys of peers are cut to what tells them apart, unless the log has `debug` lines.

use std::{
    borrow::Cow,
    error::Error,
    fmt::{self, Write as _},
    io,
    time::SystemTime,
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use crate::telemetry::escape::{escaped, steers};
use crate::{
    identity::PublicKey,
    telemetry::{Chain, short_key},
};

/// Characters of a key's text.
const KEY_LEN: usize = 52;
/// The field with our own key, which is there to be copied.
const OWN_KEY: &str = "key";
/// What every line begins with; an event's own field of such a name gets a `_` behind.
const FIRST: [&str; 4] = ["ts", "level", "component", "msg"];

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Pairs of key=value, as Prometheus logs: ts, level, component, msg, then the line's own.
    #[default]
    Logfmt,
    /// One flat JSON object a line, with the same keys.
    Json,
}

/// Writes lines with what `open` gives, each with one call.
pub(super) struct Lines<F> {
    pub(super) format: LogFormat,
    pub(super) whole_keys: bool,
    pub(super) open: F,
}

impl<S: Subscriber, W: io::Write, F: Fn() -> W + 'static> Layer<S> for Lines<F> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields { whole_keys: self.whole_keys, message: String::new(), others: Vec::new() };
        event.record(&mut fields);
        let line = line(self.format, event.metadata(), fields);
        // The writer keeps what it can, and there is nobody to tell.
        let _ = (self.open)().write_all((escaped(&line) + "\n").as_bytes());
    }
}

fn line(format: LogFormat, metadata: &Metadata<'_>, fields: Fields) -> String {
    let ts = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let level = metadata.level().as_str().to_ascii_lowercase();
    let values = [ts, level, component(metadata.target()).to_owned(), fields.message];
    let first = FIRST.into_iter().map(Cow::Borrowed).zip(values.map(Value::Text));
    let mut line = String::with_capacity(256);
    for (name, value) in first.chain(fields.others) {
        match format {
            LogFormat::Logfmt => value.logfmt(&name, &mut line),
            LogFormat::Json => value.json(&name, &mut line),
        }
    }
    if format == LogFormat::Json {
        line.push('}');
    }
    line
}

/// The part of narthex that tells, or the library: `narthex::registry::health` is `registry`, `libp2p_kad::handler` is
/// `libp2p_kad`.
fn component(target: &str) -> &str {
    let mut modules = target.split("::");
    match (modules.next(), modules.next()) {
        (Some("narthex"), Some(module)) => module,
        (Some(library), _) => library,
        (None, _) => target,
    }
}

/// What an event says.
struct Fields {
    whole_keys: bool,
    message: String,
    others: Vec<(Cow<'static, str>, Value)>,
}

enum Value {
    Text(String),
    /// A number or a truth value, in the form that both formats have.
    Bare(String),
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        let name = match field.name() {
            name if FIRST.contains(&name) => Cow::Owned(format!("{name}_")),
            name => Cow::Borrowed(name),
        };
        self.others.push((name, value));
    }

    fn add_text(&mut self, field: &Field, text: &str) {
        let text = match self.whole_keys || field.name() == OWN_KEY {
            true => text.to_owned(),
            false => with_short_keys(text),
        };
        match field.name() {
            "message" => self.message = text,
            _ => self.add(field, Value::Text(text)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add_text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_text(field, value);
    }

    fn record_error(&mut self, field: &Field, error: &(dyn Error + 'static)) {
        self.add_text(field, &Chain(error).to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::Bare(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::Bare(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::Bare(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let text = value.to_string();
        self.add(field, if value.is_finite() { Value::Bare(text) } else { Value::Text(text) });
    }
}

impl Value {
    fn logfmt(&self, name: &str, line: &mut String) {
        let (Self::Text(value) | Self::Bare(value)) = self;
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend([name, "="]);
        let plain = |c: char| !(c.is_whitespace() || steers(c) || matches!(c, '=' | '"' | '\u{fffd}'));
        if !value.is_empty() && value.chars().all(plain) {
            return line.push_str(value);
        }
        line.push('"');
        for c in value.chars() {
            match c {
                '"' | '\\' => line.extend(['\\', c]),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                '\t' => line.push_str("\\t"),
                c => line.push(c),
            }
        }
        line.push('"');
    }

    fn json(&self, name: &str, line: &mut String) {
        line.push(if line.is_empty() { '{' } else { ',' });
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        // Writing to a String does not fail.
        let _ = match self {
            Self::Text(text) => write!(line, "{}:{}", quoted(name), quoted(text)),
            Self::Bare(bare) => write!(line, "{}:{bare}", quoted(name)),
        };
    }
}

/// The text with each key cut to its begin.
fn with_short_keys(text: &str) -> String {
    let mut short = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
        let (before, word) = rest.split_at(at);
        let len = word.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(word.len());
        let (word, after) = word.split_at(len);
        let is_key = len == KEY_LEN && word.parse::<PublicKey>().is_ok();
        short.extend([before, if is_key { short_key(word) } else { word }]);
        rest = after;
    }
    short + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyPair;

    #[test]
    fn a_component_is_a_module_of_ours_or_a_library() {
        let components = ["narthex::registry::health", "narthex::cli", "narthex", "libp2p_kad::handler"].map(component);
        assert_eq!(components, ["registry", "cli", "narthex", "libp2p_kad"]);
    }

    #[test]
    fn a_key_is_cut_wherever_it_stands_and_nothing_else_is() {
        let key = KeyPair::from_seed(&[9; 32]).public().to_string();
        let (begin, like) = (&key[..8], "a".repeat(KEY_LEN));
        let text = format!("peer {key}@[::1]:1, {key}x and {like}: {key}");
        assert_eq!(with_short_keys(&text), format!("peer {begin}@[::1]:1, {key}x and {like}: {begin}"));
        assert_eq!(with_short_keys("é\u{202e} "), "é\u{202e} ");
    }
}
