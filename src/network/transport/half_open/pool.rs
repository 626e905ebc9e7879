//! Who gets a place, who waits for one, and who gives one up.
//!
//! - Who comes when all places are taken, or all that its source may have, waits in a line with nothing read from its socket. So
//!   what has been begun mostly ends, and a fleet that comes at once has each of its handshakes once.
//! - A source that has at least two more than a newcomer's gives one up at once, so nobody with many keeps out one with few.
//! - A connection that has grown old in its handshake gives its place to the first in the line that may have it.
//! - When the line is full too, a newcomer ends a random connection of its own source, or of one that has as many, but not
//!   faster than [`TURNOVER`] permits. The place goes to the first of its source in the line, and the newcomer to the line's
//!   end: a stranger who fills the line keeps the others of his address waiting no longer than that. Each handshake that ends
//!   well puts this off: then the line moves by itself.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use futures::future::AbortHandle;
use rand::seq::IteratorRandom;
use tokio::{sync::oneshot, time::Instant};

/// Of the places, this part is for addresses from which a secret was proved lately.
const RESERVED: usize = 4;

/// Behind a full line, places are taken over so slowly that each is kept this long on average.
pub(super) const TURNOVER: Duration = Duration::from_millis(250);

/// Newcomers come in bursts: after one place was taken over, so much of the time that passes with none counts as well.
const SAVED: Duration = Duration::from_millis(20);

/// A handshake that ends well counts as so many places that were taken over.
const WORTH: u32 = 4;

/// Where connections come from, as far as they are told apart; peers that come through relays are one source.
pub(super) type Source = Option<IpAddr>;

/// The places of one way, and the line of those who wait for one.
pub(super) struct Pool {
    places: usize,
    taken: usize,
    sources: HashMap<Source, Group>,
    line: VecDeque<Waiting>,
    /// Connections that may wait for each place.
    waiting: usize,
    turnover: Turnover,
    last_id: u64,
}

/// The half-open connections of one source.
#[derive(Default)]
struct Group {
    proved: bool,
    /// As many as it may have.
    most: usize,
    connections: Vec<Connection>,
    waiting: usize,
    turnover: Turnover,
}

struct Connection {
    id: u64,
    abort: AbortHandle,
    old: bool,
}

struct Waiting {
    source: Source,
    connection: Connection,
    turn: oneshot::Sender<()>,
}

/// Since when the next place may be taken over.
#[derive(Default)]
struct Turnover(Option<Instant>);

/// What a newcomer gets.
pub(super) enum Entry {
    /// A place.
    Placed,
    /// A place in the line, until this resolves.
    Waits(oneshot::Receiver<()>),
    Refused,
}

/// A connection that was ended, or refused, as no place was free, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) evicted: bool,
    pub(super) full: Full,
}

/// Why no place was free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The source has as many as it may have.
    Source,
    All,
}

impl Pool {
    pub(super) fn new(places: usize, waiting: usize) -> Self {
        Self {
            places,
            taken: 0,
            sources: HashMap::new(),
            line: VecDeque::new(),
            waiting,
            turnover: Turnover::default(),
            last_id: 0,
        }
    }

    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    #[cfg(all(test, feature = "scraper"))]
    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.line.is_empty()
    }

    /// Lets a connection in that `abort` ends; returns its number, too, and what was lost for it.
    pub(super) fn admit(
        &mut self,
        source: Source,
        proved: bool,
        most: usize,
        abort: AbortHandle,
    ) -> (u64, Entry, Option<Lost>) {
        self.last_id += 1;
        let group = self.sources.entry(source).or_default();
        (group.proved, group.most) = (proved, most);
        let (entry, lost) = self.enter(source, Connection { id: self.last_id, abort, old: false });
        self.forget_if_empty(source);
        (self.last_id, entry, lost)
    }

    fn enter(&mut self, source: Source, connection: Connection) -> (Entry, Option<Lost>) {
        if self.is_free_for(source, self.is_full()) {
            self.place(source, connection);
            return (Entry::Placed, None);
        }
        let full = self.full(source);
        let evicted = Some(Lost { evicted: true, full });
        let loser = self.loser(source, 2, |_| true);
        if let Some(loser) = loser.or_else(|| self.loser(source, 1, |connection| connection.old)) {
            self.evict(loser);
            self.place(source, connection);
            return (Entry::Placed, evicted);
        }
        let group = &self.sources[&source];
        if group.waiting < self.waiting.saturating_mul(group.most) && self.line.len() < self.waiting * self.places {
            return (self.queue(source, connection), None);
        }
        let own = group.connections.len();
        let loser = self.loser(source, 1, |_| true).filter(|(loser, _)| {
            if *loser == source { self.group(source).turnover.take(own) } else { self.turnover.take(self.places) }
        });
        let Some(loser) = loser else { return (Entry::Refused, Some(Lost { evicted: false, full })) };
        self.evict(loser);
        match self.line.iter().position(|waiting| waiting.source == source) {
            Some(heir) => {
                self.call(heir);
                (self.queue(source, connection), evicted)
            }
            None => {
                self.place(source, connection);
                (Entry::Placed, evicted)
            }
        }
    }

    fn queue(&mut self, source: Source, connection: Connection) -> Entry {
        let (turn, granted) = oneshot::channel();
        self.line.push_back(Waiting { source, connection, turn });
        self.group(source).waiting += 1;
        Entry::Waits(granted)
    }

    fn evict(&mut self, (source, id): (Source, u64)) {
        if let Some(loser) = self.remove(source, id) {
            loser.abort.abort();
        }
    }

    /// Marks a connection as old. Its place may go to one that waited: then why no other was free.
    pub(super) fn grow_old(&mut self, source: Source, id: u64) -> Option<Full> {
        let connections = &mut self.sources.get_mut(&source)?.connections;
        connections.iter_mut().find(|connection| connection.id == id)?.old = true;
        let full = self.is_full();
        let heir = self.line.iter().position(|waiting| self.may_replace(waiting.source, source, 1, full))?;
        let full = self.full(self.line[heir].source);
        self.remove(source, id);
        self.call(heir);
        Some(full)
    }

    /// A handshake of this source has ended well.
    pub(super) fn proved(&mut self, source: Source) {
        if let Some(group) = self.sources.get_mut(&source) {
            group.turnover.put_off(group.connections.len());
            self.turnover.put_off(self.places);
        }
    }

    /// Frees a connection's place, or its place in the line. Does nothing if another one has the place already.
    pub(super) fn leave(&mut self, source: Source, id: u64) {
        if self.remove(source, id).is_none()
            && let Some(at) = self.line.iter().position(|waiting| waiting.connection.id == id)
        {
            self.line.remove(at);
            self.group(source).waiting -= 1;
        }
        self.forget_if_empty(source);
        let full = self.is_full();
        if let Some(next) = self.line.iter().position(|waiting| self.is_free_for(waiting.source, full)) {
            self.call(next);
        }
    }

    /// Gives one that waits a place.
    fn call(&mut self, at: usize) {
        if let Some(Waiting { source, connection, turn }) = self.line.remove(at) {
            self.group(source).waiting -= 1;
            self.place(source, connection);
            let _ = turn.send(()); // nobody leaves the line without `leave`
        }
    }

    fn is_free_for(&self, source: Source, full: bool) -> bool {
        let group = &self.sources[&source];
        group.connections.len() < group.most && self.taken < self.places && (group.proved || !full)
    }

    /// A random connection in whose stead one of this source may be: of the source that has most.
    fn loser(&self, source: Source, more: usize, wanted: fn(&Connection) -> bool) -> Option<(Source, u64)> {
        let full = self.is_full();
        let losers = self.sources.iter().filter(|(other, _)| self.may_replace(source, **other, more, full));
        let losers = losers.filter_map(|(other, group)| {
            let connections = group.connections.iter().filter(|connection| wanted(connection));
            let id = connections.choose(&mut rand::rng())?.id;
            Some((group.connections.len(), rand::random::<u32>(), *other, id))
        });
        losers.max().map(|(_, _, loser, id)| (loser, id))
    }

    /// True if a connection of this source, for which no place is free, may have the place of one of the other: of a source
    /// that has at least so many more, or of its own.
    fn may_replace(&self, source: Source, other: Source, more: usize, full: bool) -> bool {
        let (own, others) = (&self.sources[&source], &self.sources[&other]);
        if source == other {
            return more == 1;
        }
        // Those who have proved nothing do not take what is reserved.
        let permitted = own.proved || !others.proved || !full;
        own.connections.len() < own.most && others.connections.len() >= own.connections.len() + more && permitted
    }

    /// Why no place is free for this source.
    fn full(&self, source: Source) -> Full {
        let group = &self.sources[&source];
        if group.connections.len() >= group.most { Full::Source } else { Full::All }
    }

    /// True if those who have proved nothing have all places that are not reserved.
    fn is_full(&self) -> bool {
        let unproved = self.sources.values().filter(|group| !group.proved);
        unproved.map(|group| group.connections.len()).sum::<usize>() >= self.places - self.places / RESERVED
    }

    fn place(&mut self, source: Source, connection: Connection) {
        self.group(source).connections.push(connection);
        self.taken += 1;
    }

    fn remove(&mut self, source: Source, id: u64) -> Option<Connection> {
        let connections = &mut self.sources.get_mut(&source)?.connections;
        let at = connections.iter().position(|connection| connection.id == id)?;
        self.taken -= 1;
        Some(connections.swap_remove(at))
    }

    fn group(&mut self, source: Source) -> &mut Group {
        self.sources.entry(source).or_default()
    }

    fn forget_if_empty(&mut self, source: Source) {
        if self.sources.get(&source).is_some_and(|group| group.connections.is_empty() && group.waiting == 0) {
            self.sources.remove(&source);
        }
    }
}

impl Turnover {
    /// True if one of so many places may be taken over now.
    fn take(&mut self, among: usize) -> bool {
        let now = Instant::now();
        let next = self.0.filter(|next| *next + SAVED >= now).unwrap_or(now);
        if next <= now {
            self.0 = Some(next + share(among));
        }
        next <= now
    }

    fn put_off(&mut self, among: usize) {
        let now = Instant::now();
        let next = self.0.map_or(now, |next| next.max(now)) + share(among) * WORTH;
        self.0 = Some(next.min(now + TURNOVER));
    }
}

fn share(among: usize) -> Duration {
    TURNOVER / u32::try_from(among.max(1)).unwrap_or(u32::MAX)
}
