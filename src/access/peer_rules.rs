//! Which keys may register, and what each may hold: a file of lines that an operator writes, or `narthex peer` does.
//!
//! ```text
//! allow <key> [pattern..]    may register, these aliases alone if there is a pattern
//! allow *     [pattern..]    the same for all keys without a line of their own
//! block <key>                may not register
//! ```
//!
//! With one `allow`, keys without a line are refused; else they are free. What follows a `#` is for people.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use super::AliasGlob;
use crate::identity::PublicKey;

/// What a key may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Register these aliases, or all if there is no pattern.
    Allow(Arc<[AliasGlob]>),
    Block,
}

/// The rules of a file. The default has none: every key is free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerRules {
    keys: BTreeMap<PublicKey, Rule>,
    /// For keys without a rule of their own.
    others: Option<Arc<[AliasGlob]>>,
}

/// A line that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct PeerRulesError {
    /// From 1.
    pub line: usize,
    why: &'static str,
}

impl PeerRules {
    /// Reads the text of a file.
    pub(crate) fn parse(text: &str) -> Result<Self, PeerRulesError> {
        let mut rules = Self::default();
        for (number, line) in text.lines().enumerate() {
            let refuse = |why| PeerRulesError { line: number + 1, why };
            let Some((key, rule)) = parse_line(line).map_err(refuse)? else { continue };
            let is_new = match (key, rule) {
                (Some(key), rule) => rules.keys.insert(key, rule).is_none(),
                (None, Rule::Allow(globs)) => rules.others.replace(globs).is_none(),
                (None, Rule::Block) => {
                    return Err(refuse("block * would shut everybody out: one allow does that for all others"));
                }
            };
            if !is_new {
                return Err(refuse("the key has a line already"));
            }
        }
        Ok(rules)
    }

    /// What the key may hold: all aliases, those of some patterns, or, if it may not register, an error.
    pub(crate) fn of(&self, key: &PublicKey) -> Result<Option<Arc<[AliasGlob]>>, Blocked> {
        let some = |globs: &Arc<[AliasGlob]>| (!globs.is_empty()).then(|| Arc::clone(globs));
        match (self.keys.get(key), &self.others) {
            (Some(Rule::Block), _) => Err(Blocked),
            (Some(Rule::Allow(globs)), _) | (None, Some(globs)) => Ok(some(globs)),
            (None, None) if self.is_allow_list() => Err(Blocked),
            (None, None) => Ok(None),
        }
    }

    /// The rules of single keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&PublicKey, &Rule)> {
        self.keys.iter()
    }

    /// What keys without a line may hold, if the file says so.
    pub(crate) fn others(&self) -> Option<&[AliasGlob]> {
        self.others.as_deref()
    }

    /// True if a key without a line is refused, or held to what the file says of all others.
    pub(crate) fn is_allow_list(&self) -> bool {
        self.others.is_some() || self.keys.values().any(|rule| matches!(rule, Rule::Allow(_)))
    }
}

/// The key may not register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocked;

/// The text of a file with this rule for the key, in the place of the one that it had; nothing else changes.
pub(super) fn with_rule(text: &str, key: &PublicKey, rule: &Rule) -> String {
    let mut changed = String::with_capacity(text.len() + 100);
    let is_of_key = |line: &&str| matches!(parse_line(line), Ok(Some((Some(of), _))) if of == *key);
    for line in text.lines().filter(|line| !is_of_key(line)) {
        changed.push_str(line);
        changed.push('\n');
    }
    let written = match rule {
        Rule::Block => writeln!(changed, "block {key}"),
        Rule::Allow(globs) => {
            let globs: String = globs.iter().map(|glob| format!(" {glob}")).collect();
            writeln!(changed, "allow {key}{globs}")
        }
    };
    written.expect("written to memory");
    changed
}

/// The rule of a line, and its key, or none for all others.
fn parse_line(line: &str) -> Result<Option<(Option<PublicKey>, Rule)>, &'static str> {
    let line = line.split_once('#').map_or(line, |(line, _)| line);
    let mut words = line.split_whitespace();
    let Some(verb) = words.next() else { return Ok(None) };
    if !["allow", "block"].contains(&verb) {
        return Err("a line begins with allow or block");
    }
    let key = match words.next().ok_or("a key is missing")? {
        "*" => None,
        key => Some(key.parse().map_err(|_| "the second word is no public key")?),
    };
    let globs = words.map(|word| word.parse().map_err(|_| "a pattern of aliases has A-Z a-z 0-9 . _ - * ? alone"));
    let globs: Arc<[AliasGlob]> = globs.collect::<Result<_, _>>()?;
    match verb {
        "allow" => Ok(Some((key, Rule::Allow(globs)))),
        _ if globs.is_empty() => Ok(Some((key, Rule::Block))),
        _ => Err("block takes no pattern"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyPair;

    fn key() -> PublicKey {
        KeyPair::generate().public()
    }

    #[test]
    fn a_block_alone_leaves_others_free_and_an_allow_shuts_them_out() {
        let (bad, good, other) = (key(), key(), key());
        let rules = PeerRules::parse(&format!("# people\n\nblock {bad} # gone\n")).expect("rules");
        assert_eq!((rules.of(&bad), rules.of(&other)), (Err(Blocked), Ok(None)));
        let rules = PeerRules::parse(&format!("block {bad}\nallow {good} db-* web\n")).expect("rules");
        assert_eq!((rules.of(&bad), rules.of(&other)), (Err(Blocked), Err(Blocked)));
        assert_eq!(rules.of(&good).expect("allowed").map(|globs| globs.len()), Some(2));
        let rules = PeerRules::parse(&format!("allow {good}\nallow * guest-*\nblock {bad}")).expect("rules");
        assert_eq!((rules.of(&good), rules.of(&bad)), (Ok(None), Err(Blocked)));
        assert_eq!(rules.of(&other).expect("allowed").map(|globs| globs[0].to_string()), Some("guest-*".to_owned()));
    }

    #[test]
    fn what_is_no_rule_is_refused_with_its_line() {
        let key = key();
        let twice = format!("block {key}\nallow {key}");
        let cases = [
            "allow",
            "permit x",
            "block zzz",
            "block *",
            "allow * a b/c",
            &format!("block {key} a"),
            &twice,
            "allow *\nallow *",
        ];
        for (case, line) in cases.into_iter().zip([1, 1, 1, 1, 1, 1, 2, 2]) {
            assert_eq!(PeerRules::parse(case).expect_err(case).line, line, "{case}");
        }
    }

    #[test]
    fn a_new_rule_takes_the_place_of_the_old_one_and_leaves_the_rest() {
        let (a, b) = (key(), key());
        let text = format!("# kept\nblock {a} # was bad\nallow {b} x\n");
        let changed = with_rule(&text, &a, &Rule::Allow(["y-*".parse().expect("a pattern")].into()));
        assert_eq!(changed, format!("# kept\nallow {b} x\nallow {a} y-*\n"));
        assert_eq!(with_rule("", &a, &Rule::Block), format!("block {a}\n"));
    }
}
