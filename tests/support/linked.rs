//! A client inside the test process, with targets as the test wants them.

use std::convert::Infallible;

use narthex::{
    Client, PublicKey, SharedSecret,
    client::{ClientBuilder, Event, EventKind},
    identity::PeerAddr,
};
use tokio::{runtime::Runtime, sync::broadcast};

use super::fleet::{Fleet, Scraper};

pub(crate) struct Linked {
    pub(crate) client: Client,
    pub(crate) runtime: Runtime,
    events: broadcast::Receiver<Event>,
}

impl Linked {
    /// Starts a client of this scraper. `set` gives it its targets.
    #[track_caller]
    pub(crate) fn start(fleet: &Fleet, scraper: &Scraper, set: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let builder = set(Client::builder(scraper.peer(), fleet.secret.clone()));
        let client = runtime.block_on(builder.start()).expect("the client starts");
        Self { events: client.events(), client, runtime }
    }

    /// Ends as a service that falls over does: without a word to anybody.
    pub(crate) fn crash(self) {
        self.runtime.shutdown_background();
    }

    /// Ends in order.
    pub(crate) fn stop(self) {
        self.runtime.block_on(self.client.shutdown());
    }

    #[track_caller]
    pub(crate) fn wait_event<T>(&mut self, mut pick: impl FnMut(&EventKind) -> Option<T>) -> T {
        let next = async {
            loop {
                let event = self.events.recv().await.expect("the client runs, and the test keeps up");
                if let Some(picked) = pick(&event.kind) {
                    return picked;
                }
            }
        };
        let within = async { tokio::time::timeout(super::SOON, next).await };
        self.runtime.block_on(within).expect("the event comes")
    }
}

/// A client that knows a scraper by its key and some nodes alone.
pub(crate) async fn seeker(scraper: PublicKey, secret: &SharedSecret, nodes: &[PeerAddr]) -> Client {
    let builder = Client::builder(scraper, secret.clone()).bootstrap(nodes.iter().cloned()).alias("seeker");
    builder.metrics(|| Ok::<_, Infallible>("m 1\n".to_owned())).start().await.expect("the client starts")
}
