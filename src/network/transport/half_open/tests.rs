//! See [`super::pool`] for the rules.

use tokio::time::{self, Instant};

use super::{pool::TURNOVER, *};

/// Half-open connections in a table with 64 places: 32 for TCP, 8 of them reserved.
struct Lab {
    table: HalfOpen,
    held: Vec<(String, Place, AbortHandle)>,
}

impl Place {
    fn is_begun(&mut self) -> bool {
        self.turn.as_mut().is_none_or(|turn| !matches!(turn.try_recv(), Err(oneshot::error::TryRecvError::Empty)))
    }
}

impl Lab {
    fn new(proved: &[[u8; 4]]) -> Self {
        let limits = NetworkLimits {
            half_open: 64,
            half_open_per_address: 4,
            half_open_per_private_address: 12,
            ..NetworkLimits::default()
        };
        let networks = ProvedNetworks::default();
        proved.iter().for_each(|ip| networks.note((*ip).into()));
        let table = HalfOpen::new(limits, Arc::new(networks), Arc::default(), Arc::new(Refusals::new()));
        Self { table, held: Vec::new() }
    }

    /// False if the connection was refused.
    fn open(&mut self, ip: impl Into<String>) -> bool {
        self.open_at(ip, "tcp/1")
    }

    fn open_at(&mut self, ip: impl Into<String>, port: &str) -> bool {
        let (ip, (abort, _)) = (ip.into(), AbortHandle::new_pair());
        let remote = format!("/ip4/{ip}/{port}").parse().expect("multiaddr");
        let place = self.table.admit(&remote, abort.clone());
        place.map(|place| self.held.push((ip, place, abort))).is_some()
    }

    /// Fills the table from eight addresses that have proved nothing.
    fn fill(&mut self) {
        for number in 0..24 {
            assert!(self.open(format!("203.0.113.{}", number % 8)));
        }
    }

    /// How many from there have a place.
    fn placed(&mut self, ip: &str) -> usize {
        let from_there = self.held.iter_mut().filter(|(from, ..)| from.starts_with(ip));
        from_there.filter_map(|(_, place, abort)| (!abort.is_aborted() && place.is_begun()).then_some(())).count()
    }

    /// Ends the handshakes of those who have a place there, so many of them.
    fn prove(&mut self, ip: &str, count: usize) {
        for _ in 0..count {
            let placed = |(from, place, abort): &mut (String, Place, AbortHandle)| {
                from == ip && !abort.is_aborted() && place.is_begun()
            };
            let at = self.held.iter_mut().position(placed).expect("a connection with a place");
            self.held.remove(at).1.proved();
        }
    }

    fn counts(&self) -> (usize, u64, u64) {
        let counts = self.table.0.counters.read();
        (counts.handshakes, counts.evicted, counts.refused_handshakes)
    }
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_from_a_quiet_source_takes_the_place_of_the_fullest() {
    let mut lab = Lab::new(&[]);
    lab.fill();
    assert!(lab.open("203.0.113.0"), "a source may have four: one waits");
    assert!(lab.open("198.51.100.1") && lab.open("198.51.100.2"));
    assert_eq!((lab.placed("198.51.100."), lab.placed("203.0.113.")), (2, 22));
    assert_eq!(lab.counts(), (24, 2, 0));
    for round in 0..200 {
        let _ = lab.open(format!("203.0.113.{}", round % 8));
        assert_eq!(lab.placed("198.51.100."), 2, "those who have few keep what they have");
    }
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_waits_for_his_turn() {
    let mut lab = Lab::new(&[]);
    (0..7).for_each(|_| assert!(lab.open("203.0.113.7")));
    assert_eq!((lab.placed("203.0.113.7"), lab.counts()), (4, (4, 0, 0)));
    let mut last = lab.held.pop().expect("seven").1;
    assert!(time::timeout(OLD / 2, last.turn()).await.is_err());
    lab.prove("203.0.113.7", 2);
    assert_eq!((lab.placed("203.0.113.7"), lab.counts()), (4, (4, 0, 0)), "the first two who waited have a place");
    drop(lab.held.pop());
    last.turn().await;
    assert_eq!(lab.table.0.refusals.counted(Limit::HalfOpenPerIp), 0);
}

#[tokio::test(start_paused = true)]
async fn who_is_old_gives_his_place_to_one_who_waits() {
    let mut lab = Lab::new(&[]);
    (0..4).for_each(|_| assert!(lab.open("203.0.113.7")));
    assert!(time::timeout(OLD * 2, lab.held[0].1.taken_over()).await.is_err(), "nobody waits");
    assert!(lab.open("203.0.113.7") && lab.held[0].2.is_aborted(), "an old one makes room at once");
    assert!(lab.open("203.0.113.7") && lab.placed("203.0.113.7") == 4, "no other one is old");
    let begun = Instant::now();
    lab.held[1].1.taken_over().await;
    assert_eq!(begun.elapsed().as_secs(), OLD.as_secs());
    assert_eq!((lab.held.pop().expect("six").1.is_begun(), lab.counts()), (true, (4, 2, 0)));
    assert_eq!(lab.table.0.refusals.counted(Limit::HalfOpenPerIp), 2);
}

#[tokio::test(start_paused = true)]
async fn behind_a_full_line_a_source_replaces_its_own_and_not_too_fast() {
    let mut lab = Lab::new(&[]);
    (0..16).for_each(|_| assert!(lab.open("203.0.113.7")));
    assert_eq!(lab.counts(), (4, 0, 0));
    assert!(lab.open("203.0.113.7"));
    assert!(!lab.open("203.0.113.7"), "a place is kept for a while");
    assert_eq!((lab.placed("203.0.113.7"), lab.counts()), (4, (4, 1, 1)));
    assert_eq!(lab.table.0.refusals.counted(Limit::HalfOpenPerIp), 2);
    time::advance(Duration::from_millis(63)).await;
    assert!(lab.open("203.0.113.7") && lab.open("203.0.113.8"));
    lab.prove("203.0.113.7", 1);
    assert!(lab.open("203.0.113.7") && !lab.open("203.0.113.7"), "one waits again, and the line is full");
    time::advance(Duration::from_millis(240)).await;
    assert!(!lab.open("203.0.113.7"), "the line moves");
    time::advance(Duration::from_millis(11)).await;
    assert!(lab.open("203.0.113.7"), "the line stands");
}

/// Before: the newcomer was given the place, and who stood in the line stayed there until his time was over.
#[tokio::test(start_paused = true)]
async fn strangers_who_fill_the_line_keep_nobody_in_it() {
    let mut lab = Lab::new(&[]);
    (0..16).for_each(|_| assert!(lab.open("203.0.113.7")));
    let mut last = lab.held.pop().expect("sixteen").1;
    assert!(lab.open("203.0.113.7") && !last.is_begun());
    let most = TURNOVER * u32::try_from(WAITING).expect("few") + TURNOVER / 4;
    for _ in 0..most.as_millis() / 10 {
        time::advance(Duration::from_millis(10)).await;
        let _ = (0..10).filter(|_| lab.open("203.0.113.7")).count();
    }
    assert!(last.is_begun());
}

#[tokio::test(start_paused = true)]
async fn those_from_many_addresses_wait_rather_than_end_each_other() {
    let mut lab = Lab::new(&[]);
    assert!((0..120).all(|number| lab.open(format!("203.0.113.{number}"))), "the line has 96 places");
    assert_eq!((lab.placed("203"), lab.counts()), (24, (24, 0, 0)));
    assert!(lab.open("203.0.113.120") && !lab.open("203.0.113.121"));
    assert_eq!((lab.placed("203"), lab.counts()), (24, (24, 1, 1)));
}

#[tokio::test(start_paused = true)]
async fn private_addresses_and_those_that_proved_a_secret_may_have_more() {
    for (ip, limit) in [
        ("127.0.0.1", Limit::HalfOpenPerPrivateIp),
        ("192.0.2.1", Limit::HalfOpenPerPrivateIp),
        ("192.0.2.2", Limit::HalfOpenPerIp),
    ] {
        let mut lab = Lab::new(&[[192, 0, 2, 1]]);
        let most = if limit == Limit::HalfOpenPerIp { 4 } else { 12 };
        assert_eq!((0..50).filter(|_| lab.open(ip)).count(), most * 4 + 1);
        assert_eq!((lab.placed(ip), lab.table.0.refusals.counted(limit)), (most, 50 - 4 * most as u64), "{ip}");
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_leave_the_reserved_places_to_those_who_proved_a_secret() {
    let mut lab = Lab::new(&[[192, 0, 2, 1]]);
    lab.fill();
    (0..8).for_each(|_| assert!(lab.open("192.0.2.1")));
    assert_eq!((lab.placed("192.0.2.1"), lab.counts()), (8, (32, 0, 0)));
    assert!(lab.open("198.51.100.1"));
    assert_eq!((lab.placed("192.0.2.1"), lab.placed("203.0.113.")), (8, 23));
}

#[tokio::test(start_paused = true)]
async fn forged_quic_packets_take_no_place_of_tcp() {
    let mut lab = Lab::new(&[]);
    assert!((0..200).all(|number| lab.open_at(format!("203.0.113.{number}"), "udp/1/quic-v1") || number >= 12));
    assert_eq!(lab.counts().0, 12);
    lab.fill();
    assert_eq!(lab.placed("203.0.113."), 12 + 24);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_free_when_the_handshake_has_ended() {
    let mut lab = Lab::new(&[]);
    lab.fill();
    lab.held.clear();
    assert_eq!(lab.counts().0, 0);
    assert!(lab.table.pools().iter().all(Pool::is_empty));
}
