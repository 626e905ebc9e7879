//! A store in memory that several registries share, as they share a bucket of NATS.

use std::collections::HashMap;

use super::super::*;
use crate::registry::{Entry, Foreign, Note, SharedEvent};

/// A bucket in memory: of each name its revision and its entry.
#[derive(Clone, Default)]
pub(in super::super) struct Bucket(Arc<Mutex<Content>>);

#[derive(Default)]
struct Content {
    revision: u64,
    entries: BTreeMap<Name, (u64, Option<Entry>)>,
    watchers: Vec<mpsc::UnboundedSender<Foreign>>,
}

/// The store of one scraper over a bucket, which hears of the others' changes some time later.
pub(in super::super) struct Shared {
    bucket: Bucket,
    number: usize,
    bases: HashMap<Name, u64>,
    events: Option<mpsc::Receiver<SharedEvent>>,
}

impl Bucket {
    /// The leases in the order of their aliases, as a table lists them.
    pub(in super::super) fn leases(&self) -> Vec<Arc<Lease>> {
        let content = self.0.lock().expect("whole");
        let entries = content.entries.values().filter_map(|(_, entry)| entry.as_ref());
        let leases = entries.filter_map(|entry| match entry {
            Entry::Lease(lease) => Some(Arc::clone(lease)),
            Entry::Beacon(_) => None,
        });
        leases.collect()
    }

    /// Replaces the content, of which nobody hears.
    pub(super) fn fill(&self, all: &[Foreign]) {
        let entries = all.iter().map(|Foreign { name, entry, at, .. }| (name.clone(), (*at, entry.clone())));
        self.0.lock().expect("whole").entries = entries.collect();
    }

    /// The store of one more scraper.
    pub(in super::super) fn store(&self) -> Shared {
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
        let mut content = self.0.lock().expect("whole");
        content.watchers.push(watcher);
        let number = content.watchers.len() - 1;
        drop(content);
        Shared { bucket: self.clone(), number, bases: HashMap::new(), events: Some(events) }
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
