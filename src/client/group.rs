//! The group as the scrapers of a client tell it: which others keep the same table.
//!
//! A client asks each scraper soon after it was registered over a new link, and each ten minutes from then on. The answer comes
//! within a Noise session, so it is the scraper's own word. [`Group`] has the last word of each scraper; what follows from
//! it is decided in [`learned`](super::learned).

pub(super) mod remembered;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time};

use super::{Shared, exchange};
use crate::{
    identity::{DialAddress, PublicKey},
    network::{Admitted, ConnectError},
    wire::{GroupMember, RegisterReply, RegisterRequest, channel::ChannelError},
};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Other scrapers, and where each can be dialled.
pub(super) type Members = BTreeMap<PublicKey, Vec<DialAddress>>;

/// How fast a client learns, and what it waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// A fleet that comes back to its scraper at once asks spread over this time.
    pub(super) spread: Duration,
    /// How often a scraper is asked again.
    pub(super) ask_every: Duration,
    /// A scraper without a registration for so long needs another one beside it, or in its place; one that has it back for
    /// so long is good again.
    pub(super) patience: Duration,
    /// The same while no scraper has registered us: every further second may be a scrape missed.
    pub(super) alone: Duration,
    /// A learned scraper that nobody has named for so long is let go: longer than it takes to ask all again.
    pub(super) unnamed: Duration,
    /// A member that could not be reached is tried again after this time.
    pub(super) retry: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            spread: Duration::from_secs(10),
            ask_every: Duration::from_secs(10 * 60),
            patience: Duration::from_secs(60),
            alone: Duration::from_secs(3),
            unnamed: Duration::from_secs(15 * 60),
            retry: Duration::from_secs(10 * 60),
        }
    }
}

/// The scrapers of a client, and what they say of their group. Cheap to clone.
#[derive(Clone)]
pub(super) struct Group {
    state: Arc<watch::Sender<State>>,
    /// The firewall's keys: those of the scrapers.
    admitted: Admitted,
    /// None if the client keeps to the scrapers that it was given.
    pub(super) pace: Option<Pace>,
}

#[derive(Clone, Default)]
pub(super) struct State {
    /// The given and the learned ones.
    scrapers: BTreeSet<PublicKey>,
    /// Those that have registered us over the link that there is.
    pub(super) registered: BTreeSet<PublicKey>,
    /// Those that have released our aliases at our end.
    released: BTreeSet<PublicKey>,
    /// The last word of each.
    said: BTreeMap<PublicKey, Members>,
}

impl State {
    /// All that one scraper or another names.
    pub(super) fn named(&self) -> Members {
        let mut named = Members::new();
        for (member, addresses) in self.said.values().flatten() {
            let all = named.entry(*member).or_default();
            all.extend(addresses.iter().filter(|address| !all.contains(address)).cloned().collect::<Vec<_>>());
        }
        named
    }

    /// True if a scraper that keeps the same table, by its own word or by that of this one, has released our aliases.
    fn is_released_beside(&self, scraper: &PublicKey) -> bool {
        let names =
            |one: &PublicKey, other: &PublicKey| self.said.get(one).is_some_and(|said| said.contains_key(other));
        self.released.iter().any(|other| names(other, scraper) || names(scraper, other))
    }
}

impl Group {
    /// The given scrapers, to begin with.
    pub(super) fn new(given: impl IntoIterator<Item = PublicKey>, admitted: Admitted, pace: Option<Pace>) -> Self {
        let group = Self { state: Arc::default(), admitted, pace };
        group.change(|state| state.scrapers.extend(given));
        group
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(super) fn scrapers(&self) -> Vec<PublicKey> {
        self.state.borrow().scrapers.iter().copied().collect()
    }

    /// The scraper of ours that answers where another one was looked for: a scraper whose key is changed has two.
    pub(super) fn in_place_of_another(&self, error: &ConnectError) -> Option<PublicKey> {
        let ConnectError::WrongKey { found, .. } = error else { return None };
        found.parse().ok().filter(|found| self.state.borrow().scrapers.contains(found))
    }

    /// From now on the scraper may pull.
    pub(super) fn add(&self, scraper: PublicKey) {
        self.change(|state| _ = state.scrapers.insert(scraper));
    }

    /// Nothing of the scraper counts any more.
    pub(super) fn remove(&self, scraper: &PublicKey) {
        self.change(|state| {
            state.scrapers.remove(scraper);
            state.registered.remove(scraper);
            state.released.remove(scraper);
            state.said.remove(scraper);
        });
    }

    /// The scraper has registered us over the link that there is.
    pub(super) fn registered(&self, scraper: &PublicKey) {
        self.state.send_if_modified(|state| state.scrapers.contains(scraper) && state.registered.insert(*scraper));
    }

    /// The link on which the scraper registered us is gone.
    pub(super) fn lost(&self, scraper: &PublicKey) {
        self.state.send_if_modified(|state| state.registered.remove(scraper));
    }

    /// The scraper has released our aliases.
    pub(super) fn released(&self, scraper: &PublicKey) {
        self.state.send_if_modified(|state| state.released.insert(*scraper));
    }

    /// Returns once another scraper that keeps the same table has.
    pub(super) async fn released_beside(&self, scraper: &PublicKey) {
        let mut state = self.subscribe();
        let _ = state.wait_for(|state| state.is_released_beside(scraper)).await; // `self` has the other end
    }

    /// Takes the word of one of our scrapers.
    pub(super) fn says(&self, scraper: &PublicKey, members: Members) {
        self.state.send_if_modified(|state| {
            state.scrapers.contains(scraper) && state.said.insert(*scraper, members.clone()).as_ref() != Some(&members)
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(|state| {
            change(state);
            self.admitted.replace(state.scrapers.iter().copied());
        });
    }
}

/// Asks a scraper for as long as its link is there, unless it turns out to be of an earlier version.
pub(super) async fn keep_asking(shared: &Shared, scraper: &PublicKey) -> Infallible {
    if let Some(pace) = shared.group.pace {
        let mut state = shared.group.subscribe();
        let _ = state.wait_for(|state| state.registered.contains(scraper)).await; // `shared` has the other end
        time::sleep(pace.spread.mul_f64(rand::random())).await;
        loop {
            match ask(shared, scraper).await {
                Answer::Members(members) => shared.group.says(scraper, members),
                Answer::Later => {}
                Answer::Unknown => {
                    tracing::debug!(%scraper, "the scraper knows no groups");
                    break;
                }
            }
            time::sleep(pace.ask_every.mul_f64(0.9 + 0.2 * rand::random::<f64>())).await;
        }
    }
    future::pending().await
}

enum Answer {
    Members(Members),
    /// The scraper had no place or no time.
    Later,
    /// The scraper ended the exchange at the question, as one does that cannot read it.
    Unknown,
}

async fn ask(shared: &Shared, scraper: &PublicKey) -> Answer {
    let asked = async {
        let channel = exchange::handshake(&shared.network, &shared.key, &shared.secret, scraper).await;
        let Ok(mut channel) = channel else { return Answer::Later };
        match exchange::ask(&mut channel, &RegisterRequest::Group).await {
            Ok(RegisterReply::Group(members)) => {
                Answer::Members(GroupMember::checked(&members, &shared.key.public()).into_iter().collect())
            }
            Ok(_) => Answer::Later,
            Err(ChannelError::Closed | ChannelError::Cut | ChannelError::Io(_) | ChannelError::Codec(_)) => {
                Answer::Unknown
            }
            Err(_) => Answer::Later,
        }
    };
    time::timeout(TIMEOUT, asked).await.unwrap_or(Answer::Later)
}
