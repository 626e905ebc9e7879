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

use super::{eventually_true, stranger::Link};

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
    opened: Arc<AtomicUsize>,
    _one: MutexGuard<'static, ()>,
}

impl Crowd {
    /// Gathers `count` strangers at the peer; returns once each has opened a stream.
    #[track_caller]
    pub(crate) fn gather(peer: &PeerAddr, count: usize) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (opened, dials) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(DIALS)));
        for _ in 0..count {
            let (peer, opened, dials) = (peer.clone(), Arc::clone(&opened), Arc::clone(&dials));
            runtime.spawn(async move {
                let (key, mut first) = (KeyPair::generate(), true);
                loop {
                    let _ = pester(&peer, &key, &dials, || {
                        opened.fetch_add(usize::from(std::mem::take(&mut first)), Relaxed);
                    })
                    .await;
                    sleep(AGAIN).await;
                }
            });
        }
        let crowd = Self { runtime: Some(runtime), opened, _one: one };
        eventually_true("all strangers have a stream", GATHERED, || crowd.opened.load(Relaxed) == count);
        crowd
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
