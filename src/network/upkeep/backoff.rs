//! How long to wait between attempts.

use std::{iter, time::Duration};

use rand::Rng;
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use crate::network::host::HostChanges;

/// The first pause, before the random part of it is taken off.
const FIRST: Duration = Duration::from_millis(250);
/// Longest pause while what is lost was good within [`LATELY`]: it is most likely restarted, or a line is down for a moment.
const MOST_LATELY: Duration = Duration::from_secs(5);
/// How long something good is expected back.
const LATELY: Duration = Duration::from_secs(10 * 60);
/// The part of a pause that remains, however long the attempt before took.
const LEAST_PART: u32 = 4;

/// Pauses between attempts at something that should come back: 0.25 s, doubling to `cap`, each shortened at random by up to
/// half. So no pause is longer than `cap`.
pub(crate) fn redial_backoff(cap: Duration) -> impl Iterator<Item = Duration> {
    let mut next = FIRST;
    iter::from_fn(move || Some(jittered(&mut next, cap)))
}

fn jittered(next: &mut Duration, cap: Duration) -> Duration {
    let pause = (*next).min(cap);
    *next = pause * 2;
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// Attempts at a link, or at what needs one.
///
/// As [`redial_backoff`], but a pause counts from the beginning of the attempt before, and only a quarter of it is left where
/// that waited for a silent network. While the link was good lately no pause is longer than 5 s.
///
/// A change of this host's network ends a pause, one within 5 s: on some hosts addresses come and go all the time. Another way out
/// begins an attempt anew, once: the one under way may wait for what went the old way, but is to end some time.
pub(crate) struct Redial {
    most: Duration,
    next: Duration,
    good_at: Option<Instant>,
    /// How long the last attempt took.
    took: Duration,
    /// When a change ended a pause.
    woken_at: Option<Instant>,
    host: watch::Receiver<HostChanges>,
}

impl Redial {
    pub(crate) fn new(most: Duration, host: watch::Receiver<HostChanges>) -> Self {
        Self { most, next: FIRST, good_at: None, took: Duration::ZERO, woken_at: None, host }
    }

    /// It was good until this moment.
    pub(crate) fn was_good(&mut self) {
        (self.good_at, self.next) = (Some(Instant::now()), FIRST);
    }

    pub(crate) async fn attempt<T, F: Future<Output = T>>(&mut self, mut attempt: impl FnMut() -> F) -> T {
        self.host.mark_unchanged();
        let began = Instant::now();
        let first = tokio::select! {
            done = attempt() => Some(done),
            () = other_ways(&mut self.host) => None,
        };
        let done = match first {
            Some(done) => done,
            None => {
                self.next = FIRST;
                attempt().await
            }
        };
        self.took = began.elapsed();
        done
    }

    /// The pause from now until the next attempt.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let lately = self.good_at.is_some_and(|at| at.elapsed() < LATELY);
        let most = if lately { self.most.min(MOST_LATELY) } else { self.most };
        let pause = jittered(&mut self.next, most);
        pause.saturating_sub(self.took).max(pause / LEAST_PART)
    }

    /// Waits so long, or until this host's network changes.
    pub(crate) async fn pause(&mut self, pause: Duration) {
        let ends = Instant::now() + pause;
        let woken_lately = self.woken_at.map_or(Duration::ZERO, |at| MOST_LATELY.saturating_sub(at.elapsed()));
        let changed = async {
            time::sleep(woken_lately).await;
            changed(&mut self.host).await;
        };
        tokio::select! {
            () = time::sleep_until(ends) => {}
            () = changed => (self.woken_at, self.next) = (Some(Instant::now()), FIRST),
        }
    }
}

/// Returns with the next change of this host's network that was not seen.
async fn changed(host: &mut watch::Receiver<HostChanges>) {
    if host.changed().await.is_err() {
        std::future::pending().await // the network is gone, and so are its attempts soon
    }
}

/// Returns once there are other ways out of this host than now.
async fn other_ways(host: &mut watch::Receiver<HostChanges>) {
    let ways = host.borrow_and_update().ways;
    while host.borrow_and_update().ways == ways {
        changed(host).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_cap_and_their_jitter_stays_within() {
        let cap = Duration::from_secs(15);
        let mut most = FIRST;
        for pause in redial_backoff(cap).take(12) {
            assert!((most / 2..=most).contains(&pause), "{pause:?}, and at most {most:?}");
            most = cap.min(2 * most);
        }
    }

    const MOST: Duration = Duration::from_secs(15);

    fn redial() -> (Redial, watch::Sender<HostChanges>) {
        let host = watch::Sender::default();
        (Redial::new(MOST, host.subscribe()), host)
    }

    /// The longest of the pauses that pass within a time, of attempts that fail at once.
    async fn longest(redial: &mut Redial, within: Duration) -> Duration {
        let (began, mut longest) = (Instant::now(), Duration::ZERO);
        while began.elapsed() < within {
            redial.attempt(|| async {}).await;
            let pause = redial.next_pause();
            redial.pause(pause).await;
            longest = longest.max(pause);
        }
        longest
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_good_lately_is_tried_each_5_s_and_what_was_long_ago_each_15_s() {
        let (mut redial, _host) = redial();
        redial.was_good();
        assert!(longest(&mut redial, LATELY - MOST_LATELY).await <= MOST_LATELY);
        let later = longest(&mut redial, LATELY).await;
        assert!(later > MOST_LATELY && later <= MOST, "{later:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_never_good_is_tried_each_15_s() {
        let (mut redial, _host) = redial();
        let longest = longest(&mut redial, LATELY).await;
        assert!(longest > MOST_LATELY && longest <= MOST, "{longest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_counts_from_the_beginning_of_the_attempt_before() {
        let (mut redial, _host) = redial();
        longest(&mut redial, LATELY).await;
        redial.attempt(|| time::sleep(MOST / 3)).await;
        assert!(redial.next_pause() <= MOST - MOST / 3);
        redial.attempt(|| time::sleep(MOST)).await;
        let pause = redial.next_pause();
        assert!((MOST / 8..=MOST / 4).contains(&pause), "{pause:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_the_hosts_network_ends_a_pause_and_begins_with_short_ones() {
        let (mut redial, host) = redial();
        longest(&mut redial, LATELY).await;
        let (began, pause) = (Instant::now(), redial.next_pause());
        let change = async {
            time::sleep(Duration::from_millis(500)).await;
            change_any(&host);
        };
        tokio::join!(redial.pause(pause), change);
        assert_eq!(began.elapsed(), Duration::from_millis(500));
        redial.attempt(|| async {}).await;
        assert!(redial.next_pause() <= FIRST);
    }

    fn change_any(host: &watch::Sender<HostChanges>) {
        host.send_modify(|changes| changes.any += 1);
    }

    fn change_ways(host: &watch::Sender<HostChanges>) {
        host.send_modify(|changes| (changes.any, changes.ways) = (changes.any + 1, changes.ways + 1));
    }

    #[tokio::test(start_paused = true)]
    async fn another_way_out_begins_an_attempt_anew() {
        let (mut redial, host) = redial();
        let mut attempts = 0;
        let attempt = redial.attempt(|| {
            attempts += 1;
            time::sleep(Duration::from_secs(if attempts == 1 { 3600 } else { 0 }))
        });
        let change = async {
            time::sleep(Duration::from_secs(1)).await;
            change_ways(&host);
        };
        time::timeout(Duration::from_secs(2), async { tokio::join!(attempt, change) }).await.expect("the second ends");
        assert_eq!(attempts, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_and_ways_that_come_and_go_let_an_attempt_end_and_are_no_reason_to_hurry() {
        for change in [change_any, change_ways] {
            let (mut redial, host) = redial();
            longest(&mut redial, LATELY).await;
            let churn = async {
                loop {
                    time::sleep(Duration::from_secs(1)).await;
                    change(&host);
                }
            };
            let attempts = async {
                let began = Instant::now();
                for _ in 0..20 {
                    redial.attempt(|| time::sleep(Duration::from_secs(4))).await;
                    let pause = redial.next_pause();
                    redial.pause(pause).await;
                }
                began.elapsed()
            };
            let took = tokio::select! {
                took = attempts => took,
                () = churn => unreachable!("it never ends"),
                () = time::sleep(LATELY) => panic!("no attempt ends"),
            };
            assert!(took < Duration::from_secs(20 * 10), "{took:?}");

            let (mut redial, host) = self::redial();
            let mut refused = 0;
            let churn = async {
                loop {
                    time::sleep(Duration::from_millis(300)).await;
                    change(&host);
                }
            };
            let attempts = async {
                loop {
                    redial.attempt(|| async {}).await;
                    refused += 1;
                    redial.pause(MOST).await;
                }
            };
            tokio::select! {
                () = churn => {}
                () = attempts => {}
                () = time::sleep(Duration::from_secs(60)) => {}
            }
            assert!((10..=13).contains(&refused), "{refused} in a minute");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_before_an_attempt_is_not_waited_for_twice() {
        let (mut redial, host) = redial();
        change_ways(&host);
        let mut attempts = 0;
        redial
            .attempt(|| {
                attempts += 1;
                async {}
            })
            .await;
        assert_eq!(attempts, 1);
        assert!(time::timeout(MOST, redial.pause(MOST * 2)).await.is_err());
    }
}
