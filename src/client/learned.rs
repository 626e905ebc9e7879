//! Scrapers that a client learned of: further members of the group of those that it was given, so that it stays scraped when
//! one dies.
//!
//! One task owns the [`Choice`] and a task for each learned scraper, which links and registers as for a given one. The group is
//! remembered in the data directory.

mod choice;

use std::{
    collections::{BTreeSet, HashMap},
    future,
    path::PathBuf,
    sync::Arc,
};

use tokio::{
    task::{self, JoinSet},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    event::EventKind,
    group::{Members, Pace, remembered},
    registration,
};
use crate::{identity::PublicKey, telemetry::Chain};
use choice::{Choice, Step};

/// The scrapers that a client was given, and where it remembers what they say.
pub(super) struct Given {
    pub(super) scrapers: BTreeSet<PublicKey>,
    pub(super) file: Option<PathBuf>,
}

/// The tokens of a learned scraper's task.
struct Ends {
    /// Our aliases are released, as at the end of the client.
    release: CancellationToken,
    /// Our aliases stay.
    leave: CancellationToken,
}

/// Links members of the group as they are needed until `stop` fires; then each has our aliases released.
pub(super) async fn keep(shared: Arc<Shared>, given: Given, pace: Pace, stop: CancellationToken) {
    let mut remembered = given.load();
    for scraper in &given.scrapers {
        if !remembered.is_empty() {
            shared.group.says(scraper, remembered.clone());
        }
    }
    let mut choice = Choice::new(shared.key.public(), &given.scrapers, pace, Instant::now());
    let (mut tasks, mut ends, mut busy) = (JoinSet::new(), HashMap::new(), BTreeSet::new());
    let mut state = shared.group.subscribe();
    loop {
        let (named, registered) = {
            let state = state.borrow_and_update();
            (state.named(), state.registered.clone())
        };
        for step in choice.decide(named.keys(), &registered, &busy, Instant::now()) {
            match step {
                Step::Link(key) => {
                    let (release, leave) = (stop.child_token(), CancellationToken::new());
                    busy.insert(key);
                    ends.insert(key, Ends { release: release.clone(), leave: leave.clone() });
                    shared.network.hint(key, named.get(&key).cloned().unwrap_or_default());
                    tasks.spawn(keep_one(Arc::clone(&shared), key, Ends { release, leave }, stop.clone()));
                }
                Step::Leave(key) => _ = ends.remove(&key).inspect(|ends: &Ends| ends.leave.cancel()),
                Step::Release(key) => _ = ends.remove(&key).inspect(|ends: &Ends| ends.release.cancel()),
            }
        }
        for key in choice.learned() {
            if let Some(addresses) = named.get(key) {
                shared.network.hint(*key, addresses.clone());
            }
        }
        if named != remembered {
            given.save(named.clone()).await;
            remembered = named;
        }
        let due = choice.due();
        let due = async {
            match due {
                Some(due) => time::sleep_until(due).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = tasks.join_next() => if let Ok(key) = ended {
                busy.remove(&key);
            },
            _ = state.changed() => {}
            () = due => {}
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Keeps one learned scraper until one of its tokens fires. Returns its key.
async fn keep_one(shared: Arc<Shared>, key: PublicKey, ends: Ends, stop: CancellationToken) -> PublicKey {
    shared.group.add(key);
    shared.events.emit(EventKind::ScraperLearned { scraper: key });
    let kept = registration::keep(Arc::clone(&shared), key.into(), ends.release);
    let left = ends.leave.run_until_cancelled(kept).await.is_none();
    if stop.is_cancelled() {
        return key; // pulls in flight may end
    }
    let links = shared.network.links();
    links.let_go(&key);
    while let Some(link) = links.best(&key) {
        shared.network.disconnect(key, link).await;
        links.wait_until(|| links.best(&key) != Some(link)).await;
    }
    shared.group.remove(&key);
    shared.network.hint(key, Vec::new());
    shared.pull_watchdog.forget(&key);
    shared.events.emit(EventKind::ScraperLetGo { scraper: key });
    if !left {
        // Should the scraper share the table of the others after all, they have lost our aliases, too.
        shared.targets.register_again();
    }
    key
}

impl Given {
    fn load(&self) -> Members {
        let Some(file) = &self.file else { return Members::new() };
        remembered::load(file, &self.scrapers).unwrap_or_else(|error| {
            tracing::warn!(file = %file.display(), error = %Chain(&error), "the remembered group of the scrapers is not used");
            Members::new()
        })
    }

    async fn save(&self, members: Members) {
        let Some(file) = self.file.clone() else { return };
        let given = self.scrapers.clone();
        let path = file.clone();
        let saved = task::spawn_blocking(move || remembered::save(&path, &given, &members)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(file = %file.display(), error = %Chain(&error), "the group of the scrapers could not be remembered");
        }
    }
}

#[cfg(all(test, feature = "scraper"))]
mod tests;
