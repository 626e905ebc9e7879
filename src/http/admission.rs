//! Which HTTP connections are open, and which one goes when there is no place for the next.
//!
//! An idle connection may hold a place only as long as nobody else needs the place. When all places are taken, or all of
//! one source, the connection that is idle longest is closed for the newcomer; a connection that is being answered never
//! is. While all are being answered, a newcomer gets one of [`PROBE_PLACES`], where only probes are answered, so that a
//! supervisor does not take a busy process for a dead one.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use tokio_util::sync::CancellationToken;

use crate::{
    ip_network,
    telemetry::{Limit, Refusals},
};

/// Connections beyond the limit, for probes. Strangers who connect 10 000 times a second leave each its place for 10 ms,
/// and a probe sends its request at once.
pub(super) const PROBE_PLACES: usize = 128;

/// How many HTTP connections may be open.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct HttpLimits {
    /// Most connections at once; for a further one the connection that is idle longest is closed. Default 10 240:
    /// Prometheus keeps up to 1000 idle. A few more are kept for `/-/healthy` and `/-/ready`.
    pub connections: usize,
    /// Most connections from one address (IPv6: one /64), in the same manner. Default 4096.
    pub connections_per_ip: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self { connections: 10_240, connections_per_ip: 4096 }
    }
}

/// The connections of one listener.
pub(super) struct Admission {
    limits: HttpLimits,
    refusals: Arc<Refusals>,
    table: Mutex<Table>,
}

/// What a place counts among.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Group {
    All,
    Source(IpAddr),
    Probes,
}

#[derive(Default)]
struct Table {
    /// The next number of a connection, or of a time at which one became idle: a smaller number is older.
    next: u64,
    open: HashMap<u64, Open>,
    taken: HashMap<Group, usize>,
    /// The numbers of idle connections, by group and by the time at which they became idle.
    idle: BTreeMap<(Group, u64), u64>,
}

struct Open {
    groups: Vec<Group>,
    idle_since: Option<u64>,
    evicted: CancellationToken,
}

/// A connection's place. Dropping it makes room.
pub(super) struct Place {
    admission: Arc<Admission>,
    number: u64,
    evicted: CancellationToken,
    only_probes: bool,
    busy: AtomicUsize,
}

/// As long as this lives, the connection is not closed for another one.
pub(super) struct Busy(Arc<Place>);

impl Admission {
    pub(super) fn new(limits: HttpLimits, refusals: Arc<Refusals>) -> Arc<Self> {
        Arc::new(Self { limits, refusals, table: Mutex::default() })
    }

    /// A place for a connection from `ip`, idle as yet. None if even those for probes are all in use.
    pub(super) fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<Arc<Place>> {
        let source = ip_network::of_host(ip);
        let HttpLimits { connections, connections_per_ip } = self.limits;
        let limits = [
            (Group::Source(source), connections_per_ip, Limit::HttpConnectionsPerIp),
            (Group::All, connections, Limit::HttpConnections),
        ];
        let mut table = self.table();
        let mut groups = vec![Group::All, Group::Source(source)];
        for (group, most, limit) in limits {
            if table.taken(group) >= most {
                self.refusals.count(limit, ip);
                if !table.evict(group) {
                    groups = vec![Group::Probes];
                    break;
                }
            }
        }
        let only_probes = groups == [Group::Probes];
        if only_probes && table.taken(Group::Probes) >= PROBE_PLACES && !table.evict(Group::Probes) {
            return None;
        }
        let (number, evicted) = table.open(groups);
        drop(table);
        let admission = Arc::clone(self);
        Some(Arc::new(Place { admission, number, evicted, only_probes, busy: AtomicUsize::new(0) }))
    }

    /// Closes the connection that is idle longest; false if none is idle.
    pub(super) fn evict(&self) -> bool {
        self.table().evict(Group::All)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn taken(&self, group: Group) -> usize {
        self.taken.get(&group).copied().unwrap_or_default()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn open(&mut self, groups: Vec<Group>) -> (u64, CancellationToken) {
        let (number, evicted) = (self.number(), CancellationToken::new());
        for group in &groups {
            *self.taken.entry(*group).or_default() += 1;
        }
        self.open.insert(number, Open { groups, idle_since: None, evicted: evicted.clone() });
        self.idle(number);
        (number, evicted)
    }

    fn idle(&mut self, number: u64) {
        let since = self.number();
        let Some(open) = self.open.get_mut(&number) else { return };
        open.idle_since = Some(since);
        self.idle.extend(open.groups.iter().map(|group| ((*group, since), number)));
    }

    fn busy(&mut self, number: u64) {
        let Some(open) = self.open.get_mut(&number) else { return };
        if let Some(since) = open.idle_since.take() {
            for group in &open.groups {
                self.idle.remove(&(*group, since));
            }
        }
    }

    fn evict(&mut self, group: Group) -> bool {
        let Some((_, &number)) = self.idle.range((group, 0)..=(group, u64::MAX)).next() else { return false };
        self.close(number);
        true
    }

    fn close(&mut self, number: u64) {
        self.busy(number);
        let Some(open) = self.open.remove(&number) else { return };
        for group in open.groups {
            if let Some(taken) = self.taken.get_mut(&group) {
                *taken -= 1;
                if *taken == 0 {
                    self.taken.remove(&group);
                }
            }
        }
        open.evicted.cancel();
    }
}

impl Place {
    /// Fires when the connection must go.
    pub(super) fn evicted(&self) -> &CancellationToken {
        &self.evicted
    }

    pub(super) fn only_probes(&self) -> bool {
        self.only_probes
    }

    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        let mut table = self.admission.table();
        if self.busy.fetch_add(1, SeqCst) == 0 {
            table.busy(self.number);
        }
        Busy(Arc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.table().close(self.number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut table = self.0.admission.table();
        if self.0.busy.fetch_sub(1, SeqCst) == 1 {
            table.idle(self.0.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn admission(connections: usize, connections_per_ip: usize) -> Arc<Admission> {
        Admission::new(HttpLimits { connections, connections_per_ip }, Arc::new(Refusals::new()))
    }

    fn evicted(places: &[&Arc<Place>]) -> Vec<bool> {
        places.iter().map(|place| place.evicted().is_cancelled()).collect()
    }

    #[test]
    fn the_connection_idle_longest_makes_room_and_one_that_is_answered_never_does() {
        let admission = admission(3, 9);
        let [first, second, third] = [(); 3].map(|()| admission.admit(A).expect("room"));
        // The first was asked something and is idle again, so it is idle for the shortest time.
        drop(first.busy());
        let _answer = second.busy();
        let _fourth = admission.admit(B).expect("room");
        assert_eq!(evicted(&[&first, &second, &third]), [false, false, true]);
        let _fifth = admission.admit(B).expect("room");
        assert_eq!(evicted(&[&first, &second, &third]), [true, false, true]);
        assert_eq!(admission.refusals.counted(Limit::HttpConnections), 2);
    }

    #[test]
    fn a_source_over_its_limit_closes_its_own_connections() {
        let admission = admission(9, 2);
        let other = admission.admit(B).expect("room");
        let [first, second, third] = [(); 3].map(|()| admission.admit(A).expect("room"));
        assert_eq!(evicted(&[&other, &first, &second, &third]), [false, true, false, false]);
        assert_eq!(admission.refusals.counted(Limit::HttpConnectionsPerIp), 1);
    }

    #[test]
    fn while_all_are_answered_newcomers_are_for_probes_and_there_are_never_more_than_that() {
        let admission = admission(2, 9);
        let answered = [(); 2].map(|()| admission.admit(A).expect("room"));
        let mut answers = answered.each_ref().map(Place::busy).into_iter();
        let probes: Vec<_> = (0..PROBE_PLACES).map(|_| admission.admit(A).expect("room")).collect();
        assert!(probes.iter().all(|place| place.only_probes() && !place.evicted().is_cancelled()));
        let busy: Vec<_> = probes[1..].iter().map(Place::busy).collect();
        let last = admission.admit(A).expect("the one that is idle makes room");
        assert_eq!(evicted(&[&probes[0], &probes[1], &answered[0]]), [true, false, false]);
        let _probed = last.busy();
        assert!(admission.admit(A).is_none());
        drop((busy, answers.next()));
        assert!(!admission.admit(A).expect("room").only_probes());
    }

    #[test]
    fn nothing_is_remembered_of_connections_that_are_gone() {
        let admission = admission(2, 2);
        for _ in 0..5 {
            let place = admission.admit(A).expect("room");
            let busy = place.busy();
            drop(place);
            drop(busy);
        }
        let table = admission.table();
        assert!(table.open.is_empty() && table.taken.is_empty() && table.idle.is_empty());
    }
}
