//! Changes of this host's network, as two looks at it show them.

use std::{collections::BTreeSet, convert::Infallible, io, net::IpAddr, time::Duration};

use tokio::{sync::watch, time};

use super::changes::HostChanges;

/// The kernel tells of one event in many messages: a link, its addresses, its routes.
const SETTLE: Duration = Duration::from_millis(200);

/// This host's network as it is at the moment, as far as it carries anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// Where packets to the internet leave, by IPv4 and by IPv6.
    pub(super) ways: [Option<Way>; 2],
    /// Addresses that mean something on further hosts, with the index of their link.
    pub(super) addresses: BTreeSet<(u32, IpAddr)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) link: u32,
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
}

impl Host {
    fn leads_anywhere(&self) -> bool {
        self.ways.iter().any(Option::is_some) || !self.addresses.is_empty()
    }

    /// True if what left by a way of before now leaves by another one, or if there is one where there was none.
    fn has_other_ways(&self, before: &Self) -> bool {
        self.ways.iter().zip(&before.ways).any(|(now, before)| now.is_some() && now != before)
    }
}

/// What the kernel knows.
pub(super) trait Kernel {
    /// Returns once something may have changed.
    async fn told(&mut self) -> io::Result<()>;
    async fn look(&mut self) -> io::Result<Host>;
}

/// Counts the changes since the host was last seen as `known`, and keeps that. Never returns, unless the kernel cannot be asked.
pub(super) async fn follow(
    kernel: &mut impl Kernel,
    known: &mut Option<Host>,
    changes: &watch::Sender<HostChanges>,
) -> io::Result<Infallible> {
    loop {
        let now = kernel.look().await?;
        if let Some(before) = known.replace(now.clone()).filter(|before| *before != now) {
            tracing::debug!(ways = ?now.ways, addresses = now.addresses.len(), "this host's network has changed");
            if now.leads_anywhere() {
                changes.send_modify(|changes| {
                    changes.any += 1;
                    changes.ways += u64::from(now.has_other_ways(&before));
                });
            }
        }
        kernel.told().await?;
        time::sleep(SETTLE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, future};

    use tokio::time::Instant;

    use super::*;

    /// A kernel that tells at these times, and where each look finds the next one of these.
    struct Scripted {
        began: Instant,
        tells_at_ms: VecDeque<u64>,
        looks: VecDeque<Host>,
    }

    impl Kernel for Scripted {
        async fn told(&mut self) -> io::Result<()> {
            let Some(at) = self.tells_at_ms.pop_front() else { return future::pending().await };
            time::sleep_until(self.began + Duration::from_millis(at)).await;
            // As netlink does: what was told meanwhile is one message.
            let now = self.began.elapsed();
            self.tells_at_ms.retain(|at| Duration::from_millis(*at) > now);
            Ok(())
        }

        async fn look(&mut self) -> io::Result<Host> {
            self.looks.pop_front().ok_or_else(|| io::Error::other("a look too many"))
        }
    }

    fn host(gateway: Option<[u8; 4]>, addresses: &[[u8; 4]]) -> Host {
        let way = |gateway: [u8; 4]| Way { link: 1, gateway: Some(gateway.into()), source: None };
        Host {
            ways: [gateway.map(way), None],
            addresses: addresses.iter().map(|address| (1, IpAddr::from(*address))).collect(),
        }
    }

    /// What is counted in the end, and after how long the last change was.
    async fn counted(tells_at_ms: &[u64], looks: Vec<Host>) -> (HostChanges, Duration) {
        let changes = watch::Sender::default();
        let began = Instant::now();
        let mut kernel = Scripted { began, tells_at_ms: tells_at_ms.iter().copied().collect(), looks: looks.into() };
        let (mut seen, mut last) = (changes.subscribe(), Duration::ZERO);
        let notes = async {
            while seen.changed().await.is_ok() {
                last = began.elapsed();
            }
        };
        let mut known = None;
        let all = async { tokio::join!(follow(&mut kernel, &mut known, &changes), notes) };
        let _ = time::timeout(Duration::from_secs(60), all).await;
        (*changes.borrow(), last)
    }

    const HOME: [u8; 4] = [192, 168, 1, 100];
    const ROUTER: [u8; 4] = [192, 168, 1, 1];

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_messages_is_one_change_a_moment_later() {
        let looks = vec![host(None, &[]), host(Some(ROUTER), &[HOME])];
        let (changes, at) = counted(&[1000, 1001, 1050, 1199], looks).await;
        assert_eq!(changes, HostChanges { any: 1, ways: 1 });
        assert_eq!(at, Duration::from_millis(1200));
    }

    #[tokio::test(start_paused = true)]
    async fn what_changed_while_the_kernel_could_not_be_asked_is_a_change() {
        let (mut known, changes) = (None, watch::Sender::default());
        for (looks, counted) in [(vec![host(Some(ROUTER), &[HOME])], 0), (vec![host(Some(HOME), &[HOME])], 1)] {
            let mut kernel = Scripted { began: Instant::now(), tells_at_ms: [1].into(), looks: looks.into() };
            follow(&mut kernel, &mut known, &changes).await.expect_err("a look fails");
            assert_eq!(*changes.borrow(), HostChanges { any: counted, ways: counted });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn messages_that_change_nothing_wake_nobody() {
        let same = || host(Some(ROUTER), &[HOME]);
        let (changes, _) = counted(&[1000, 2000, 3000], vec![same(), same(), same(), same()]).await;
        assert_eq!(changes, HostChanges::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_carrier_is_no_change_and_its_return_is_one() {
        let up = || host(Some(ROUTER), &[HOME]);
        let (changes, at) = counted(&[1000, 9000], vec![up(), host(None, &[]), up()]).await;
        assert_eq!(changes, HostChanges { any: 1, ways: 1 });
        assert_eq!(at, Duration::from_millis(9200));
    }

    #[tokio::test(start_paused = true)]
    async fn a_further_address_is_no_other_way_and_another_gateway_is_one() {
        let looks = vec![
            host(Some(ROUTER), &[HOME]),
            host(Some(ROUTER), &[HOME, [172, 17, 0, 1]]),
            host(Some([192, 168, 1, 2]), &[HOME, [172, 17, 0, 1]]),
        ];
        assert_eq!(counted(&[1000, 2000], looks).await.0, HostChanges { any: 2, ways: 1 });
    }
}
