//! What one line of an exposition is about.
//!
//! Prometheus's text format 0.0.4 and OpenMetrics 1.0 agree on `# TYPE name kind` and the like, and on samples that begin
//! with a name. Names that are no identifiers are quoted; the name of such a sample is the first item in the braces
//! (Prometheus's UTF-8 names).

use std::borrow::Cow;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// `# TYPE`: the kind of a family.
    Type(Cow<'a, [u8]>, Kind),
    /// `# HELP` or `# UNIT` of a family.
    About(Cow<'a, [u8]>),
    /// A sample of this name.
    Sample(Cow<'a, [u8]>),
    /// `# EOF`: the end of an OpenMetrics exposition.
    Eof,
    /// A comment, an empty line, or no exposition at all.
    Other,
}

/// The kinds of families whose samples or other names are not simply the family's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Info,
    Histogram,
    GaugeHistogram,
    Summary,
    /// Gauges, state sets, untyped and unknown.
    Plain,
}

impl<'a> Line<'a> {
    /// Reads a line, with or without what ends it.
    pub(super) fn read(line: &'a [u8]) -> Self {
        let line = line.trim_ascii();
        let Some(comment) = line.strip_prefix(b"#") else {
            return sample_name(line).map_or(Self::Other, Self::Sample);
        };
        let (keyword, rest) = word(comment);
        match keyword {
            b"EOF" if rest.is_empty() => Self::Eof,
            b"HELP" | b"UNIT" => family_name(rest).map_or(Self::Other, |(name, _)| Self::About(name)),
            b"TYPE" => family_name(rest).map_or(Self::Other, |(name, kind)| Self::Type(name, Kind::read(word(kind).0))),
            _ => Self::Other,
        }
    }
}

impl Kind {
    fn read(word: &[u8]) -> Self {
        match word {
            b"counter" => Self::Counter,
            b"info" => Self::Info,
            b"histogram" => Self::Histogram,
            b"gaugehistogram" => Self::GaugeHistogram,
            b"summary" => Self::Summary,
            _ => Self::Plain,
        }
    }
}

/// The first word and the rest. Any number of blanks and tabs separates words.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.trim_ascii_start();
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    (&text[..end], text[end..].trim_ascii_start())
}

/// The name after a keyword, plain or in quotes, and the rest.
fn family_name(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    match text.strip_prefix(b"\"") {
        Some(quoted) => unquoted(quoted),
        None => Some(word(text)).filter(|(name, _)| !name.is_empty()).map(|(name, rest)| (Cow::Borrowed(name), rest)),
    }
}

fn sample_name(line: &[u8]) -> Option<Cow<'_, [u8]>> {
    let end = line.iter().position(|byte| *byte == b'{' || byte.is_ascii_whitespace()).unwrap_or(line.len());
    if end > 0 {
        return Some(Cow::Borrowed(&line[..end]));
    }
    let (name, rest) = unquoted(line.strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"")?)?;
    // A quoted label name is followed by its value.
    (!rest.trim_ascii_start().starts_with(b"=")).then_some(name)
}

/// Reads up to the closing quote, and undoes `\\`, `\"` and `\n`.
fn unquoted(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut escaped = false;
    let end = text.iter().position(|&byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })?;
    let (name, rest) = (&text[..end], &text[end + 1..]);
    if !name.contains(&b'\\') {
        return Some((Cow::Borrowed(name), rest));
    }
    let (mut plain, mut bytes) = (Vec::with_capacity(name.len()), name.iter());
    while let Some(&byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => bytes.next().map_or(b'\\', |&escaped| if escaped == b'n' { b'\n' } else { escaped }),
            byte => byte,
        });
    }
    Some((Cow::Owned(plain), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Cow<'_, [u8]> {
        Cow::Borrowed(name.as_bytes())
    }

    #[test]
    fn lines_of_both_formats_are_distinguished() {
        for (line, expected) in [
            ("# TYPE a counter\n", Line::Type(named("a"), Kind::Counter)),
            ("#\tTYPE  a_b:c \t histogram \r\n", Line::Type(named("a_b:c"), Kind::Histogram)),
            ("# TYPE a stateset", Line::Type(named("a"), Kind::Plain)),
            ("# HELP a\n", Line::About(named("a"))),
            ("# HELP a TYPE b counter\n", Line::About(named("a"))),
            ("# UNIT a_seconds seconds\n", Line::About(named("a_seconds"))),
            ("# HELP \"a.b \\\"c\\\" \\\\ é\" help\n", Line::About(named("a.b \"c\" \\ é"))),
            ("# EOF\n", Line::Eof),
            ("# EOF", Line::Eof),
            ("a 1\n", Line::Sample(named("a"))),
            ("  a\t1 1700000000000\n", Line::Sample(named("a"))),
            ("a{b=\"c d\"} 1 # {trace_id=\"x\"} 1\n", Line::Sample(named("a"))),
            ("a {b=\"c\"} 1\n", Line::Sample(named("a"))),
            ("{\"a.b\",c=\"d\"} 1\n", Line::Sample(named("a.b"))),
            ("{ \"a.b\" } 1\n", Line::Sample(named("a.b"))),
        ] {
            assert_eq!(Line::read(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn what_is_no_exposition_names_nothing() {
        for line in [
            "",
            "\n",
            "#",
            "# a comment",
            "# EOF x",
            "# TYPE",
            "# HELP \"unclosed",
            "{\"a\"=\"b\"} 1",
            "{}",
            "{\"a",
            "#EOFX",
        ] {
            assert_eq!(Line::read(line.as_bytes()), Line::Other, "{line:?}");
        }
    }
}
