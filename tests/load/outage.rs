//! A scraper that is away for a while: its clients are at its door again soon after it is back.

use std::time::Duration;

use narthex::{
    Client,
    client::{Event, EventKind},
};
use tokio::{runtime::Runtime, sync::broadcast, time::timeout};

use crate::{
    MACHINE, clients,
    support::{SOON, eventually_true, fleet::Fleet},
};

const CLIENTS: usize = 20;
/// Dials of each client that fail: their pauses reach the longest one, and go on for about 20 s all in all.
const FAILURES: usize = 8;
/// The longest pause of a client that was linked minutes ago.
const LONGEST: Duration = Duration::from_secs(5);

#[test]
fn clients_that_lost_their_scraper_for_25_s_try_each_5_s_and_are_back() {
    let _alone = MACHINE.blocking_lock();
    let (fleet, mut scraper) = Fleet::with_scraper();
    let runtime = Runtime::new().expect("a runtime");
    let mut clients: Vec<(Client, broadcast::Receiver<Event>)> = runtime.block_on(async {
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let client = clients::start(&fleet, &scraper, number).await;
            let mut events = client.events();
            wait(&mut events, |kind| matches!(kind, EventKind::Registered { .. })).await;
            clients.push((client, events));
        }
        clients
    });
    // A link that is lost sooner counts as refused.
    std::thread::sleep(Duration::from_secs(2));

    scraper.process.kill();
    runtime.block_on(async {
        for (_, events) in &mut clients {
            for _ in 0..FAILURES {
                let pause = wait(events, |kind| matches!(kind, EventKind::LinkFailed { .. })).await;
                assert!(pause.is_some_and(|pause| pause <= LONGEST), "{pause:?} until the next dial");
            }
        }
    });
    scraper.restart();
    runtime.block_on(async {
        for (_, events) in &mut clients {
            wait(events, |kind| matches!(kind, EventKind::Registered { .. })).await;
        }
    });
    eventually_true("all are linked", SOON, || scraper.count(&["narthex_links", "direct"]) as usize == CLIENTS);
    runtime.block_on(async {
        for (client, _) in clients {
            client.shutdown().await;
        }
    });
}

/// Waits for such an event; gives the pause until the next attempt if the event has one.
async fn wait(events: &mut broadcast::Receiver<Event>, is: impl Fn(&EventKind) -> bool) -> Option<Duration> {
    let event = async {
        loop {
            let kind = events.recv().await.expect("events go on").kind;
            if is(&kind) {
                return match kind {
                    EventKind::LinkFailed { retry_in, .. } => Some(retry_in),
                    _ => None,
                };
            }
        }
    };
    timeout(SOON, event).await.expect("the event comes")
}
