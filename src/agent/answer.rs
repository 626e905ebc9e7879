//! What an exporter's answer is: metrics, or what stands at another URL.

use http::{HeaderMap, header};

/// Content types of the formats that Prometheus reads.
const FORMATS: [&str; 3] = ["text/plain", "application/openmetrics-text", "application/vnd.google.protobuf"];
/// Lines that are looked at.
const LINES: usize = 16;

/// What an answer is, as far as its headers and its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Metrics,
    Html,
    Json,
    /// There is no sample in it.
    Empty,
    /// Text that is in none of the formats.
    Text,
}

/// The bytes that an answer begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beginning<'a> {
    pub(crate) bytes: &'a [u8],
    /// True if they are all of it: then the last line counts although nothing ends it.
    pub(crate) is_all: bool,
}

impl Answer {
    /// Judges an answer with status 200 by its headers and its beginning.
    pub(crate) fn of(headers: &HeaderMap, beginning: Beginning<'_>) -> Self {
        let kind = media_type(headers);
        if is_encoded(headers) {
            // What is compressed is not looked into.
            return match &*kind {
                "text/html" => Self::Html,
                "application/json" => Self::Json,
                _ => Self::Metrics,
            };
        }
        let Beginning { bytes, is_all } = beginning;
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
        match text.first() {
            None => Self::Empty,
            Some(_) if kind == FORMATS[2] => Self::Metrics,
            Some(b'<') => Self::Html,
            Some(b'[') => Self::Json,
            Some(b'{') if is_object(text) => Self::Json,
            Some(_) if !whole_lines(text, is_all).take(LINES).all(is_line) => Self::Text,
            Some(_) if is_all && whole_lines(text, true).all(|line| line.is_empty() || line[0] == b'#') => Self::Empty,
            Some(_) => Self::Metrics,
        }
    }
}

/// True if the `Content-Type` is that of a format which Prometheus reads. Version 3 refuses an answer without one.
#[cfg(feature = "cli")]
pub(crate) fn has_known_type(headers: &HeaderMap) -> bool {
    FORMATS.contains(&&*media_type(headers))
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity")
}

/// The lines of a text; the last one only if it ends, or if the text `is_all`.
fn whole_lines(text: &[u8], is_all: bool) -> impl Iterator<Item = &[u8]> {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    lines.filter_map(move |line| line.strip_suffix(b"\n").or(is_all.then_some(line))).map(<[u8]>::trim_ascii)
}

/// True for `{}` and `{"key":`. The braces of a metric hold no colon: `{"a.metric"} 1`.
fn is_object(text: &[u8]) -> bool {
    let inside = text[1..].trim_ascii_start();
    match inside.first() {
        Some(b'}') => true,
        Some(b'"') => after_quotes(&inside[1..]).is_some_and(|rest| rest.trim_ascii_start().starts_with(b":")),
        _ => false,
    }
}

/// True for an empty line, a comment, and a sample: a name, perhaps labels, and a number.
fn is_line(line: &[u8]) -> bool {
    if line.is_empty() || line[0] == b'#' {
        return true;
    }
    let name = line.iter().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b':')).count();
    let rest = line[name..].trim_ascii_start();
    let (has_name, value) = match rest.strip_prefix(b"{") {
        Some(labels) => match after_braces(labels) {
            Some(value) => (true, value),
            None => return false,
        },
        None => (name > 0 && !line[0].is_ascii_digit(), rest),
    };
    let value = value.split(u8::is_ascii_whitespace).find(|word| !word.is_empty()).unwrap_or_default();
    has_name && std::str::from_utf8(value).is_ok_and(|value| value.parse::<f64>().is_ok())
}

/// What follows the brace that closes these labels.
fn after_braces(mut labels: &[u8]) -> Option<&[u8]> {
    loop {
        let at = labels.iter().position(|c| matches!(c, b'}' | b'"'))?;
        let (end, rest) = (labels[at], &labels[at + 1..]);
        if end == b'}' {
            return Some(rest);
        }
        labels = after_quotes(rest)?;
    }
}

/// What follows the quote that closes this text.
fn after_quotes(text: &[u8]) -> Option<&[u8]> {
    let mut escaped = false;
    let end = text.iter().position(|c| {
        let closes = *c == b'"' && !escaped;
        escaped = *c == b'\\' && !escaped;
        closes
    })?;
    Some(&text[end + 1..])
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(kind: &'static str, beginning: &str) -> Answer {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        Answer::of(&headers, Beginning { bytes: beginning.as_bytes(), is_all: true })
    }

    #[test]
    fn expositions_are_told_from_what_stands_at_other_urls() {
        let text = "text/plain; version=0.0.4";
        for (kind, beginning, expected) in [
            (text, "# HELP a b\n# TYPE a counter\na{b=\"}\\\" 1\"} 1e3 1700000000000\n", Answer::Metrics),
            (text, "a NaN\nb_sum{} +Inf # {trace_id=\"x\"} 1\n{\"a.b\",c=\"d\"} 1\n# EOF\n", Answer::Metrics),
            (text, "a 1", Answer::Metrics),
            // As Flask has it without a mimetype.
            ("text/html; charset=utf-8", "# HELP a b\na 1\n", Answer::Metrics),
            (
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily",
                "\x05\n\x03abc",
                Answer::Metrics,
            ),
            ("text/html", "<!DOCTYPE html>", Answer::Html),
            (text, " \r\n<html>", Answer::Html),
            (text, "\u{feff}<?xml version=\"1.0\"?>", Answer::Html),
            ("application/json", "{\"status\": \"ok\"}", Answer::Json),
            (text, "{}", Answer::Json),
            (text, "[1, 2]", Answer::Json),
            (text, "", Answer::Empty),
            (text, " \n", Answer::Empty),
            (text, "# HELP a b\n\n# EOF", Answer::Empty),
            (text, "OK", Answer::Text),
            (text, "m 1\nerror: can't open the database", Answer::Text),
            (text, "\u{0}\u{1}\u{2}", Answer::Text),
            (text, "pong\n", Answer::Text),
            (text, "Hello, world! 1\n", Answer::Text),
            (text, "a{b=\"c\" 1\n", Answer::Text),
            (text, "1 1\n", Answer::Text),
        ] {
            assert_eq!(of(kind, beginning), expected, "{kind} {beginning:?}");
        }
    }

    #[test]
    fn the_end_of_a_beginning_is_not_judged() {
        let of = |text: &str| Answer::of(&HeaderMap::new(), Beginning { bytes: text.as_bytes(), is_all: false });
        assert_eq!([of("# HELP a"), of("m 1\nnext{a=\"b")], [Answer::Metrics; 2]);
        assert_eq!(of("OK\nmo"), Answer::Text);
    }

    #[test]
    fn a_compressed_answer_is_what_its_type_says() {
        let headers = |kind: &'static str| {
            let encoding = (header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind)), encoding])
        };
        let packed = Beginning { bytes: b"\x1f\x8b", is_all: true };
        assert_eq!(Answer::of(&headers("text/html"), packed), Answer::Html);
        assert_eq!(Answer::of(&headers("text/plain"), packed), Answer::Metrics);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>(), is_all: bool) {
            Answer::of(&HeaderMap::new(), Beginning { bytes: &bytes, is_all });
            is_line(&bytes);
        }
    }
}
