//! The open HTTP connections by their source, and which of them makes room.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a place counts among.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Group {
    Source(IpAddr),
    Probes,
}

/// Connections by the time since which they are what they are, and by number.
type Since = BTreeSet<(Instant, u64)>;

#[derive(Default)]
pub(super) struct Table {
    last: u64,
    open: HashMap<u64, Open>,
    groups: HashMap<Group, Members>,
    /// The sources by the number of their connections.
    sources: BTreeSet<(usize, IpAddr)>,
    /// Those of them that have an idle one.
    with_idle: BTreeSet<(usize, IpAddr)>,
}

#[derive(Default)]
struct Members {
    idle: Since,
    busy: Since,
}

struct Open {
    group: Group,
    /// Reasons to count as busy; idle without any.
    busy: usize,
    since: Instant,
    cut: CancellationToken,
    evicted: CancellationToken,
}

/// A connection that may make room for another one.
#[derive(Clone, Copy)]
pub(super) struct Victim {
    pub(super) number: u64,
    /// Since when it is idle, or busy.
    pub(super) since: Instant,
}

impl Table {
    pub(super) fn len(&self, group: Group) -> usize {
        self.groups.get(&group).map_or(0, Members::len)
    }

    pub(super) fn idle_longest(&self, group: Group) -> Option<Victim> {
        Victim::first(&self.groups.get(&group)?.idle)
    }

    /// Who makes room when `all` places are taken, for a newcomer whose source has `own` of them.
    pub(super) fn of_the_fullest(&self, source: IpAddr, own: usize, all: usize) -> Option<Victim> {
        let share = all / (self.sources.len() + usize::from(own == 0));
        let more = own.max(share);
        let fullest = self.sources.last().filter(|(count, _)| *count > more).map(|(_, source)| Group::Source(*source));
        let idle = self.with_idle.last().map(|(count, source)| (*count, Group::Source(*source)));
        match (idle, fullest) {
            (Some((count, source)), _) if count > more => self.idle_longest(source),
            (_, Some(source)) => Victim::first(&self.groups.get(&source)?.busy),
            _ => self.idle_longest(Group::Source(source)).or_else(|| {
                let (_, source) = idle.filter(|(count, _)| *count > own)?;
                self.idle_longest(source)
            }),
        }
    }

    /// Notes one more reason why a connection is busy.
    pub(super) fn begin(&mut self, number: u64) {
        self.count(number, |busy| busy + 1);
    }

    /// Notes that a reason why a connection was busy is gone.
    pub(super) fn end(&mut self, number: u64) {
        self.count(number, |busy| busy - 1);
    }

    /// Closes an idle connection unless it is just being asked something, and a busy one at once.
    pub(super) fn evict(&mut self, number: u64) {
        match self.remove(number) {
            Some(open) if open.is_busy() => open.cut.cancel(),
            Some(open) => open.evicted.cancel(),
            None => {}
        }
    }

    /// Takes a place in the group, idle as yet: its number, and the tokens that fire when it must go at once, or once it is
    /// answered.
    pub(super) fn open(&mut self, group: Group) -> (u64, CancellationToken, CancellationToken) {
        self.last += 1;
        let (number, cut) = (self.last, CancellationToken::new());
        let evicted = cut.child_token();
        let open = Open { group, busy: 0, since: Instant::now(), cut: cut.clone(), evicted: evicted.clone() };
        self.insert(number, open);
        (number, cut, evicted)
    }

    /// Forgets a connection that has ended.
    pub(super) fn close(&mut self, number: u64) {
        self.remove(number);
    }

    /// How many connections there are, but those for probes.
    pub(super) fn taken(&self) -> usize {
        self.open.len() - self.len(Group::Probes)
    }

    /// An idle one of the source that has most.
    pub(super) fn idle_of_the_fullest(&self) -> Option<Victim> {
        self.with_idle.last().and_then(|(_, source)| self.idle_longest(Group::Source(*source)))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.groups.is_empty() && self.sources.is_empty() && self.with_idle.is_empty()
    }

    fn count(&mut self, number: u64, change: impl FnOnce(usize) -> usize) {
        let Some(mut open) = self.remove(number) else { return };
        let was_busy = open.is_busy();
        open.busy = change(open.busy);
        if open.is_busy() != was_busy {
            open.since = Instant::now();
        }
        self.insert(number, open);
    }

    fn insert(&mut self, number: u64, open: Open) {
        self.change(open.group, |members| members.of(&open).insert((open.since, number)));
        self.open.insert(number, open);
    }

    fn remove(&mut self, number: u64) -> Option<Open> {
        let open = self.open.remove(&number)?;
        self.change(open.group, |members| members.of(&open).remove(&(open.since, number)));
        Some(open)
    }

    fn change(&mut self, group: Group, change: impl FnOnce(&mut Members) -> bool) {
        let members = self.groups.entry(group).or_default();
        let before = members.len();
        change(members);
        let (after, has_idle) = (members.len(), !members.idle.is_empty());
        if after == 0 {
            self.groups.remove(&group);
        }
        if let Group::Source(source) = group {
            self.sources.remove(&(before, source));
            self.with_idle.remove(&(before, source));
            if after > 0 {
                self.sources.insert((after, source));
            }
            if has_idle {
                self.with_idle.insert((after, source));
            }
        }
    }
}

impl Open {
    fn is_busy(&self) -> bool {
        self.busy > 0
    }
}

impl Members {
    fn len(&self) -> usize {
        self.idle.len() + self.busy.len()
    }

    fn of(&mut self, open: &Open) -> &mut Since {
        if open.is_busy() { &mut self.busy } else { &mut self.idle }
    }
}

impl Victim {
    fn first(of: &Since) -> Option<Self> {
        of.first().map(|&(since, number)| Self { number, since })
    }
}
