//! Several registries over one store behave as one.

use super::*;
use crate::registry::{Entry, Foreign, SharedEvent};

pub(super) mod bucket;

use bucket::Bucket;

fn config() -> RegistryConfig {
    RegistryConfig { slack: LEASE, max_stale: Some(LEASE), ..RegistryConfig::default() }
}

async fn one_scraper() -> (Bucket, Running) {
    let bucket = Bucket::default();
    let running = Running::with(config(), bucket.store()).await;
    (bucket, running)
}

/// Who holds each alias.
type Held = BTreeMap<String, PublicKey>;

fn held(leases: &[Arc<Lease>]) -> Held {
    leases.iter().map(|lease| (lease.alias.to_string(), lease.peer)).collect()
}

fn is_in_both(held_by: &Held, registry: &Registry, bucket: &Bucket) -> bool {
    held(&registry.snapshot().expect("loaded").contents.leases) == *held_by && held(&bucket.leases()) == *held_by
}

#[test]
fn most_renewals_are_not_written_and_no_lease_ends_before_its_time() {
    let began = SystemTime::now();
    let mut table = Table::load(config(), Contents::default(), BTreeSet::new(), began).0;
    let mut written = 0;
    for renewal in 0..10 {
        let now = began + LEASE / 3 * renewal;
        // The pause since the last renewal is no jump of the clock.
        while table.sweep(now).clock.is_some() {}
        let claims = Claims::check(&peer(1), &message(&["a"]), &Scope::default()).expect("fit");
        let (outcomes, effects) = table.register(&registrant(1), claims, |_| Presence::Linked, now);
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
    bucket.fill(&changes);
    let at = changes.iter().map(|foreign| foreign.at).max().unwrap_or(0);
    registry.take_event(SharedEvent { changes, lost: Vec::new(), at, reset: Some(heard_to) }, SystemTime::now());
    registry.flush();
}

#[tokio::test]
async fn a_store_that_was_emptied_is_filled_again_and_one_that_was_set_back_gets_what_is_newer() {
    let (bucket, Running { registry, .. }) = &one_scraper().await;
    register(registry, 1, &["a", "b"]).await.expect("acknowledged");
    let renewed_at = SystemTime::now() + LEASE;
    let newer = Lease { renewed_at, expires_at: renewed_at + LEASE, ..Lease::sample("b") };
    let foreign = foreign(&Name::Alias(newer.alias.clone()), 1, Some(Entry::Lease(Arc::new(newer.clone()))));
    reset(bucket, registry, vec![foreign], 0);
    let both: Held = [("a".to_owned(), peer(1)), ("b".to_owned(), newer.peer)].into();
    let filled = until(|| is_in_both(&both, registry, bucket));
    time::timeout(Duration::from_secs(30), filled).await.expect("what the store lacks is written again");
}

/// Before: a release that another scraper wrote into an emptied store was taken for one from before, and the alias came back.
#[tokio::test]
async fn a_release_that_another_store_has_counts_unless_it_was_heard_of_before() {
    for (heard_to, left) in [(0, vec![]), (7, vec!["a"])] {
        let (bucket, Running { registry, .. }) = &one_scraper().await;
        register(registry, 1, &["a"]).await.expect("acknowledged");
        let name = Name::Alias("a".parse().expect("an alias"));
        reset(bucket, registry, vec![foreign(&name, 7, None)], heard_to);
        let left: Held = left.into_iter().map(|alias: &str| (alias.to_owned(), peer(1))).collect();
        let settled = until(|| is_in_both(&left, registry, bucket));
        time::timeout(Duration::from_secs(30), settled).await.unwrap_or_else(|_| panic!("{left:?} are left"));
    }
}
