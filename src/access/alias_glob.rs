//! Patterns of aliases: `db-*` is every alias that begins with `db-`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An alias with `*` for any characters, or none, and `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AliasGlob(String);

/// Most characters: those of an alias.
const MAX_LEN: usize = 128;

impl AliasGlob {
    /// True if the pattern fits all of the alias. Takes at most the product of both lengths in steps.
    pub(crate) fn fits(&self, alias: &str) -> bool {
        let (pattern, alias) = (self.0.as_bytes(), alias.as_bytes());
        let (mut p, mut a) = (0, 0);
        // Where to go on if what follows the last star does not fit: the star, and what it takes up so far.
        let mut star = None;
        while a < alias.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, a));
                    p += 1;
                }
                Some(c) if *c == b'?' || *c == alias[a] => (p, a) = (p + 1, a + 1),
                _ => {
                    let Some((at, taken)) = star else { return false };
                    star = Some((at, taken + 1));
                    (p, a) = (at + 1, taken + 1);
                }
            }
        }
        pattern[p..].iter().all(|c| *c == b'*')
    }
}

/// Why a text is not a pattern of aliases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an alias, in which * stands for any characters and ? for one")]
pub(crate) struct AliasGlobError;

impl FromStr for AliasGlob {
    type Err = AliasGlobError;

    fn from_str(text: &str) -> Result<Self, AliasGlobError> {
        let is_fit = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'*' | b'?');
        match (1..=MAX_LEN).contains(&text.len()) && text.bytes().all(is_fit) {
            true => Ok(Self(text.to_owned())),
            false => Err(AliasGlobError),
        }
    }
}

impl fmt::Display for AliasGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for AliasGlob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AliasGlob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a pattern means, as it is told: a star is nothing, or a character and a star.
    fn means(pattern: &[u8], alias: &[u8]) -> bool {
        match (pattern.split_first(), alias.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), None) => means(rest, alias),
            (Some((b'*', rest)), Some((_, after))) => means(rest, alias) || means(pattern, after),
            (Some((c, rest)), Some((first, after))) => (*c == b'?' || c == first) && means(rest, after),
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_pattern_fits_what_it_means(pattern in "[ab*?]{1,8}", alias in "[ab]{1,10}") {
            let glob: AliasGlob = pattern.parse().expect("a pattern");
            prop_assert_eq!(glob.fits(&alias), means(pattern.as_bytes(), alias.as_bytes()));
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "a b", "a/b", "[a-z]", "a,b", &"a".repeat(129)] {
            assert_eq!(text.parse::<AliasGlob>(), Err(AliasGlobError), "{text}");
        }
    }
}
