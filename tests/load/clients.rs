//! Library clients by the hundred, in the process of the test.

use std::{convert::Infallible, time::Duration};

use futures::future::join_all;
use narthex::Client;
use tokio::{runtime::Runtime, task::JoinSet, time::timeout};

use crate::support::fleet::{Fleet, Scraper};

pub(crate) struct Clients {
    runtime: Runtime,
    clients: Vec<Client>,
}

impl Clients {
    /// Starts clients with the numbers from 0 on.
    #[track_caller]
    pub(crate) fn start(fleet: &Fleet, scraper: &Scraper, count: usize) -> Self {
        rlimit::increase_nofile_limit(u64::MAX).expect("a file for each link");
        let runtime = Runtime::new().expect("a runtime");
        let clients = runtime.block_on(join_all((0..count).map(|number| start(fleet, scraper, number))));
        Self { runtime, clients }
    }

    /// Ends all at once, in order.
    #[track_caller]
    pub(crate) fn end(self, within: Duration) {
        self.begin_to_end().wait(within);
    }

    /// As [`end`](Self::end), without waiting.
    pub(crate) fn begin_to_end(self) -> Ending {
        let _entered = self.runtime.enter();
        let ending = self.clients.into_iter().map(Client::shutdown).collect();
        Ending { ending, runtime: self.runtime }
    }
}

pub(crate) struct Ending {
    ending: JoinSet<()>,
    runtime: Runtime,
}

impl Ending {
    #[track_caller]
    pub(crate) fn wait(self, within: Duration) {
        let ended = async { timeout(within, self.ending.join_all()).await };
        self.runtime.block_on(ended).expect("all end in time");
    }
}

/// A client that begins to register [`alias`].
pub(crate) async fn start(fleet: &Fleet, scraper: &Scraper, number: usize) -> Client {
    let builder = Client::builder(scraper.peer(), fleet.secret.clone()).alias(alias(number));
    builder.metrics(|| Ok::<_, Infallible>("m 1\n".to_owned())).start().await.expect("the client starts")
}

/// The alias of the client with this number.
pub(crate) fn alias(number: usize) -> String {
    format!("client-{number}")
}
