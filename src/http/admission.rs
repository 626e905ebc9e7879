//! Which HTTP connections are open, and which one goes when there is no place for the next.
//!
//! An idle connection may hold a place only as long as nobody else needs the place. A source that has as many as it may
//! have closes the one of its own that is idle longest. When all places are taken, a source with more than its share gives
//! one up, if the newcomer's source has fewer: an idle one, and if such sources have none, the one that is being answered
//! longest. Otherwise a connection that is being answered is left alone: a newcomer then gets one of [`PROBE_PLACES`],
//! where only probes are answered, so that a supervisor does not take a busy process for a dead one.
//!
//! For a place nobody is closed within [`TIME_TO_ASK`]; a newcomer waits as long, so that each has the time to send its
//! request. For a file, of which the process has none left, an idle connection goes whatever its age.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::places::{Group, Table};
use crate::{
    ip_network,
    telemetry::{Limit, Refusals},
};

/// Connections beyond the limit, for probes. Strangers who connect 10 000 times a second leave each its place for 10 ms,
/// and a probe sends its request at once.
pub(super) const PROBE_PLACES: usize = 128;
/// Connections that may wait for a place at once. For a further one a connection is closed whatever its age.
pub(super) const WAITING: usize = 256;
/// How long a connection may be silent, or be answered, before it may have to make room.
const TIME_TO_ASK: Duration = Duration::from_millis(250);
/// How long a connection waits for a place at most: those that could make room may all have been asked something meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How many HTTP connections may be open.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct HttpLimits {
    /// Most connections at once; for a further one a connection of the source that has most is closed. Default 10 240:
    /// Prometheus keeps up to 1000 idle. A few more are kept for `/-/healthy` and `/-/ready`.
    pub connections: usize,
    /// Most connections from one address (IPv6: one /56), of which the one that is idle longest is closed. Default 4096.
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
    waiting: Semaphore,
}

/// A connection's place. Dropping it makes room.
pub(super) struct Place {
    admission: Arc<Admission>,
    number: u64,
    cut: CancellationToken,
    evicted: CancellationToken,
    only_probes: bool,
}

/// As long as this lives, the connection is busy.
pub(super) struct Busy(Arc<Place>);

impl Admission {
    pub(super) fn new(limits: HttpLimits, refusals: Arc<Refusals>) -> Arc<Self> {
        Arc::new(Self { limits, refusals, table: Mutex::default(), waiting: Semaphore::new(WAITING) })
    }

    /// A place for a connection from `ip`, idle as yet. None if even those for probes are all in use.
    pub(super) async fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<Arc<Place>> {
        let waits = self.waiting.try_acquire();
        let give_up = if waits.is_ok() { Instant::now() + LONGEST_WAIT } else { Instant::now() };
        loop {
            match self.admit_now(ip, give_up) {
                Ok(place) => return place,
                Err(until) => time::sleep_until(until).await,
            }
        }
    }

    /// As [`Self::admit`]. The error is a time before `give_up` at which a connection can make room.
    fn admit_now(self: &Arc<Self>, ip: IpAddr, give_up: Instant) -> Result<Option<Arc<Place>>, Instant> {
        let source = ip_network::of_line(ip);
        let mut table = self.table();
        let mut group = Group::Source(source);
        let own = table.len(group);
        let full = if own >= self.limits.connections_per_ip {
            Some((Limit::HttpConnectionsPerIp, table.idle_longest(group)))
        } else if table.taken() >= self.limits.connections {
            Some((Limit::HttpConnections, table.of_the_fullest(source, own, self.limits.connections)))
        } else {
            None
        };
        if let Some((limit, victim)) = full {
            let now = Instant::now();
            match victim.map(|victim| (victim.number, victim.since + TIME_TO_ASK)) {
                Some((_, until)) if until > now && now < give_up => return Err(until.min(give_up)),
                Some((number, _)) => table.evict(number),
                None => group = Group::Probes,
            }
            self.refusals.count(limit, ip);
        }
        let only_probes = group == Group::Probes;
        if only_probes && table.len(group) >= PROBE_PLACES {
            match table.idle_longest(group) {
                Some(victim) => table.evict(victim.number),
                None => return Ok(None),
            }
        }
        let (number, cut, evicted) = table.open(group);
        drop(table);
        let admission = Arc::clone(self);
        Ok(Some(Arc::new(Place { admission, number, cut, evicted, only_probes })))
    }

    /// Closes an idle connection, of the source that has most; false if none is idle.
    pub(super) fn evict(&self) -> bool {
        let mut table = self.table();
        table.idle_of_the_fullest().map(|victim| table.evict(victim.number)).is_some()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Fires when the connection must go, unless it is being answered.
    pub(super) fn evicted(&self) -> &CancellationToken {
        &self.evicted
    }

    /// True if the connection must go at once.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    pub(super) fn only_probes(&self) -> bool {
        self.only_probes
    }

    /// Keeps the connection busy, and so from making room unless its source has more than its share.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.admission.table().begin(self.number);
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
        self.0.admission.table().end(self.0.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    const C: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 3));

    fn admission(connections: usize, connections_per_ip: usize) -> Arc<Admission> {
        Admission::new(HttpLimits { connections, connections_per_ip }, Arc::new(Refusals::new()))
    }

    async fn admitted(admission: &Arc<Admission>, ip: IpAddr) -> Arc<Place> {
        admission.admit(ip).await.expect("room")
    }

    /// As many from `ip`, one millisecond apart, all of them open for long enough to have to make room.
    async fn open(admission: &Arc<Admission>, ip: IpAddr, count: usize) -> Vec<Arc<Place>> {
        let mut places = Vec::new();
        for _ in 0..count {
            places.push(admitted(admission, ip).await);
            time::sleep(Duration::from_millis(1)).await;
        }
        time::sleep(TIME_TO_ASK).await;
        places
    }

    fn gone(places: &[Arc<Place>]) -> Vec<bool> {
        places.iter().map(|place| place.evicted().is_cancelled()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_idle_longest_makes_room_and_one_that_is_answered_does_not() {
        let admission = admission(3, 9);
        let places = open(&admission, A, 3).await;
        // The first was asked something and is idle again, so it is idle for the shortest time.
        drop(places[0].busy());
        let _answer = places[1].busy();
        let _fourth = admitted(&admission, B).await;
        assert_eq!(gone(&places), [false, false, true]);
        time::sleep(TIME_TO_ASK).await;
        let _fifth = admitted(&admission, B).await;
        assert_eq!(gone(&places), [true, false, true]);
        assert_eq!(admission.refusals.counted(Limit::HttpConnections), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_over_its_limit_closes_its_own_connections() {
        let admission = admission(9, 2);
        let other = open(&admission, B, 1).await;
        let own = open(&admission, A, 2).await;
        let _third = admitted(&admission, A).await;
        assert_eq!((gone(&other), gone(&own)), (vec![false], vec![true, false]));
        assert_eq!(admission.refusals.counted(Limit::HttpConnectionsPerIp), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_with_few_gets_a_place_of_the_source_that_keeps_most_busy() {
        let admission = admission(6, 9);
        let (most, fewer) = (open(&admission, A, 4).await, open(&admission, B, 2).await);
        let busy: Vec<_> = most.iter().chain(&fewer).map(Place::busy).collect();
        time::sleep(TIME_TO_ASK).await;
        let newcomer = admitted(&admission, C).await;
        assert!(!newcomer.only_probes() && most[0].is_cut(), "the one that is answered longest");
        // An idle one of another source goes before, if that has more than its share.
        drop(busy);
        let _busy: Vec<_> = most.iter().map(Place::busy).collect();
        time::sleep(TIME_TO_ASK).await;
        let _second = admitted(&admission, C).await;
        assert_eq!((gone(&most), gone(&fewer)), (vec![true, true, false, false], vec![false; 2]));
        // Each has two now: nobody has more than its share.
        let own = admitted(&admission, C).await;
        assert!(!own.only_probes() && newcomer.evicted().is_cancelled() && !newcomer.is_cut());
        assert_eq!((gone(&most), gone(&fewer)), (vec![true, true, false, false], vec![false; 2]));
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_burst_each_connection_has_the_time_to_ask() {
        let admission = admission(4, 9);
        let began = Instant::now();
        let mut burst = Vec::new();
        for _ in 0..4 {
            burst.push(admitted(&admission, A).await);
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for ip in [A, B] {
            burst.push(admitted(&admission, ip).await);
            assert!(began.elapsed() >= TIME_TO_ASK && began.elapsed() < TIME_TO_ASK * 2, "{:?}", began.elapsed());
        }
        assert_eq!(gone(&burst), [true, true, false, false, false, false]);
        // One that asks in its time is not closed.
        let _asked = burst[2].busy();
        burst.push(admitted(&admission, A).await);
        assert_eq!(gone(&burst), [true, true, false, true, false, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn not_more_than_a_few_wait_and_nobody_for_long() {
        let admission = admission(1, 9);
        let first = admitted(&admission, A).await;
        let waiting: Vec<_> = (0..WAITING)
            .map(|_| {
                let admission = Arc::clone(&admission);
                tokio::spawn(async move { admission.admit(A).await })
            })
            .collect();
        while admission.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let began = Instant::now();
        assert!(!first.evicted().is_cancelled());
        let _at_once = admitted(&admission, A).await;
        assert!(first.evicted().is_cancelled() && began.elapsed().is_zero());
        futures::future::join_all(waiting).await;
        assert!(began.elapsed() <= LONGEST_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn while_all_are_answered_newcomers_are_for_probes_and_there_are_never_more_than_that() {
        let admission = admission(2, 9);
        let answered = open(&admission, A, 2).await;
        let mut answers: Vec<_> = answered.iter().map(Place::busy).collect();
        let probes = open(&admission, A, PROBE_PLACES).await;
        assert!(probes.iter().all(|place| place.only_probes()) && !gone(&probes).contains(&true));
        let busy: Vec<_> = probes[1..].iter().map(Place::busy).collect();
        let last = admitted(&admission, A).await;
        assert!(probes[0].evicted().is_cancelled() && !gone(&probes[1..]).contains(&true), "the idle one makes room");
        assert_eq!(gone(&answered), [false, false]);
        let _probed = last.busy();
        assert!(admission.admit(A).await.is_none());
        drop((busy, answers.pop()));
        time::sleep(TIME_TO_ASK).await;
        assert!(!admitted(&admission, A).await.only_probes());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_remembered_of_connections_that_are_gone() {
        let admission = admission(2, 2);
        for _ in 0..5 {
            let place = admitted(&admission, A).await;
            let busy = place.busy();
            drop(place);
            drop(busy);
        }
        assert!(admission.table().is_empty());
    }
}
