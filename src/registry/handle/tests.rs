use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    sync::{Condvar, Mutex},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet, yield_now},
    time,
};
use tokio_util::sync::CancellationToken;

use super::{
    run::{FLUSH_EVERY, SWEEP_EVERY},
    *,
};
use crate::{
    identity::{KeyPair, SecretId},
    registry::{
        Change, Damage, EventKind, Foreign, LeaseState, Loaded, SledStore, Store, StoreError,
        health::HANGS_AFTER,
        writer::{self, Waiter},
    },
    wire::{AliasOutcome, Claim},
};

mod policy;
mod shared;
mod store;

const LEASE: Duration = Duration::from_secs(600);
const RETENTION: Duration = Duration::from_secs(3 * 3600);
const RENEWED: AliasOutcome = AliasOutcome::Granted { updated: false };
const UPDATED: AliasOutcome = AliasOutcome::Granted { updated: true };

/// A store in memory that works, fails, blocks or panics on demand.
#[derive(Clone, Default)]
struct Fake(Arc<(Mutex<Stored>, Condvar)>);

#[derive(Default)]
struct Stored {
    leases: BTreeMap<Alias, Lease>,
    mode: Mode,
    attempts: usize,
    /// Most changes in one commit that was tried.
    changes: usize,
    damage: Option<Damage>,
    unconfirmed: BTreeSet<Alias>,
    checkpoints: usize,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Mode {
    #[default]
    Works,
    /// Writes fail.
    Fails,
    Unreadable,
    Blocks,
    Panics,
}

/// Damage that left so many leases, with these aliases before.
fn damage(found: u64, aliases: &[&str]) -> Damage {
    let awaited = aliases.iter().map(|alias| Name::Alias(alias.parse().expect("an alias"))).collect();
    Damage { noted: Some(aliases.len() as u64), found, awaited: Some(awaited) }
}

impl Fake {
    fn set(&self, mode: Mode) {
        self.0.0.lock().expect("whole").mode = mode;
        self.0.1.notify_all();
    }

    fn attempts(&self) -> usize {
        self.0.0.lock().expect("whole").attempts
    }

    fn damaged() -> Self {
        let store = Self::default();
        store.0.0.lock().expect("whole").damage = Some(damage(0, &["a", "b"]));
        store
    }

    fn checkpoints(&self) -> usize {
        self.0.0.lock().expect("whole").checkpoints
    }

    fn lease(&self, alias: &str) -> Option<Lease> {
        self.0.0.lock().expect("whole").leases.get(alias).cloned()
    }

    fn error() -> StoreError {
        StoreError::Backend {
            path: "memory".into(),
            attempt: "written",
            source: io::Error::other("a failure on purpose"),
        }
    }
}

impl Store for Fake {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let contents = self.0.0.lock().expect("whole");
        match contents.mode {
            Mode::Unreadable => Err(Self::error()),
            mode => Ok(Loaded {
                contents: Contents::of(contents.leases.values().cloned().map(Arc::new).collect()),
                unconfirmed: contents.unconfirmed.clone(),
                damage: contents.damage.clone(),
                failure: (mode == Mode::Fails).then(Self::error),
                ..Loaded::default()
            }),
        }
    }

    fn commit(&mut self, changes: &[Change]) -> Result<Vec<Foreign>, StoreError> {
        let mut contents = self.0.0.lock().expect("whole");
        contents.attempts += 1;
        contents.changes = contents.changes.max(changes.len());
        let mut contents = self.0.1.wait_while(contents, |contents| contents.mode == Mode::Blocks).expect("whole");
        match contents.mode {
            Mode::Fails | Mode::Unreadable => return Err(Self::error()),
            Mode::Panics => {
                drop(contents);
                panic!("a panic on purpose");
            }
            Mode::Works | Mode::Blocks => {}
        }
        for change in changes {
            match change {
                Change::Put(lease) => drop(contents.leases.insert(lease.alias.clone(), Lease::clone(lease))),
                Change::Remove(alias) => drop(contents.leases.remove(alias)),
                Change::PutBeacon(_) | Change::RemoveBeacon(_) => unreachable!("these tests have no beacons"),
            }
        }
        Ok(Vec::new())
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.0.0.lock().expect("whole").checkpoints += 1;
        Ok(())
    }
}

/// A registry that has loaded its table, with the task that runs it.
struct Running {
    registry: Registry,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RegistryError>>,
}

impl Running {
    async fn start() -> (Fake, Self) {
        let store = Fake::default();
        (store.clone(), Self::on(store).await)
    }

    async fn on(store: impl Store) -> Self {
        Self::with(RegistryConfig::default(), store).await
    }

    async fn with(config: RegistryConfig, store: impl Store) -> Self {
        Self::at(WallClock::default(), config, Box::new(store)).await
    }

    async fn at(clock: WallClock, config: RegistryConfig, store: Box<dyn Store>) -> Self {
        let registry = Registry::with_clock(config, Arc::new(Refusals::new()), clock);
        let stop = CancellationToken::new();
        let mut changes = registry.changes();
        let task = tokio::spawn({
            let (registry, stop) = (registry.clone(), stop.clone());
            async move { registry.run(store, stop).await }
        });
        changes.changed().await.expect("loads");
        Self { registry, stop, task }
    }

    fn registering_a(&self) -> JoinHandle<Result<Vec<AliasOutcome>, RegistryError>> {
        let registry = self.registry.clone();
        tokio::spawn(async move { register(&registry, 1, &["a"]).await })
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("everything written");
    }
}

fn peer(number: usize) -> PublicKey {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    KeyPair::from_seed(&seed).public()
}

fn message(aliases: &[&str]) -> Register {
    let claims = aliases.iter().map(|alias| Claim {
        alias: (*alias).into(),
        service: String::new(),
        labels: vec![],
        unlisted: false,
    });
    Register { hostname: "h1".into(), claims: claims.collect() }
}

async fn register(registry: &Registry, number: usize, aliases: &[&str]) -> Result<Vec<AliasOutcome>, RegistryError> {
    register_at(registry, number, aliases, SystemTime::now()).await
}

fn registrant(number: usize) -> Registrant {
    Registrant { peer: peer(number), secret: SecretId([1; 8]), kept: None }
}

async fn register_at(
    registry: &Registry,
    number: usize,
    aliases: &[&str],
    now: SystemTime,
) -> Result<Vec<AliasOutcome>, RegistryError> {
    let registered =
        registry.register(&registrant(number), &message(aliases), &Scope::default(), |_| Presence::Linked, now).await?;
    assert_eq!(registered.lease_ms, 600_000);
    Ok(registered.outcomes)
}

async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        yield_now().await;
    }
}

/// What a `kill -9` would leave: the files as they are now, with the database still open.
fn killed(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    fs::create_dir(copy.path().join("aliases")).expect("made");
    for part in ["", "aliases"] {
        for file in fs::read_dir(directory.join(part)).expect("readable").map(|file| file.expect("readable").path()) {
            let name = file.file_name().expect("named").to_str().expect("plain").to_owned();
            // A file that is being written has another name.
            if file.is_file() && !name.starts_with('.') && !name.ends_with(".generating") {
                fs::copy(&file, copy.path().join(part).join(name)).expect("copied");
            }
        }
    }
    copy
}

#[tokio::test]
async fn too_many_claims_refuse_the_whole_message_and_are_counted() {
    let config = RegistryConfig { max_per_peer: 2, ..RegistryConfig::default() };
    let running = Running::with(config, Fake::default()).await;
    let Running { registry, .. } = &running;
    let refused = register(registry, 1, &["a", "b", "c"]).await;
    assert!(matches!(refused, Err(RegistryError::TooManyClaims { count: 3, limit: 2 })), "{refused:?}");
    let asked =
        registry.alias_statuses(&peer(1), &["a", "b", "c"].map(String::from), |_| Presence::Linked, SystemTime::now());
    assert!(matches!(asked, Err(RegistryError::TooManyClaims { .. })), "{asked:?}");
    assert_eq!(registry.shared.refusals.counted(Limit::AliasesPerPeer), 2);
    assert!(!registry.is_holder(&peer(1)));
    assert_eq!(register(registry, 1, &["a", "b"]).await.expect("fits"), [UPDATED; 2]);
    assert!(registry.is_holder(&peer(1)) && !registry.is_holder(&peer(2)));
    running.stop().await;
}

#[tokio::test]
async fn a_table_that_is_not_loaded_is_not_an_empty_one() {
    let registry = Registry::new(RegistryConfig::default(), Arc::new(Refusals::new()));
    assert!(!registry.is_loaded());
    assert!(matches!(registry.snapshot(), Err(NotLoaded)));
    assert_eq!(registry.lookup("a"), Err(NotLoaded));
    assert!(matches!(register(&registry, 1, &["a"]).await, Err(RegistryError::NotReady)));
    assert!(matches!(registry.release_peer(peer(1), SystemTime::now()).await, Err(RegistryError::NotReady)));
    assert_eq!(*registry.changes().borrow(), 0);

    let running = Running::on(Fake::default()).await;
    assert!(running.registry.is_loaded());
    assert!(running.registry.snapshot().expect("loaded").contents.leases.is_empty());
    assert_eq!(running.registry.lookup("a"), Ok(None));
}

#[tokio::test]
async fn acknowledged_aliases_survive_a_kill() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::on(SledStore::open(directory.path().join("aliases")).expect("opens")).await;
    register(&running.registry, 1, &["a", "b"]).await.expect("acknowledged");
    register(&running.registry, 1, &["b", "c"]).await.expect("acknowledged");
    register(&running.registry, 2, &["d"]).await.expect("acknowledged");
    running.registry.release_peer(peer(2), SystemTime::now()).await.expect("acknowledged");
    register(&running.registry, 3, &["e", "f"]).await.expect("acknowledged");
    assert!(running.registry.release(&"e".parse().expect("an alias")).await.expect("acknowledged"));

    let copy = killed(directory.path());
    let again = Running::on(SledStore::open(copy.path().join("aliases")).expect("opens")).await;
    let leases = again.registry.snapshot().expect("loaded").contents.leases;
    let aliases: Vec<_> = leases.iter().map(|lease| lease.alias.as_str()).collect();
    assert_eq!(aliases, ["b", "c", "f"]);
    assert_eq!(leases[0].peer, peer(1));
    assert_eq!(register(&again.registry, 1, &["b", "c"]).await.expect("acknowledged"), [RENEWED, RENEWED]);
    again.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn a_restart_revives_no_expired_lease() {
    let directory = tempfile::tempdir().expect("a directory");
    let now = SystemTime::now();
    let ends = [("active", now + LEASE), ("lapsed", now - LEASE), ("gone", now - RETENTION)];
    let leases = ends.map(|(alias, expires_at)| {
        let registered_at = expires_at - LEASE;
        Change::Put(Arc::new(Lease { registered_at, renewed_at: registered_at, expires_at, ..Lease::sample(alias) }))
    });
    let mut store = SledStore::open(directory.path().join("aliases")).expect("opens");
    store.commit(&leases).expect("written");

    let running = Running::on(store).await;
    assert_eq!(running.registry.counts(), Counts { active: 1, lapsed: 1, peers: 1, beacons: 0 });
    assert_eq!(running.registry.lookup("gone"), Ok(None));
    let lapsed = running.registry.lookup("lapsed").expect("loaded").expect("listed");
    assert_eq!(lapsed.state(SystemTime::now()), LeaseState::Lapsed);
    running.stop().await;

    let stored =
        SledStore::open(directory.path().join("aliases")).expect("opens").load().expect("reads").contents.leases;
    let mut aliases: Vec<_> = stored.iter().map(|lease| lease.alias.as_str()).collect();
    aliases.sort_unstable();
    assert_eq!(aliases, ["active", "gone", "lapsed"], "the clock may be wrong at the start");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_concurrent_registrations_are_all_acknowledged() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::on(SledStore::open(directory.path().join("aliases")).expect("opens")).await;
    let mut tasks = JoinSet::new();
    for number in 0..1000 {
        let registry = running.registry.clone();
        tasks.spawn(async move { register(&registry, number, &[&format!("a{number}")]).await });
    }
    for outcome in tasks.join_all().await {
        assert_eq!(outcome.expect("acknowledged"), [UPDATED]);
    }
    let copy = killed(directory.path());
    assert_eq!(
        SledStore::open(copy.path().join("aliases")).expect("opens").load().expect("reads").contents.leases.len(),
        1000
    );
    running.stop().await;
}

#[tokio::test]
async fn of_two_peers_that_race_for_an_alias_one_gets_it() {
    let running = Running::on(Fake::default()).await;
    let registry = &running.registry;
    let (one, two) = tokio::join!(register(registry, 1, &["a"]), register(registry, 2, &["a"]));
    let granted = [one, two].map(|outcomes| outcomes.expect("acknowledged") == [UPDATED]);
    assert_eq!(granted.iter().filter(|granted| **granted).count(), 1);
    assert_eq!(registry.totals().takeovers_refused, 1);
}

#[tokio::test]
async fn registrations_that_wait_share_one_flush() {
    let (store, running) = Running::start().await;
    store.set(Mode::Blocks);
    let mut tasks = JoinSet::new();
    for number in 0..100 {
        let registry = running.registry.clone();
        tasks.spawn(async move { register(&registry, number, &[&format!("a{number}")]).await });
        // The first one blocks the writer; the others pile up behind it.
        until(|| store.attempts() == 1).await;
    }
    until(|| running.registry.counts().active == 100).await;
    store.set(Mode::Works);
    for outcome in tasks.join_all().await {
        assert_eq!(outcome.expect("acknowledged"), [UPDATED]);
    }
    assert_eq!(store.attempts(), 2);
}

#[tokio::test]
async fn a_renewal_is_not_acknowledged_before_the_registration_it_renews_is_on_disk() {
    let (store, running) = Running::start().await;
    store.set(Mode::Blocks);
    let first = running.registering_a();
    until(|| store.attempts() == 1).await;
    let renewal = running.registering_a();
    until(|| running.registry.totals().renewed == 1).await;
    store.set(Mode::Fails);
    assert!(matches!(first.await.expect("no panic"), Err(RegistryError::Store(_))));
    assert!(matches!(renewal.await.expect("no panic"), Err(RegistryError::Store(_))));
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_undo_its_lease() {
    let (store, running) = Running::start().await;
    store.set(Mode::Blocks);
    let caller = running.registering_a();
    until(|| store.attempts() == 1).await;
    caller.abort();
    assert!(caller.await.expect_err("gave up").is_cancelled());
    store.set(Mode::Works);
    assert_eq!(register(&running.registry, 1, &["a"]).await.expect("acknowledged"), [RENEWED]);
    assert!(store.lease("a").is_some());
}

#[tokio::test]
async fn renewals_do_not_move_the_generation_and_new_labels_do() {
    let running = Running::on(Fake::default()).await;
    let registry = &running.registry;
    let mut changes = registry.changes();
    register(registry, 1, &["a"]).await.expect("acknowledged");
    assert!(changes.has_changed().expect("open"));
    let generation = *changes.borrow_and_update();

    register(registry, 1, &["a"]).await.expect("acknowledged");
    assert!(!changes.has_changed().expect("open"));

    let mut labelled = message(&["a"]);
    labelled.claims[0].labels.push(("region".into(), "eu".into()));
    let registered = registry
        .register(&registrant(1), &labelled, &Scope::default(), |_| Presence::Linked, SystemTime::now())
        .await
        .expect("acknowledged");
    assert_eq!(registered.outcomes, [UPDATED]);
    assert_eq!(*changes.borrow_and_update(), generation + 1);
    assert_eq!(registry.snapshot().expect("loaded").generation, generation + 1);

    let mut now = SystemTime::now();
    let mut pass = |by| {
        let end = now + by;
        while now < end {
            now += SWEEP_EVERY;
            registry.sweep(|| now);
        }
    };
    pass(LEASE);
    assert_eq!(*changes.borrow_and_update(), generation + 2);
    pass(RETENTION);
    assert_eq!(*changes.borrow_and_update(), generation + 3);
    pass(LEASE);
    assert!(!changes.has_changed().expect("open"));
}

#[tokio::test(start_paused = true)]
async fn a_running_registry_sweeps_by_itself() {
    let running = Running::on(Fake::default()).await;
    let mut events = running.registry.events();
    register_at(&running.registry, 1, &["a"], SystemTime::now() - LEASE).await.expect("acknowledged");
    assert_eq!(events.recv().await.expect("open").kind, EventKind::Registered);
    let event = time::timeout(LEASE, events.recv()).await.expect("swept").expect("open");
    assert_eq!((event.alias.as_str(), event.peer, event.kind), ("a", peer(1), EventKind::Lapsed));
}

/// Before: a sweep that waited for the lock, while the clock went on and others came first, found the clock set back and shortened
/// leases.
#[tokio::test]
async fn the_time_of_a_sweep_is_read_under_the_lock() {
    let (_, Running { registry, .. }) = &Running::start().await;
    let mut is_locked = false;
    registry.sweep(|| {
        is_locked = registry.shared.state.try_read().is_err();
        SystemTime::now()
    });
    assert!(is_locked);
}

#[tokio::test(start_paused = true)]
async fn plain_renewals_reach_the_disk_without_being_waited_for() {
    let (store, running) = Running::start().await;
    let now = SystemTime::now();
    register_at(&running.registry, 1, &["a"], now).await.expect("acknowledged");
    register_at(&running.registry, 1, &["a"], now + LEASE / 3).await.expect("acknowledged");
    while store.lease("a").expect("stored").renewed_at == now {
        time::sleep(FLUSH_EVERY).await;
    }
}

#[tokio::test]
async fn a_change_that_need_not_be_durable_is_acknowledged_before_it_is_written() {
    let store = Fake::default();
    let (queue, inbox) = mpsc::unbounded_channel();
    let (config, clock) = (RegistryConfig::default(), WallClock::default());
    let writer = writer::spawn((Box::new(store.clone()), None), inbox, config, clock, Arc::default(), drop);
    let (ack, answer) = oneshot::channel();
    let slot = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("free");
    let changes = vec![Change::Remove("a".parse().expect("an alias"))];
    let batch = Batch { changes, waiter: Some(Waiter { ack, _slot: slot }), ..Batch::default() };
    queue.send(batch).expect("runs");
    answer.await.expect("answered").expect("acknowledged");
    assert_eq!(store.attempts(), 0);
    drop(queue);
    writer.expect("a thread").ended.await.expect("no panic").expect("written");
    assert_eq!(store.attempts(), 1);
}

#[tokio::test]
async fn stopping_writes_the_renewals_that_were_not_written_yet() {
    let (store, running) = Running::start().await;
    let registry = running.registry.clone();
    let now = SystemTime::now();
    register_at(&registry, 1, &["a"], now).await.expect("acknowledged");
    register_at(&registry, 1, &["a"], now + LEASE / 3).await.expect("acknowledged");
    running.stop().await;
    assert_eq!(store.lease("a").expect("stored").renewed_at, now + LEASE / 3);
    assert!(matches!(register(&registry, 1, &["a"]).await, Err(RegistryError::Stopped)));
    assert!(registry.lookup("a").expect("still known").is_some());
}

#[tokio::test]
async fn stopping_before_the_table_is_loaded_ends_the_run() {
    let registry = Registry::new(RegistryConfig::default(), Arc::new(Refusals::new()));
    let stop = CancellationToken::new();
    stop.cancel();
    registry.run(Box::new(Fake::default()), stop).await.expect("nothing to write");
    assert!(matches!(register(&registry, 1, &["a"]).await, Err(RegistryError::Stopped)));
}
