//! Several registries over one store behave as one.

use std::collections::HashMap;

use proptest::{prelude::*, test_runner::TestRunner};

use super::*;
use crate::registry::{AliasPolicy, Entry, Foreign, Note, SharedEvent, table::Effects};

/// A bucket in memory: of each name its revision and its entry.
#[derive(Clone, Default)]
struct Bucket(Arc<Mutex<Content>>);

#[derive(Default)]
struct Content {
    revision: u64,
    entries: BTreeMap<Name, (u64, Option<Entry>)>,
    watchers: Vec<mpsc::UnboundedSender<Foreign>>,
}

/// The store of one scraper over a bucket, which hears of the others' changes some time later.
struct Shared {
    bucket: Bucket,
    number: usize,
    bases: HashMap<Name, u64>,
    events: Option<mpsc::Receiver<SharedEvent>>,
}

impl Shared {
    fn new(bucket: &Bucket) -> Self {
        let (watcher, mut watched) = mpsc::unbounded_channel::<Foreign>();
        let (sender, events) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Some(foreign) = watched.recv().await {
                let at = foreign.at;
                let event = SharedEvent { changes: vec![foreign], at, ..SharedEvent::default() };
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        });
        let mut content = bucket.0.lock().expect("whole");
        content.watchers.push(watcher);
        let number = content.watchers.len() - 1;
        drop(content);
        Self { bucket: bucket.clone(), number, bases: HashMap::new(), events: Some(events) }
    }
}

impl Store for Shared {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        Ok(Loaded::default())
    }

    fn commit(&mut self, changes: &[Change]) -> Result<Vec<Foreign>, StoreError> {
        let mut content = self.bucket.0.lock().expect("whole");
        let mut overtaken = Vec::new();
        for change in changes {
            let name = change.name();
            let base = self.bases.get(&name).copied().unwrap_or(0);
            let (last, entry) = content.entries.get(&name).cloned().unwrap_or_default();
            if last != base {
                overtaken.push(Foreign { name, entry, base: last, at: last });
                continue;
            }
            let entry = match change {
                Change::Put(lease) => Some(Entry::Lease(Arc::clone(lease))),
                Change::PutBeacon(beacon) => Some(Entry::Beacon(Arc::clone(beacon))),
                Change::Remove(_) | Change::RemoveBeacon(_) => None,
            };
            content.revision += 1;
            let at = content.revision;
            content.entries.insert(name.clone(), (at, entry.clone()));
            self.bases.insert(name.clone(), at);
            for (number, watcher) in content.watchers.iter().enumerate() {
                if number != self.number {
                    let _ = watcher.send(Foreign { name: name.clone(), entry: entry.clone(), base: at, at });
                }
            }
        }
        Ok(overtaken)
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Adopted(Foreign { name, base, .. }) => drop(self.bases.insert(name, base)),
            Note::Reached(_) => {}
            Note::Reset => self.bases.clear(),
        }
    }

    fn shared_events(&mut self) -> Option<mpsc::Receiver<SharedEvent>> {
        self.events.take()
    }
}

/// `max_targets` holds for each scraper's view: what several grant at the same moment may exceed it.
fn config(policy: AliasPolicy, max_targets: usize) -> RegistryConfig {
    RegistryConfig {
        policy,
        start_grace: Duration::ZERO,
        takeover_grace: Duration::ZERO,
        max_targets,
        slack: LEASE,
        max_stale: Some(LEASE),
        ..RegistryConfig::default()
    }
}

async fn group(config: RegistryConfig, size: usize) -> (Bucket, Vec<Running>) {
    let bucket = Bucket::default();
    let mut running = Vec::new();
    for _ in 0..size {
        running.push(Running::with(config.clone(), Shared::new(&bucket)).await);
    }
    (bucket, running)
}

/// Who holds each alias, as a table or a bucket has it.
type Held = BTreeMap<String, PublicKey>;

fn held(registry: &Registry) -> Held {
    let leases = registry.snapshot().expect("loaded").contents.leases;
    leases.iter().map(|lease| (lease.alias.to_string(), lease.peer)).collect()
}

fn stored(bucket: &Bucket) -> Held {
    let content = bucket.0.lock().expect("whole");
    let entries = content.entries.values().filter_map(|(_, entry)| entry.as_ref());
    let leases = entries.filter_map(|entry| match entry {
        Entry::Lease(lease) => Some((lease.alias.to_string(), lease.peer)),
        Entry::Beacon(_) => None,
    });
    leases.collect()
}

async fn settle(bucket: &Bucket, group: &[Running]) {
    let stored = || -> Vec<Arc<Lease>> {
        let content = bucket.0.lock().expect("whole");
        let entries = content.entries.values().filter_map(|(_, entry)| entry.as_ref());
        let leases = entries.filter_map(|entry| match entry {
            Entry::Lease(lease) => Some(Arc::clone(lease)),
            Entry::Beacon(_) => None,
        });
        leases.collect()
    };
    let listed = |running: &Running| running.registry.snapshot().expect("loaded").contents.leases;
    let settled = until(|| group.iter().all(|running| listed(running) == stored()));
    time::timeout(Duration::from_secs(30), settled).await.expect("all tables become that of the bucket");
}

/// One thing that a client does at one of the scrapers.
#[derive(Clone, Debug)]
enum Step {
    Register { peer: usize, aliases: Vec<&'static str>, kept: bool },
    Release { peer: usize },
}

/// What a step was answered: its outcomes, or how many aliases were released.
type Answer = Result<Vec<AliasOutcome>, usize>;

/// The answer without what is only for information: a step that was decided twice finds granted what it was granted at first.
fn granted(answer: Answer) -> Option<Vec<AliasOutcome>> {
    let plain = |outcome| match outcome {
        AliasOutcome::Granted { .. } => RENEWED,
        refused => refused,
    };
    Some(answer.ok()?.into_iter().map(plain).collect())
}

fn step() -> impl Strategy<Value = Step> {
    let aliases = proptest::sample::subsequence(vec!["a", "b", "c", "d", "e"], 0..4);
    prop_oneof![
        4 => (0..3_usize, aliases, any::<bool>()).prop_map(|(peer, aliases, kept)| Step::Register { peer, aliases, kept }),
        1 => (0..3_usize).prop_map(|peer| Step::Release { peer }),
    ]
}

/// The third peer is not linked to any scraper.
fn presence(of: &PublicKey) -> Presence {
    if *of == peer(2) { Presence::Unseen } else { Presence::Linked }
}

async fn apply(registry: &Registry, step: &Step, now: SystemTime) -> Answer {
    match step {
        Step::Register { peer, aliases, kept } => {
            let by = Registrant { kept: Some(*kept), ..registrant(*peer) };
            let registered = registry.register(&by, &message(aliases), presence, now).await;
            Ok(registered.expect("acknowledged").outcomes)
        }
        Step::Release { peer: by } => Err(registry.release_peer(peer(*by), now).await.expect("acknowledged")),
    }
}

/// The same in a table of its own: what one scraper alone would do.
fn apply_alone(table: &mut Table, step: &Step, now: SystemTime) -> Answer {
    match step {
        Step::Register { peer: by, aliases, kept } => {
            let registrant = Registrant { kept: Some(*kept), ..registrant(*by) };
            let claims = Claims::check(&peer(*by), &message(aliases)).expect("fit");
            Ok(table.register(&registrant, claims, presence, now).0)
        }
        Step::Release { peer: by } => {
            let Effects { events, .. } = table.release_peer(&peer(*by), now);
            Err(events.len())
        }
    }
}

fn alone(config: RegistryConfig, now: SystemTime) -> Table {
    Table::load(config, Contents::default(), BTreeSet::new(), now).0
}

fn held_alone(table: &Table) -> Held {
    table.leases().iter().map(|lease| (lease.alias.to_string(), lease.peer)).collect()
}

fn policies() -> impl Strategy<Value = AliasPolicy> {
    proptest::sample::select(vec![AliasPolicy::Live, AliasPolicy::Pinned, AliasPolicy::Overwrite])
}

fn check<S: Strategy>(strategy: S, test: impl Fn(S::Value, &tokio::runtime::Runtime))
where
    S::Value: std::fmt::Debug + Clone,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("builds");
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    let run = TestRunner::new(config).run(&strategy, |value| {
        test(value, &runtime);
        Ok(())
    });
    run.expect("holds");
}

#[test]
fn scrapers_that_hear_of_each_other_answer_as_one_scraper_would() {
    let steps = proptest::collection::vec((0..3_usize, step()), 1..12);
    check((policies(), steps), |(policy, steps), runtime| {
        runtime.block_on(async {
            let now = SystemTime::now();
            let (bucket, group) = group(config(policy, 4), 3).await;
            let mut model = alone(config(policy, 4), now);
            for (at, step) in steps {
                let answer = apply(&group[at].registry, &step, now).await;
                assert_eq!(answer, apply_alone(&mut model, &step, now), "{step:?}");
                settle(&bucket, &group).await;
                assert_eq!(stored(&bucket), held_alone(&model));
            }
            for running in group {
                running.stop().await;
            }
        });
    });
}

/// A claim of one alias by a key that holds nothing. (Of several aliases each is decided by itself: a scraper may know of one change
/// of a registration elsewhere and not yet of the next.)
fn claim(peer: usize) -> impl Strategy<Value = Step> {
    let alias = proptest::sample::select(vec!["a", "b"]);
    (alias, any::<bool>()).prop_map(move |(alias, kept)| Step::Register { peer, aliases: vec![alias], kept })
}

#[test]
fn of_two_keys_that_claim_at_once_at_two_scrapers_both_are_answered_as_if_one_came_first() {
    // By the key without a link, from which others may take an alias.
    let before = proptest::collection::vec(claim(2), 0..2);
    check((policies(), before, claim(0), claim(1)), |(policy, before, one, two), runtime| {
        runtime.block_on(async {
            let now = SystemTime::now();
            let (bucket, group) = group(config(policy, 100), 2).await;
            for step in &before {
                let _ = apply(&group[0].registry, step, now).await;
            }
            settle(&bucket, &group).await;
            let (first, second) =
                tokio::join!(apply(&group[0].registry, &one, now), apply(&group[1].registry, &two, now));
            settle(&bucket, &group).await;
            let result = (granted(first), granted(second), stored(&bucket));
            let in_order = |one_first: bool| {
                let mut model = alone(config(policy, 100), now);
                before.iter().for_each(|step| drop(apply_alone(&mut model, step, now)));
                let (first, second) = if one_first {
                    let first = apply_alone(&mut model, &one, now);
                    (first, apply_alone(&mut model, &two, now))
                } else {
                    let second = apply_alone(&mut model, &two, now);
                    (apply_alone(&mut model, &one, now), second)
                };
                (granted(first), granted(second), held_alone(&model))
            };
            let orders = [in_order(true), in_order(false)];
            assert!(
                orders.contains(&result),
                "{one:?} and {two:?} after {before:?}: {result:?}, neither of {orders:?}"
            );
            for running in group {
                running.stop().await;
            }
        });
    });
}

#[test]
fn most_renewals_are_not_written_and_no_lease_ends_before_its_time() {
    let began = SystemTime::now();
    let mut table = alone(config(AliasPolicy::Live, 100), began);
    let mut written = 0;
    for renewal in 0..10 {
        let now = began + LEASE / 3 * renewal;
        // The pause since the last renewal is no jump of the clock.
        while table.sweep(now).clock.is_some() {}
        let claims = Claims::check(&peer(1), &message(&["a"])).expect("fit");
        let (outcomes, effects) = table.register(&registrant(1), claims, presence, now);
        assert!(matches!(outcomes[..], [AliasOutcome::Granted { .. }]));
        written += effects.changes.len();
        let lease = table.lookup("a").expect("held");
        assert!(lease.expires_at >= now + LEASE, "renewal {renewal}");
    }
    assert!((2..=4).contains(&written), "{written} of 10 were written");
}

fn foreign(name: &Name, revision: u64, entry: Option<Entry>) -> Foreign {
    Foreign { name: name.clone(), entry, base: revision, at: revision }
}

/// The store is another one, with this content.
fn reset(bucket: &Bucket, registry: &Registry, changes: Vec<Foreign>, heard_to: u64) {
    let entries = changes.iter().map(|Foreign { name, entry, at, .. }| (name.clone(), (*at, entry.clone())));
    bucket.0.lock().expect("whole").entries = entries.collect();
    let at = changes.iter().map(|foreign| foreign.at).max().unwrap_or(0);
    registry.take_event(SharedEvent { changes, lost: Vec::new(), at, reset: Some(heard_to) }, SystemTime::now());
    registry.flush();
}

#[tokio::test]
async fn a_store_that_was_emptied_is_filled_again_and_one_that_was_set_back_gets_what_is_newer() {
    let (bucket, group) = group(config(AliasPolicy::Live, 100), 1).await;
    let registry = &group[0].registry;
    register(registry, 1, &["a", "b"]).await.expect("acknowledged");
    let renewed_at = SystemTime::now() + LEASE;
    let newer = Lease { renewed_at, expires_at: renewed_at + LEASE, ..Lease::sample("b") };
    let foreign = foreign(&Name::Alias(newer.alias.clone()), 1, Some(Entry::Lease(Arc::new(newer.clone()))));
    reset(&bucket, registry, vec![foreign], 0);
    let both: Held = [("a".to_owned(), peer(1)), ("b".to_owned(), newer.peer)].into();
    let filled = until(|| held(registry) == both && stored(&bucket) == both);
    time::timeout(Duration::from_secs(30), filled).await.expect("what the store lacks is written again");
}

/// Before: a release that another scraper wrote into an emptied store was taken for one from before, and the alias came back.
#[tokio::test]
async fn a_release_that_another_store_has_counts_unless_it_was_heard_of_before() {
    for (heard_to, left) in [(0, vec![]), (7, vec!["a"])] {
        let (bucket, group) = group(config(AliasPolicy::Live, 100), 1).await;
        let registry = &group[0].registry;
        register(registry, 1, &["a"]).await.expect("acknowledged");
        let name = Name::Alias("a".parse().expect("an alias"));
        reset(&bucket, registry, vec![foreign(&name, 7, None)], heard_to);
        let left: Held = left.into_iter().map(|alias: &str| (alias.to_owned(), peer(1))).collect();
        let settled = until(|| held(registry) == left && stored(&bucket) == left);
        time::timeout(Duration::from_secs(30), settled).await.unwrap_or_else(|_| panic!("{left:?} are left"));
    }
}
