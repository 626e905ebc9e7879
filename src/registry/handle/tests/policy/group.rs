//! Scrapers over one store, at a time that the test sets.

use super::{
    model::{Answer, Model, certain, registrant},
    steps::{ALIASES, Step},
    *,
};
use crate::access::Scope;
use crate::registry::{handle::tests::shared::bucket::Bucket, wall_clock::WallClock};

/// How long tables may take until they are the same: on a busy machine, and with a real server between them.
const SOON: Duration = Duration::from_secs(20);

pub(super) struct Group {
    config: RegistryConfig,
    stores: Stores,
    clock: Arc<Mutex<SystemTime>>,
    scrapers: Vec<Running>,
}

/// What keeps the table.
pub(super) enum Stores {
    Memory(Bucket),
    /// Of one scraper.
    Sled(tempfile::TempDir),
    #[cfg(feature = "nats")]
    Nats {
        url: String,
        copies: tempfile::TempDir,
    },
}

impl Stores {
    pub(super) fn in_memory() -> Self {
        Self::Memory(Bucket::default())
    }

    pub(super) fn on_disk() -> Self {
        Self::Sled(tempfile::tempdir().expect("a directory"))
    }

    /// A bucket of its own.
    #[cfg(feature = "nats")]
    pub(super) fn in_nats(server: &nats_server::NatsServer) -> Self {
        let bucket: u64 = rand::random();
        Self::Nats { url: format!("{}/{bucket}", server.url()), copies: tempfile::tempdir().expect("a directory") }
    }

    async fn open(&self, number: usize) -> Box<dyn Store> {
        match self {
            Self::Memory(bucket) => Box::new(bucket.store()),
            Self::Sled(directory) => {
                let table = directory.path().join(format!("aliases-{number}"));
                Box::new(SledStore::open(table).expect("opens"))
            }
            #[cfg(feature = "nats")]
            Self::Nats { url, copies } => {
                let config = crate::nats::NatsConfig::new(url.parse().expect("a URL"));
                let copy = copies.path().join(number.to_string()).join("aliases");
                Box::new(crate::registry::NatsStore::open(&config, copy).await.expect("opens"))
            }
        }
    }
}

impl Group {
    pub(super) async fn start(config: RegistryConfig, stores: Stores, size: usize) -> Self {
        // Stores keep milliseconds.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("past 1970").as_secs();
        let clock = Arc::new(Mutex::new(SystemTime::UNIX_EPOCH + Duration::from_secs(now)));
        let mut group = Self { config, stores, clock, scrapers: Vec::new() };
        for number in 0..size {
            let scraper = group.open(number).await;
            // In its first moments a scraper compares its table with the bucket.
            let ready = async {
                while flush(&scraper.registry).await.is_err() {
                    time::sleep(Duration::from_millis(1)).await;
                }
            };
            time::timeout(SOON, ready).await.expect("can be written");
            group.scrapers.push(scraper);
        }
        group
    }

    async fn open(&self, number: usize) -> Running {
        let clock = Arc::clone(&self.clock);
        let clock = WallClock::new(move || *clock.lock().expect("whole"));
        Running::at(clock, self.config.clone(), self.stores.open(number).await).await
    }

    pub(super) fn now(&self) -> SystemTime {
        *self.clock.lock().expect("whole")
    }

    /// Takes a step at a scraper, while the links are those of the model.
    pub(super) async fn apply(&self, at: usize, step: &Step, model: &Model) -> Answer {
        let registry = &self.scrapers[at].registry;
        match step {
            Step::Register { peer, aliases, kept } => {
                let by = registrant(*peer, *kept);
                let registered =
                    registry.register(&by, &message(aliases), &Scope::default(), model.presence(), self.now()).await;
                Answer::Registered(registered.expect("acknowledged").outcomes)
            }
            Step::Release { peer: by } => {
                Answer::Released(registry.release_peer(peer(*by), self.now()).await.expect("acknowledged"))
            }
            Step::Wait(wait) => {
                for span in Step::sweeps(*wait) {
                    *self.clock.lock().expect("whole") += span;
                    self.scrapers.iter().for_each(|scraper| scraper.registry.sweep(|| self.now()));
                }
                Answer::None
            }
            Step::Connect { .. } | Step::Disconnect { .. } | Step::Restart => Answer::None,
        }
    }

    pub(super) async fn restart(&mut self) {
        for (number, scraper) in std::mem::take(&mut self.scrapers).into_iter().enumerate() {
            scraper.stop().await;
            let again = self.open(number).await;
            self.scrapers.push(again);
        }
    }

    /// Writes what waits to be written, and returns the one table that all have once that fits; else the tables.
    pub(super) async fn agree(&self, fits: impl Fn(&[Lease]) -> bool) -> Result<Vec<Lease>, Vec<Vec<Lease>>> {
        for scraper in &self.scrapers {
            flush(&scraper.registry).await.expect("written");
        }
        let agreed = async {
            loop {
                let mut tables = self.tables();
                if tables.iter().all(|table| *table == tables[0]) && fits(&tables[0]) {
                    return tables.swap_remove(0);
                }
                time::sleep(Duration::from_millis(1)).await;
            }
        };
        time::timeout(SOON, agreed).await.map_err(|_| self.tables())
    }

    fn tables(&self) -> Vec<Vec<Lease>> {
        let listed = |scraper: &Running| scraper.registry.snapshot().expect("loaded").contents.leases;
        let stored = match &self.stores {
            Stores::Memory(bucket) => Some(bucket.leases()),
            _ => None,
        };
        let tables = self.scrapers.iter().map(listed).chain(stored);
        tables.map(|leases| leases.iter().map(|lease| certain(lease)).collect()).collect()
    }

    /// Each scraper would let the same peers take each alias.
    pub(super) fn assert_guarded_as(&self, model: &Model, step: &Step) {
        let (aliases, expected) = (ALIASES.map(String::from), model.statuses());
        for scraper in &self.scrapers {
            let statuses = scraper.registry.alias_statuses(&peer(0), &aliases, model.presence(), model.now());
            assert_eq!(statuses.expect("loaded"), expected, "after {step:?}");
        }
    }

    pub(super) async fn stop(self) {
        for scraper in self.scrapers {
            scraper.stop().await;
        }
    }
}

/// Returns once all that the registry has changed is in its store, or was overtaken.
async fn flush(registry: &Registry) -> writer::Ack {
    let slot = Arc::clone(&registry.shared.slots).acquire_owned().await.expect("open");
    let (ack, written) = oneshot::channel();
    match &registry.read().phase {
        Phase::Serving(queue) => {
            let waiter = Some(Waiter { ack, _slot: slot });
            queue.send(Batch { durable: true, waiter, ..Batch::default() }).expect("runs");
        }
        phase => panic!("{phase:?}"),
    }
    written.await.expect("runs")
}
