//! Library clients in processes of their own: the test binary once more.

use std::{convert::Infallible, env, ops::Range, path::Path, process::Command};

use narthex::{
    Client,
    identity::{self, PeerAddr},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use crate::support::{
    fleet::{Fleet, Scraper},
    process::Process,
};

const NUMBERS: [&str; 3] = ["TEST_CLIENTS_FIRST", "TEST_CLIENTS_END", "TEST_CLIENTS_STEP"];
const SCRAPER: &str = "TEST_CLIENTS_SCRAPER";
const SECRET_FILE: &str = "TEST_CLIENTS_SECRET_FILE";

pub(crate) fn alias(number: usize) -> String {
    format!("client-{number}")
}

/// The clients with each `step`th of these numbers. SIGTERM ends all at once, in order.
pub(crate) fn spawn_clients(fleet: &Fleet, scraper: &Scraper, numbers: Range<usize>, step: usize) -> Process {
    let mut command = Command::new(env::current_exe().expect("the test binary has a path"));
    command.args(["--exact", "clients::clients", "--ignored", "--nocapture"]);
    let name = format!("clients-{}", numbers.start);
    command.envs(NUMBERS.into_iter().zip([numbers.start, numbers.end, step].map(|number| number.to_string())));
    command.env(SCRAPER, scraper.peer().to_string()).env(SECRET_FILE, fleet.secret_file());
    Process::spawn(&name, fleet.path(), &mut command)
}

#[test]
#[ignore = "the clients: other tests run them as processes of their own"]
fn clients() {
    let Ok(scraper) = env::var(SCRAPER) else { return };
    let scraper: PeerAddr = scraper.parse().expect("a peer");
    let [first, end, step] =
        NUMBERS.map(|name| env::var(name).expect("set by the test").parse::<usize>().expect("a number"));
    let secret_file = env::var_os(SECRET_FILE).expect("set by the test");
    let secret = identity::load_secret(Path::new(&secret_file)).expect("a secret");
    rlimit::increase_nofile_limit(u64::MAX).expect("a file for each link");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).expect("a handler");
        let mut clients = Vec::new();
        for number in (first..end).step_by(step) {
            let client = Client::builder(scraper.clone(), secret.clone())
                .alias(alias(number))
                .metrics(|| Ok::<_, Infallible>("m 1\n".to_owned()))
                .start();
            clients.push(client.await.expect("the client starts"));
        }
        terminated.recv().await;
        let ending: JoinSet<()> = clients.into_iter().map(Client::shutdown).collect();
        ending.join_all().await;
    });
}
