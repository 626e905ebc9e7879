//! The policy against a model that says in a few lines what it must do.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    access::{AliasGlob, Grant},
    identity::KeyPair,
};

const KEYS: u8 = 3;
const SECRETS: u8 = 4;
const ALIASES: [&str; 4] = ["a-1", "a-2", "b-1", "b"];
const GLOBS: [&str; 5] = ["a-*", "b*", "?-1", "b", "*"];

fn key(number: u8) -> PublicKey {
    KeyPair::from_seed(&[number + 1; 32]).public()
}

fn secret(number: u8) -> SharedSecret {
    SharedSecret::from_bytes([number + 1; 32])
}

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + second)
}

/// A secret as a test writes it down: patterns by their places in [`GLOBS`], times in seconds.
#[derive(Clone, Debug)]
struct Given {
    number: u8,
    globs: Vec<usize>,
    not_before: Option<u64>,
    not_after: Option<u64>,
}

/// The lines of a peer file.
#[derive(Clone, Debug)]
enum Line {
    Allow(u8, Vec<usize>),
    AllowOthers(Vec<usize>),
    Block(u8),
}

fn globs() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..GLOBS.len(), 0..3)
}

fn given() -> impl Strategy<Value = Vec<Given>> {
    let one = (0..SECRETS, globs(), prop::option::of(0..4u64), prop::option::of(0..6u64));
    let one = one.prop_map(|(number, globs, not_before, not_after)| Given { number, globs, not_before, not_after });
    prop::collection::vec(one, 0..4).prop_map(|mut given| {
        given.sort_by_key(|given| given.number);
        given.dedup_by_key(|given| given.number);
        given
    })
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    let line = prop_oneof![
        (0..KEYS, globs()).prop_map(|(key, globs)| Line::Allow(key, globs)),
        (0..KEYS).prop_map(Line::Block),
        globs().prop_map(Line::AllowOthers),
    ];
    let of = |line: &Line| match line {
        Line::Allow(key, _) | Line::Block(key) => Some(*key),
        Line::AllowOthers(_) => None,
    };
    prop::collection::vec(line, 0..4).prop_map(move |mut lines| {
        lines.sort_by_key(of);
        lines.dedup_by_key(|line| of(line));
        lines
    })
}

fn parsed(globs: &[usize]) -> Vec<AliasGlob> {
    globs.iter().map(|glob| GLOBS[*glob].parse().expect("a pattern")).collect()
}

fn text(lines: &[Line]) -> String {
    let words = |globs: &[usize]| globs.iter().map(|glob| format!(" {}", GLOBS[*glob])).collect::<String>();
    let line = |line: &Line| match line {
        Line::Allow(number, globs) => format!("allow {}{}\n", key(*number), words(globs)),
        Line::AllowOthers(globs) => format!("allow *{}\n", words(globs)),
        Line::Block(number) => format!("block {}\n", key(*number)),
    };
    lines.iter().map(line).collect()
}

fn named(given: &Given) -> NamedSecret {
    let scope = Scope { aliases: parsed(&given.globs), ..Scope::default() };
    let name = format!("secret-{}", given.number).parse().expect("a name");
    NamedSecret {
        scope,
        not_before: given.not_before.map(at),
        not_after: given.not_after.map(at),
        ..NamedSecret::new(name, secret(given.number))
    }
}

/// What patterns mean, written out for the four aliases.
fn fits(glob: usize, alias: &str) -> bool {
    match GLOBS[glob] {
        "a-*" => alias.starts_with("a-"),
        "b*" => alias.starts_with('b'),
        "?-1" => alias == "a-1" || alias == "b-1",
        "b" => alias == "b",
        _ => true,
    }
}

fn within(globs: &[usize], alias: &str) -> bool {
    globs.is_empty() || globs.iter().any(|glob| fits(*glob, alias))
}

/// The model of the rules for keys.
fn may_key(lines: &[Line], who: u8, alias: &str) -> bool {
    let own = lines.iter().find(|line| matches!(line, Line::Allow(key, _) | Line::Block(key) if *key == who));
    let others = lines.iter().find(|line| matches!(line, Line::AllowOthers(_)));
    let only_some = lines.iter().any(|line| matches!(line, Line::Allow(..)));
    match own.or(others) {
        Some(Line::Block(_)) => false,
        Some(Line::Allow(_, globs) | Line::AllowOthers(globs)) => within(globs, alias),
        None => !only_some,
    }
}

/// The model: may this key register this alias with this secret at this second?
fn may(given: &[Given], lines: &[Line], who: u8, number: u8, alias: &str, second: u64) -> bool {
    let by_secret = given.iter().find(|given| given.number == number).is_some_and(|given| {
        given.not_before.is_none_or(|from| from <= second)
            && given.not_after.is_none_or(|until| second < until)
            && within(&given.globs, alias)
    });
    may_key(lines, who, alias) && by_secret
}

fn policy(given: &[Given], lines: &[Line], dir: &tempfile::TempDir) -> Policy {
    let secrets = Secrets::open(given.iter().map(named).collect(), dir.path()).expect("opens");
    Policy::new(secrets, PeerRules::parse(&text(lines)).expect("rules"))
}

fn admits(policy: &Policy, who: u8, number: u8, alias: &Alias, second: u64) -> bool {
    let (id, key, now) = (secret(number).id(), key(who), at(second));
    let scope = wait(policy.admit(id, &key, now));
    assert_eq!(policy.find(id, &key, now).is_ok(), scope.is_ok(), "both questions have one answer");
    scope.is_ok_and(|scope| scope.admits(alias))
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Each key with each secret and each alias, before and after a reload: what may be registered is what may stay.
    #[test]
    fn nobody_registers_or_keeps_what_the_model_forbids(
        before in (given(), lines()), after in (given(), lines()), second in 0..6u64,
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let policy = policy(&before.0, &before.1, &dir);
        let mut ours = BTreeSet::new();
        for (given, lines) in [before, after] {
            let secrets = given.iter().map(named).collect();
            wait(policy.replace(secrets, PeerRules::parse(&text(&lines)).expect("rules"))).expect("names of their own");
            ours.extend(given.iter().map(|given| given.number));
            for (who, number) in (0..KEYS).flat_map(|who| (0..SECRETS).map(move |number| (who, number))) {
                for alias in ALIASES {
                    let wanted = may(&given, &lines, who, number, alias, second);
                    let alias: Alias = alias.parse().expect("an alias");
                    prop_assert_eq!(admits(&policy, who, number, &alias, second), wanted);
                    let stays = policy.permits(&key(who), Some(secret(number).id()), &alias, at(second));
                    let is_elsewhere = !ours.contains(&number) && may_key(&lines, who, alias.as_str());
                    prop_assert_eq!(stays, wanted || is_elsewhere);
                }
            }
        }
    }
}

#[tokio::test]
async fn only_what_was_ours_is_ended_also_after_a_start_without_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ours, theirs, alias) = (secret(0), secret(1), "a".parse().expect("an alias"));
    let start = |secrets| Policy::new(Secrets::open(secrets, dir.path()).expect("opens"), PeerRules::default());
    let stays = |policy: &Policy| {
        [&ours, &theirs].map(|secret| policy.permits(&key(0), Some(secret.id()), &alias, SystemTime::now()))
    };
    let policy = start(vec![ours.clone().into()]);
    assert_eq!(stays(&policy), [true, true]);
    policy.replace(Vec::new(), PeerRules::default()).await.expect("nothing is named");
    assert_eq!(stays(&policy), [false, true]);
    let policy = start(Vec::new());
    assert_eq!(stays(&policy), [false, true], "what ended is known after a crash");
    policy.secrets().forget_former().await.expect("is written");
    assert_eq!(stays(&policy), [false, true]);
    assert_eq!(stays(&start(Vec::new())), [true, true], "nothing was left of it");
}

#[tokio::test]
async fn a_ticket_that_ended_is_known_after_a_crash() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = || Policy::new(Secrets::open(Vec::new(), dir.path()).expect("opens"), PeerRules::default());
    let (name, alias) = ("a".parse().expect("a name"), "a".parse().expect("an alias"));
    let policy = start();
    let id = policy.secrets().issue(Grant::of_everything(name), at(0)).await.expect("is written").id();
    let stays = |policy: &Policy| policy.permits(&key(0), Some(id), &alias, at(0));
    assert!(stays(&policy) && stays(&start()));
    policy.revoke(&"a".parse().expect("a name")).await.disk.expect("is removed");
    assert!(!stays(&policy) && !stays(&start()));
}

#[tokio::test]
async fn a_ticket_and_the_rule_of_a_key_both_bound_the_aliases() {
    let dir = tempfile::tempdir().expect("a directory");
    let rules = PeerRules::parse(&format!("allow {} *-1\nallow *", key(0))).expect("rules");
    let secrets = Secrets::open(Vec::new(), dir.path()).expect("opens");
    let policy = Policy::new(secrets, rules);
    let scope = Scope { aliases: vec!["a-*".parse().expect("a pattern")], ..Scope::default() };
    let grant = Grant { scope, ..Grant::of_everything("a".parse().expect("a name")) };
    let id = policy.secrets().issue(grant, at(0)).await.expect("is written").id();
    let [bound, free] = [policy.admit(id, &key(0), at(0)).await, policy.admit(id, &key(1), at(0)).await]
        .map(|scope| ALIASES.map(|alias| scope.clone().expect("may").admits(&alias.parse().expect("an alias"))));
    assert_eq!((bound, free), ([true, false, false, false], [true, true, false, false]));
}
