//! Targets, their aliases and labels, checked.
//!
//! One bad label name makes Prometheus refuse a whole http_sd list, so a registry contains only values built by the
//! constructors here.

use std::{borrow::Borrow, collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de};

/// Most characters of a stranger's text in an error.
const MAX_QUOTED: usize = 40;

/// The name that a target is listed under: 1 to 128 of `[A-Za-z0-9._-]`, not `.` or `..`.
///
/// Other characters do not survive the path encoding of both Prometheus and vmagent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Alias(String);

impl Alias {
    /// Most characters of an alias.
    pub const MAX_LEN: usize = 128;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Alias {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > Self::MAX_LEN || !text.bytes().all(allowed) || matches!(text, "." | "..") {
            return Err(TargetError::Alias { alias: quoted(text) });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Alias {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Lets a `&str` look up a map keyed by aliases.
impl Borrow<str> for Alias {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Alias {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A target's own labels, sorted by name: at most 32, names `[a-zA-Z_][a-zA-Z0-9_]*`, values up to 1 KiB
/// without control characters.
///
/// Names that begin with `__`, and the ones narthex sets itself (`instance`, `service`, `hostname`, `job`), are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Most labels of a target.
    pub const MAX: usize = 32;
    /// Most bytes of a label's name.
    pub const MAX_NAME_LEN: usize = 128;
    /// Most bytes of a label's value.
    pub const MAX_VALUE_LEN: usize = 1024;
    /// Names set by narthex or Prometheus.
    pub const RESERVED: [&str; 4] = ["instance", "service", "hostname", "job"];

    /// Adds a label, or replaces the value of an existing one.
    ///
    /// # Errors
    /// [`TargetError`] for a name or value that Prometheus or narthex refuses.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<String>) -> Result<(), TargetError> {
        let (name, value) = (name.into(), value.into());
        if name.len() > Self::MAX_NAME_LEN || !is_label_name(&name) {
            return Err(TargetError::LabelName { name: quoted(&name) });
        }
        if name.starts_with("__") || Self::RESERVED.contains(&name.as_str()) {
            return Err(TargetError::LabelReserved { name });
        }
        if value.len() > Self::MAX_VALUE_LEN {
            return Err(TargetError::LabelValue { name, len: value.len() });
        }
        if value.contains(char::is_control) {
            return Err(TargetError::LabelControl { name });
        }
        if self.0.len() == Self::MAX && !self.0.contains_key(&name) {
            return Err(TargetError::TooManyLabels);
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a label.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// A target to register: an alias with its service and labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The target's name, unique in a scraper's table.
    pub alias: Alias,
    /// The kind of service, up to 128 bytes without control characters; may be empty.
    pub service: String,
    /// The target's own labels.
    pub labels: Labels,
    /// False for a target that is scraped by its path and stands in no list, such as an exporter that probes others.
    pub listed: bool,
}

impl Target {
    /// Most bytes of a service or host name.
    pub const MAX_NAME_LEN: usize = 128;

    /// Checks a service or host name: up to 128 bytes, no control characters.
    ///
    /// # Errors
    /// [`TargetError::Name`].
    pub fn check_name(what: &'static str, name: &str) -> Result<(), TargetError> {
        if name.len() > Self::MAX_NAME_LEN || name.chars().any(char::is_control) {
            return Err(TargetError::Name { what, name: quoted(name) });
        }
        Ok(())
    }
}

/// Why a target cannot be listed. Texts from outside are escaped and cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Not an [`Alias`].
    #[error("alias {alias} is not 1 to 128 of A-Z a-z 0-9 . _ -")]
    Alias {
        /// The text, quoted.
        alias: String,
    },
    /// Not a label name that Prometheus takes.
    #[error("label name {name} is not of the form [a-zA-Z_][a-zA-Z0-9_]*, up to 128 characters")]
    LabelName {
        /// The text, quoted.
        name: String,
    },
    /// A name set by narthex or Prometheus.
    #[error("label {name} is reserved: names that begin with __, instance, service, hostname and job cannot be set")]
    LabelReserved {
        /// The name.
        name: String,
    },
    /// A value that is too long.
    #[error("label {name} has a value of {len} bytes: limit is 1024")]
    LabelValue {
        /// The label's name.
        name: String,
        /// Bytes of the value.
        len: usize,
    },
    /// A value with a control character: JSON takes six bytes for one.
    #[error("label {name} has a value with control characters")]
    LabelControl {
        /// The label's name.
        name: String,
    },
    /// More than [`Labels::MAX`].
    #[error("more than 32 labels")]
    TooManyLabels,
    /// A service or host name that is too long or has control characters.
    #[error("{what} {name} is longer than 128 bytes or has control characters")]
    Name {
        /// `service` or `hostname`.
        what: &'static str,
        /// The text, quoted.
        name: String,
    },
}

/// True for `[a-zA-Z_][a-zA-Z0-9_]*`: what every version of Prometheus takes for the name of a label (its documentation,
/// "Metric names and labels").
pub(crate) fn is_label_name(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

/// A stranger's text for a log line: quoted, escaped, cut.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{:?}..", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_that_do_not_survive_a_path_are_refused() {
        for text in ["", ".", "..", "a b", "a/b", "a%2Fb", "a?b", "a:b", "žluť", &"a".repeat(129)] {
            assert!(text.parse::<Alias>().is_err(), "{text}");
        }
        for text in ["a", "...", "web-1.eu_2", &"a".repeat(128)] {
            assert_eq!(text.parse::<Alias>().expect("fine").as_str(), text);
        }
    }

    #[test]
    fn labels_that_prometheus_or_narthex_sets_are_refused() {
        let mut labels = Labels::default();
        for name in ["__address__", "__metrics_path__", "instance", "service", "hostname", "job"] {
            assert!(matches!(labels.insert(name, "x"), Err(TargetError::LabelReserved { .. })), "{name}");
        }
        for name in ["", "1a", "bad-name", "ž", "a b"] {
            assert!(matches!(labels.insert(name, "x"), Err(TargetError::LabelName { .. })), "{name}");
        }
    }

    #[test]
    fn control_characters_in_a_value_are_refused() {
        let mut labels = Labels::default();
        for value in ["\0", "a\nb", "\u{1b}[1m", "\u{7f}", "\u{9b}"] {
            assert_eq!(labels.insert("a", value), Err(TargetError::LabelControl { name: "a".into() }), "{value:?}");
        }
        labels.insert("a", "\u{17e} \"quoted\"").expect("fine");
    }

    #[test]
    fn the_thirty_third_label_is_refused_and_a_repeated_one_is_not() {
        let mut labels = Labels::default();
        for n in 0..Labels::MAX {
            labels.insert(format!("l{n}"), "x").expect("fits");
        }
        assert_eq!(labels.insert("one_more", "x"), Err(TargetError::TooManyLabels));
        labels.insert("l0", "y").expect("replaces");
        assert_eq!(labels.value("l0"), Some("y"));
    }

    #[test]
    fn a_bad_alias_reaches_a_log_escaped_and_cut() {
        let error = format!("a\nlevel=error {}", "x".repeat(500)).parse::<Alias>().expect_err("refused").to_string();
        assert!(!error.contains('\n') && error.len() < 150, "{error}");
    }
}
