//! Text of strangers that can neither forge a line nor steer the terminal of a reader.

use std::{borrow::Cow, fmt::Write as _};

/// `text` with every character that could forge a line or steer a terminal written `\u001b`.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if steers(c) {
            // All of them are in the Basic Multilingual Plane; the same four digits are valid in JSON.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Control characters, line separators, and the marks that nobody sees or that make text read in another order than it is written.
pub(super) fn steers(c: char) -> bool {
    let is_unseen = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    c.is_control() || is_unseen
}
