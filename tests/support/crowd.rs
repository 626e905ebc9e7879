//! Many peers without any secret that link to a scraper, open a register stream each, begin a message and wait.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use narthex::identity::{KeyPair, PeerAddr};
use tokio::{runtime::Runtime, sync::Semaphore, time::sleep};

use super::{SOON, eventually_true, stranger::Link};

/// Links that are being made at once: what is attacked is not the handshakes of connections.
const DIALS: usize = 32;
/// Longest time in which a busy machine makes all links.
const GATHERED: Duration = Duration::from_secs(90);
/// One crowd at a time keeps the machine busy enough.
static ONE: Mutex<()> = Mutex::new(());

/// Between the end of a stream or link and the next attempt.
const AGAIN: Duration = Duration::from_millis(100);

/// The strangers. Each comes back when a stream or a link of its own ends, with the same key. They leave with their handle.
pub(crate) struct Crowd {
    runtime: Option<Runtime>,
    count: usize,
    /// Those that are linked, and have opened a stream since.
    here: Arc<AtomicUsize>,
    _one: MutexGuard<'static, ()>,
}

impl Crowd {
    /// Gathers `count` strangers at the peer, at its addresses by turns; returns once nearly all have opened a stream.
    #[track_caller]
    pub(crate) fn gather(peer: &[PeerAddr], count: usize) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (here, dials) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(DIALS)));
        for peer in peer.iter().cycle().take(count) {
            let (peer, here, dials) = (peer.clone(), Arc::clone(&here), Arc::clone(&dials));
            runtime.spawn(async move {
                let key = KeyPair::generate();
                loop {
                    let mut came = 0;
                    let _ = pester(&peer, &key, &dials, || {
                        here.fetch_add(1 - std::mem::replace(&mut came, 1), Relaxed);
                    })
                    .await;
                    here.fetch_sub(came, Relaxed);
                    sleep(AGAIN).await;
                }
            });
        }
        let crowd = Self { runtime: Some(runtime), count, here, _one: one };
        crowd.wait_gathered();
        crowd
    }

    /// Waits until nearly all are at the peer. The peer closes the links of some meanwhile.
    #[track_caller]
    pub(crate) fn wait_gathered(&self) {
        let most = self.count - self.count / 10;
        eventually_true("the strangers have a stream each", GATHERED, || self.here.load(Relaxed) >= most);
    }

    /// Waits until all have lost their links, as the peer is gone.
    #[track_caller]
    pub(crate) fn wait_lost(&self) {
        eventually_true("the strangers lose their links", SOON, || self.here.load(Relaxed) == 0);
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Links, and opens one stream after the other until the link is lost.
async fn pester(peer: &PeerAddr, key: &KeyPair, dials: &Semaphore, mut opened: impl FnMut()) -> io::Result<()> {
    let mut link = {
        let _turn = dials.acquire().await;
        Link::dial(peer, key).await?
    };
    loop {
        // The first byte of a frame.
        link.wait_on_stream("/narthex/register/1", &[0], &mut opened).await?;
        sleep(AGAIN).await;
    }
}
