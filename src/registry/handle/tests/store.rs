//! A store that fails, is damaged, or panics.

use super::*;
use crate::telemetry::Chain;

#[tokio::test]
async fn a_failing_store_acknowledges_nothing_until_a_write_works_again() {
    let (store, running) = Running::start().await;
    let registry = &running.registry;
    store.set(Mode::Fails);
    assert!(matches!(register(registry, 1, &["a"]).await, Err(RegistryError::Store(_))));
    assert!(registry.store_failing());
    assert!(matches!(register(registry, 2, &["b"]).await, Err(RegistryError::StoreFailing)));
    assert_eq!((registry.lookup("b"), store.lease("a")), (Ok(None), None));
    assert!(registry.totals().store_failures > 0);

    store.set(Mode::Works);
    registry.flush();
    until(|| !registry.store_failing()).await;
    assert!(store.lease("a").is_some(), "what the table holds is owed to the disk");
    assert_eq!(register(registry, 1, &["a"]).await.expect("acknowledged"), [RENEWED]);
    assert_eq!(register(registry, 2, &["b"]).await.expect("acknowledged"), [UPDATED]);
}

/// Before: a disk that ended no write for 35 s was no failure, and a shutdown waited as long.
#[tokio::test]
async fn a_store_that_hangs_fails_until_its_write_has_ended() {
    let (store, running) = Running::start().await;
    let registry = &running.registry;
    let now = SystemTime::now();
    register_at(registry, 1, &["a"], now).await.expect("acknowledged");
    store.set(Mode::Blocks);
    let before = store.attempts();
    let waiting = tokio::spawn({
        let registry = registry.clone();
        async move { register(&registry, 2, &["b"]).await }
    });
    until(|| store.attempts() > before).await;
    registry.shared.health.watch(Instant::now());
    assert!(!registry.store_failing(), "a write may take a moment");
    registry.shared.health.watch(Instant::now() + HANGS_AFTER);
    assert!(registry.store_failing() && registry.totals().store_failures == 1);
    assert!(matches!(register(registry, 3, &["c"]).await, Err(RegistryError::StoreFailing)));
    let later = now + Duration::from_secs(1);
    assert_eq!(register_at(registry, 1, &["a"], later).await.expect("renewed"), [RENEWED]);
    store.set(Mode::Works);
    waiting.await.expect("no panic").expect("acknowledged");
    until(|| !registry.store_failing()).await;
    register(registry, 3, &["c"]).await.expect("acknowledged");
    assert!(store.lease("a").is_some_and(|a| a.renewed_at < later), "renewals would pile up in the queue");
}

#[tokio::test(start_paused = true)]
async fn the_end_does_not_wait_for_ever_for_a_store_that_hangs() {
    let (store, running) = Running::start().await;
    store.set(Mode::Blocks);
    running.stop.cancel();
    let ended = running.task.await.expect("no panic");
    assert!(matches!(ended, Err(RegistryError::Hanging(_))), "{ended:?}");
    store.set(Mode::Works);
}

#[tokio::test]
async fn while_the_store_fails_leases_are_renewed_and_none_ends() {
    let (store, running) = Running::start().await;
    let registry = &running.registry;
    let now = SystemTime::now();
    register_at(registry, 1, &["a", "b"], now).await.expect("acknowledged");
    register_at(registry, 2, &["c"], now).await.expect("acknowledged");
    store.set(Mode::Fails);
    assert!(matches!(register(registry, 3, &["d"]).await, Err(RegistryError::Store(_))));

    let late = now + LEASE + RETENTION;
    registry.sweep(|| late);
    assert_eq!((registry.totals().lapsed, registry.totals().gone), (0, 0));
    assert_eq!(register_at(registry, 1, &["a", "b"], late).await.expect("acknowledged"), [RENEWED, RENEWED]);
    assert_eq!(registry.lookup("a").expect("loaded").expect("listed").expires_at, late + LEASE);
    let more = register_at(registry, 2, &["c", "e"], late).await;
    assert!(matches!(more, Err(RegistryError::StoreFailing)));
    assert_eq!(registry.lookup("c").expect("loaded").expect("listed").expires_at, late + LEASE);
    assert!(matches!(register(registry, 1, &["a"]).await, Err(RegistryError::StoreFailing)), "b cannot be released");
    let unwritten = register_at(registry, 3, &["d"], late).await;
    assert!(matches!(unwritten, Err(RegistryError::StoreFailing)), "a restart would not know it");
    registry.release(&"a".parse().expect("an alias")).await.expect_err("the store fails");

    store.set(Mode::Works);
    registry.flush();
    until(|| !registry.store_failing()).await;
    assert_eq!(store.lease("c").expect("stored").expires_at, late + LEASE);
    assert_eq!(register_at(registry, 3, &["d"], late).await.expect("acknowledged"), [RENEWED]);
}

#[tokio::test]
async fn renewals_while_the_store_fails_are_kept_once_an_alias_and_do_not_try_it_each() {
    let (store, running) = Running::start().await;
    let registry = &running.registry;
    register(registry, 1, &["a", "b"]).await.expect("acknowledged");
    store.set(Mode::Fails);
    register(registry, 2, &["c"]).await.expect_err("the store fails");
    for _ in 0..1000 {
        register(registry, 1, &["a", "b"]).await.expect("acknowledged");
    }
    let before = store.attempts();
    store.set(Mode::Works);
    registry.flush();
    until(|| !registry.store_failing()).await;
    assert!(before < 100, "{before} attempts");
    assert_eq!(store.0.0.lock().expect("whole").changes, 3);
}

#[tokio::test]
async fn after_damage_the_table_takes_registrations_but_counts_as_incomplete() {
    let store = Fake::damaged();
    let running = Running::on(store.clone()).await;
    let registry = running.registry.clone();
    assert!(registry.is_loaded() && !registry.is_complete());
    assert_eq!(registry.totals().store_damaged, 1);
    assert_eq!(register(&registry, 1, &["a"]).await.expect("acknowledged"), [UPDATED]);
    assert!(!registry.is_complete());
    running.stop().await;
    assert_eq!(store.checkpoints(), 0, "the next start must know of the damage too");
}

#[tokio::test]
async fn after_the_grace_a_table_that_was_damaged_counts_as_complete() {
    let store = Fake::damaged();
    let grace = Duration::from_millis(20);
    let config = RegistryConfig { lease: grace, start_grace: grace, ..RegistryConfig::default() };
    let running = Running::with(config, store.clone()).await;
    let registry = running.registry.clone();
    until(|| registry.is_complete()).await;
    running.stop().await;
    assert!(store.checkpoints() >= 1);
}

#[tokio::test]
async fn a_whole_store_is_complete_at_once_and_not_noted_at_every_write() {
    let (store, running) = Running::start().await;
    let registry = running.registry.clone();
    assert!(registry.is_complete() && registry.totals().store_damaged == 0);
    for n in 0..100 {
        register(&registry, n, &[&format!("a{n}")]).await.expect("acknowledged");
    }
    assert!(store.checkpoints() < 50);
    running.stop().await;
    assert!(store.checkpoints() >= 1);
}

#[test]
fn the_grace_after_damage_lets_every_client_renew() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let grace = |lease, start_grace| RegistryConfig { lease, start_grace, ..Default::default() }.damage_grace();
    assert_eq!((grace(minutes(9), minutes(1)), grace(minutes(9), minutes(5))), (minutes(3), minutes(5)));
}

#[tokio::test]
async fn a_store_that_cannot_be_read_ends_the_run_and_lists_nothing() {
    let store = Fake::default();
    store.set(Mode::Unreadable);
    let registry = Registry::new(RegistryConfig::default(), Arc::new(Refusals::new()));
    let end = registry.run(Box::new(store.clone()), CancellationToken::new()).await;
    assert!(matches!(end, Err(RegistryError::Store(_))));
    assert!(!registry.is_loaded());
    let again = registry.run(Box::new(store), CancellationToken::new()).await;
    assert!(matches!(again, Err(RegistryError::AlreadyRunning)));
}

#[tokio::test]
async fn a_store_that_panics_is_a_failure_and_works_again() {
    let (store, running) = Running::start().await;
    store.set(Mode::Panics);
    let error = register(&running.registry, 1, &["a"]).await.expect_err("the store panics");
    assert!(Chain(&error).to_string().contains("a panic on purpose"), "{error:?}");
    assert!(running.registry.store_failing());
    store.set(Mode::Works);
    until(|| !running.registry.store_failing()).await;
    assert_eq!(register(&running.registry, 1, &["a"]).await.expect("acknowledged"), [RENEWED]);
    running.stop().await;
}

#[tokio::test]
async fn a_store_that_cannot_be_written_at_the_start_serves_what_was_read() {
    let store = Fake::default();
    let now = SystemTime::now();
    let running = Running::on(store.clone()).await;
    register_at(&running.registry, 1, &["a"], now).await.expect("acknowledged");
    running.stop().await;
    store.set(Mode::Fails);
    let running = Running::on(store.clone()).await;
    let registry = &running.registry;
    assert!(registry.lookup("a").expect("loaded").is_some());
    assert!(registry.store_failing() && registry.is_complete());
    assert!(matches!(register(registry, 2, &["b"]).await, Err(RegistryError::StoreFailing)));
    assert_eq!(register_at(registry, 1, &["a"], now).await.expect("acknowledged"), [RENEWED]);
    store.set(Mode::Works);
    until(|| !registry.store_failing()).await;
    assert_eq!(register(registry, 2, &["b"]).await.expect("acknowledged"), [UPDATED]);
    running.stop().await;
}

/// Before, as many others did.
#[tokio::test]
async fn after_damage_the_table_is_complete_once_those_are_back_that_were_noted() {
    let store = Fake::damaged();
    let running = Running::on(store.clone()).await;
    let registry = running.registry.clone();
    register(&registry, 3, &["new-1", "new-2", "new-3"]).await.expect("acknowledged");
    register(&registry, 1, &["a"]).await.expect("acknowledged");
    assert!(!registry.is_complete());
    register(&registry, 2, &["b"]).await.expect("acknowledged");
    assert!(registry.is_complete());
    registry.sweep(SystemTime::now);
    running.stop().await;
    assert!(store.checkpoints() >= 1, "the next start knows of no damage");
}

#[tokio::test]
async fn what_nobody_renews_after_damage_is_dropped() {
    let store = Fake::default();
    let running = Running::on(store.clone()).await;
    register(&running.registry, 1, &["a", "certain"]).await.expect("acknowledged");
    register(&running.registry, 2, &["b"]).await.expect("acknowledged");
    running.stop().await;
    {
        let mut contents = store.0.0.lock().expect("whole");
        contents.damage = Some(damage(3, &["a", "b", "certain", "lost-1", "lost-2"]));
        contents.unconfirmed = ["a", "b"].map(|alias| alias.parse().expect("an alias")).into();
    }
    let grace = Duration::from_millis(200);
    let config = RegistryConfig { start_grace: grace, lease: grace, ..RegistryConfig::default() };
    let running = Running::with(config, store.clone()).await;
    let registry = running.registry.clone();
    registry
        .register(&registrant(2), &message(&["b"]), &Scope::default(), |_| Presence::Linked, SystemTime::now())
        .await
        .expect("renewed");
    assert!(!registry.is_complete(), "two of five are certain");
    until(|| registry.is_complete()).await;
    let listed = registry.snapshot().expect("loaded").contents.leases;
    assert_eq!(listed.iter().map(|lease| lease.alias.as_str()).collect::<Vec<_>>(), ["b", "certain"]);
    running.stop().await;
    assert!(store.lease("a").is_none());
}

/// Before: what the damage had brought back was in `/sd` until the grace was over.
#[tokio::test]
async fn what_is_in_doubt_and_was_not_noted_is_listed_once_its_holder_is_back() {
    let store = Fake::default();
    let running = Running::on(store.clone()).await;
    register(&running.registry, 1, &["certain"]).await.expect("acknowledged");
    register(&running.registry, 2, &["released-or-new"]).await.expect("acknowledged");
    running.stop().await;
    {
        let mut contents = store.0.0.lock().expect("whole");
        contents.damage = Some(damage(1, &["certain"]));
        contents.unconfirmed = ["released-or-new".parse().expect("an alias")].into();
    }
    let running = Running::on(store.clone()).await;
    let registry = running.registry.clone();
    let listed = || registry.snapshot().expect("loaded").contents.leases.len();
    assert!(registry.is_complete() && listed() == 1);
    let before = *registry.changes().borrow();
    register(&registry, 2, &["released-or-new"]).await.expect("renewed");
    assert_eq!((listed(), *registry.changes().borrow() > before), (2, true));
    running.stop().await;
}
